"""What is asked of both servers, by dialect: a name, then the path and the body, `None` for a GET."""
QUESTION = [{"role": "user", "content": "What is 2+2?"}]
ASK = {"messages": QUESTION, "max_tokens": 16, "temperature": 0, "seed": 1}
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds", "parameters": PARAMETERS}}]
CALLED = [*QUESTION, {"role": "assistant", "content": None, "tool_calls": [
    {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{\"a\":2,\"b\":2}"}}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "4"}]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["n"],
          "additionalProperties": False}
FORM = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
LONG = [{"role": "user", "content": "word " * 9000}]
CHAT, TEXT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
FRANCE = {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}
RESPOND = {"input": "What is 2+2?", "max_output_tokens": 16, "temperature": 0, "seed": 1}
ADD = {"type": "function", "name": "add", "description": "Adds", "parameters": PARAMETERS}
ADD_ANTHROPIC = {"name": "add", "description": "Adds", "input_schema": PARAMETERS}
GAP = {"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n", "n_predict": 8, "temperature": 0}
OPTIONS = {"num_predict": 16, "temperature": 0, "seed": 1}

OPENAI = {
    "chat": (CHAT, ASK),
    "chat stop": (CHAT, {**ASK, "stop": ["4"]}),
    "chat stops": (CHAT, {**ASK, "stop": ["nothing of it", "+", "4"]}),
    "chat parts": (CHAT, {**ASK, "messages": [{"role": "user", "content": [{"type": "text", "text": "What is 2+2?"}]}]}),
    "chat system": (CHAT, {**ASK, "messages": [{"role": "system", "content": "Be brief."}, *QUESTION]}),
    "chat developer": (CHAT, {**ASK, "messages": [{"role": "developer", "content": "Be brief."}, *QUESTION]}),
    "chat turns": (CHAT, {**ASK, "messages": [*QUESTION, {"role": "assistant", "content": "4"}, {"role": "user", "content": "And 3+3?"}]}),
    "chat length": (CHAT, {**ASK, "max_tokens": 1}),
    "chat completion tokens": (CHAT, {**ASK, "max_tokens": None, "max_completion_tokens": 3}),
    "chat nulls": (CHAT, {**ASK, "stop": None, "tools": None, "response_format": None, "stream": None, "user": None}),
    "chat several": (CHAT, {**ASK, "n": 2}),
    "chat bias": (CHAT, {**ASK, "max_tokens": 2, "logit_bias": {"504": -100}}),
    "chat stream": (CHAT, {**ASK, "stream": True}),
    "chat stream usage": (CHAT, {**ASK, "stream": True, "stream_options": {"include_usage": True}}),
    "chat stream stop": (CHAT, {**ASK, "stream": True, "stop": ["4"]}),
    "chat stream schema": (CHAT, {**ASK, "stream": True, "response_format": FORM}),
    "chat stream tools required": (CHAT, {**ASK, "max_tokens": 64, "stream": True, "tools": TOOLS, "tool_choice": "required"}),
    "chat stream too long": (CHAT, {**ASK, "messages": LONG, "stream": True}),
    "chat logprobs": (CHAT, {**ASK, "max_tokens": 2, "logprobs": True, "top_logprobs": 2}),
    "chat object": (CHAT, {**ASK, "max_tokens": 64, "response_format": {"type": "json_object"}}),
    "chat schema": (CHAT, {**ASK, "response_format": FORM}),
    "chat grammar": (CHAT, {**ASK, "grammar": 'root ::= "yes" | "no"'}),
    "chat tools required": (CHAT, {**ASK, "max_tokens": 64, "tools": TOOLS, "tool_choice": "required"}),
    "chat tools none": (CHAT, {**ASK, "tools": TOOLS, "tool_choice": "none"}),
    "chat tools told": (CHAT, {**ASK, "tools": TOOLS, "tool_choice": "none", "messages": CALLED}),
    "chat no messages": (CHAT, {"max_tokens": 1}),
    "chat empty messages": (CHAT, {"max_tokens": 1, "messages": []}),
    "chat wrong role": (CHAT, {"messages": [{"role": "king", "content": "x"}]}),
    "chat wrong type": (CHAT, {**ASK, "temperature": "hot"}),
    "chat wrong choice": (CHAT, {**ASK, "tools": TOOLS, "tool_choice": "perhaps"}),
    "chat wrong schema": (CHAT, {**ASK, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}}}),
    "chat wrong grammar": (CHAT, {**ASK, "grammar": "root ::= ("}),
    "chat no json": (CHAT, "{"),
    "chat a list": (CHAT, "[]"),
    "chat too long": (CHAT, {**ASK, "messages": LONG}),
    "completion": (TEXT, FRANCE),
    "completion stream": (TEXT, {**FRANCE, "stream": True}),
    "completion stop": (TEXT, {**FRANCE, "max_tokens": 16, "stop": "."}),
    "completion list": (TEXT, {**FRANCE, "prompt": [FRANCE["prompt"]]}),
    "completion tokens": (TEXT, {**FRANCE, "prompt": [504, 2988, 282, 4649, 314]}),
    "completion logprobs": (TEXT, {**FRANCE, "logprobs": 1}),
    "completion no prompt": (TEXT, {"max_tokens": 1}),
    "embeddings": ("/v1/embeddings", {"input": "a text"}),
    "models": ("/v1/models", None),
    "no such path": ("/v1/nothing", None),
    "no such method": (CHAT, None),
}
RESPONSES_API = {
    "response": (RESPONSES, RESPOND),
    "response stream": (RESPONSES, {**RESPOND, "stream": True}),
    "response instructions": (RESPONSES, {**RESPOND, "instructions": "Be brief."}),
    "response length": (RESPONSES, {**RESPOND, "max_output_tokens": 1}),
    "response items": (RESPONSES, {**RESPOND, "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "What is 2+2?"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "4"}]}, {"role": "user", "content": "And 3+3?"}]}),
    "response schema": (RESPONSES, {**RESPOND, "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}}),
    "response tools required": (RESPONSES, {**RESPOND, "max_output_tokens": 64, "tools": [ADD], "tool_choice": "required"}),
    "response no input": (RESPONSES, {"max_output_tokens": 1}),
}
ANTHROPIC = {
    "message": (MESSAGES, ASK),
    "message stream": (MESSAGES, {**ASK, "stream": True}),
    "message system": (MESSAGES, {**ASK, "system": "Be brief."}),
    "message blocks": (MESSAGES, {**ASK, "messages": [{"role": "user", "content": [{"type": "text", "text": "What is 2+2?"}]}]}),
    "message length": (MESSAGES, {**ASK, "max_tokens": 1}),
    "message stop": (MESSAGES, {**ASK, "stop_sequences": ["4"]}),
    "message tools any": (MESSAGES, {**ASK, "max_tokens": 64, "tools": [ADD_ANTHROPIC], "tool_choice": {"type": "any"}}),
    "message tools stream": (MESSAGES, {**ASK, "max_tokens": 64, "tools": [ADD_ANTHROPIC], "tool_choice": {"type": "any"}, "stream": True}),
    "message tools told": (MESSAGES, {**ASK, "tools": [ADD_ANTHROPIC], "tool_choice": {"type": "none"}, "messages": [
        *QUESTION, {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 2, "b": 2}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "4"}]}]}),
    "message count": (f"{MESSAGES}/count_tokens", {"messages": QUESTION}),
    "message no messages": (MESSAGES, {"max_tokens": 1}),
    "message too long": (MESSAGES, {**ASK, "messages": LONG}),
}
OWN = {
    "tokenize": ("/tokenize", {"content": "Hello world"}),
    "tokenize pieces": ("/tokenize", {"content": "Hello world", "with_pieces": True}),
    "tokenize special": ("/tokenize", {"content": "<|im_start|>", "parse_special": False, "add_special": True}),
    "detokenize": ("/detokenize", {"tokens": [19556, 905]}),
    "apply template": ("/apply-template", {"messages": QUESTION}),
    "infill": ("/infill", GAP),
    "infill stream": ("/infill", {**GAP, "stream": True}),
    "infill no suffix": ("/infill", {"input_prefix": "def add(a, b):"}),
    "rerank": ("/v1/rerank", {"query": "a city", "documents": ["Paris is a city.", "Two and two are four."]}),
    "rerank no documents": ("/v1/rerank", {"query": "a city"}),
}
OLLAMA = {
    "ollama chat": ("/api/chat", {"messages": QUESTION, "options": OPTIONS, "stream": False}),
    "ollama chat stream": ("/api/chat", {"messages": QUESTION, "options": OPTIONS}),
    "ollama chat schema": ("/api/chat", {"messages": QUESTION, "options": OPTIONS, "format": SCHEMA, "stream": False}),
    "ollama chat load": ("/api/chat", {"messages": [], "stream": False}),
    "ollama chat unknown": ("/api/chat", {"messages": QUESTION, "model": "nothing"}),
    "ollama generate": ("/api/generate", {"prompt": "The capital of France is", "raw": True, "options": OPTIONS, "stream": False}),
    "ollama generate stream": ("/api/generate", {"prompt": "The capital of France is", "raw": True, "options": OPTIONS}),
    "ollama embed": ("/api/embed", {"input": "a text"}),
    "ollama show": ("/api/show", {}),
    "ollama show unknown": ("/api/show", {"model": "nothing"}),
    "ollama tags": ("/api/tags", None),
    "ollama ps": ("/api/ps", None),
    "ollama version": ("/api/version", None),
}
DIALECTS = {"openai": OPENAI, "responses": RESPONSES_API, "anthropic": ANTHROPIC, "llama.cpp": OWN, "ollama": OLLAMA}
