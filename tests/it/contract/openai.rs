//! OpenAI's dialect.

use serde_json::{Value, json};

use super::{Case, case, with};
use crate::support::{MODEL, Server};

/// A conversation whose answer begins the same on every machine.
fn fact() -> Value {
    json!({ "model": MODEL, "messages": [{ "role": "user", "content": "Tell me a fact about Paris." }],
            "max_completion_tokens": 3, "temperature": 0, "seed": 7 })
}

fn chat(name: &'static str, body: Value) -> Case {
    case(name, "POST", "/v1/chat/completions", None, &body)
}

fn embed(name: &'static str, body: Value) -> Case {
    case(name, "POST", "/v1/embeddings", None, &body)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        chat("openai_chat", fact()),
        chat("openai_chat_stream", with(fact(), json!({ "stream": true }))),
        chat(
            "openai_chat_stream_usage",
            with(fact(), json!({ "stream": true, "stream_options": { "include_usage": true } })),
        ),
        chat("openai_chat_ignored", with(fact(), json!({ "user": "me", "store": false, "n": 1, "tools": [] }))),
        chat(
            "openai_chat_parts",
            with(
                fact(),
                json!({ "messages": [{ "role": "developer", "content": "Be brief." }, { "role": "user", "name": "Ada",
                    "content": [{ "type": "text", "text": "Tell me a fact" }, { "type": "text", "text": "about Paris." }] }] }),
            ),
        ),
        chat(
            "openai_error_image",
            with(fact(), json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] })),
        ),
        chat("openai_error_tools", with(fact(), json!({ "tools": [{ "type": "function" }] }))),
        chat("openai_chat_several", with(fact(), json!({ "n": 2 }))),
        chat("openai_error_several", with(fact(), json!({ "n": 0 }))),
        chat("openai_error_regex", with(fact(), json!({ "guided_regex": "[a" }))),
        chat("openai_error_lark", with(fact(), json!({ "structured_outputs": { "grammar": "start: nothing" } }))),
        chat("openai_error_forms", with(fact(), json!({ "guided_regex": "a", "guided_choice": ["b"] }))),
        chat(
            "openai_chat_logprobs",
            with(fact(), json!({ "logprobs": true, "top_logprobs": 1, "max_completion_tokens": 2 })),
        ),
        chat("openai_error_tool_choice", with(fact(), json!({ "tool_choice": "required" }))),
        chat("openai_error_schema", with(fact(), json!({ "response_format": { "type": "json_schema" } }))),
        chat("openai_error_temperature", with(fact(), json!({ "temperature": -1 }))),
        chat("openai_error_wrong_type", with(fact(), json!({ "messages": [{ "role": "king", "content": "x" }] }))),
        chat("openai_error_no_messages", json!({ "model": MODEL })),
        chat("openai_error_unknown_model", with(fact(), json!({ "model": "nothing" }))),
        chat(
            "openai_error_too_long",
            with(fact(), json!({ "messages": [{ "role": "user", "content": "word ".repeat(9000) }] })),
        ),
        case("openai_error_method", "GET", "/v1/chat/completions", None, &Value::Null),
        case("openai_error_no_such_path", "GET", "/v1/nothing", None, &Value::Null),
        case(
            "openai_model",
            "GET",
            if cfg!(feature = "llama") { "/v1/models/smollm2-135m-instruct" } else { "/v1/models/stub" },
            None,
            &Value::Null,
        ),
        embed("openai_embeddings_unable", json!({ "model": MODEL, "input": "a text" })),
        embed("openai_error_embeddings_nothing", json!({ "model": MODEL, "input": [] })),
        case("openai_model_not_utf8", "GET", "/v1/models/%FF", None, &Value::Null),
        case("openai_model_unknown", "GET", "/v1/models/org/nothing", None, &Value::Null),
    ];
    if !cfg!(feature = "llama") {
        let weather = json!([{ "type": "function", "function": { "name": "weather", "description": "Of a place",
            "parameters": { "type": "object", "properties": { "place": { "type": "string" } } } } }]);
        let script =
            |text: &str| json!({ "model": "stub", "messages": [{ "role": "user", "content": text }], "seed": 7 });
        let calls = || {
            with(
                script("Let me look. stub:call weather {\"place\": \"Paris\"} stub:call weather {}"),
                json!({ "tools": weather }),
            )
        };
        let forced = || with(script("{\"place\": \"Rome\"}"), json!({ "tools": weather, "tool_choice": "required" }));
        let custom = json!([weather[0], { "type": "custom", "custom": { "name": "run", "description": "Python", "format": { "type": "text" } } }]);
        let runs = || {
            with(
                script(
                    "stub:call run {\"input\": \"print(\\\"\\u00e9\\\")\\nx = 1\"} stub:call weather {} stub:call run {}",
                ),
                json!({ "tools": custom }),
            )
        };
        let ran = with(
            runs(),
            json!({ "messages": [
                { "role": "assistant", "content": null,
                  "tool_calls": [{ "id": "call_1", "type": "custom", "custom": { "name": "run", "input": "x = 1" } }] },
                { "role": "tool", "tool_call_id": "call_1", "content": "it ran" },
            ] }),
        );
        let grammar = json!({ "type": "grammar", "grammar": { "syntax": "lark", "definition": "start: \"a\"" } });
        let may_run = json!({ "tools": [{ "type": "custom", "custom": { "name": "run", "format": grammar } }] });
        let among = json!([{ "type": "custom", "custom": { "name": "run" } }]);
        let allowed = json!({ "type": "allowed_tools", "allowed_tools": { "mode": "required", "tools": among } });
        let thinks = || script("<think> first this </think> then that");
        let streamed = |body| with(body, json!({ "stream": true }));
        cases.extend([
            embed(
                "openai_embeddings_base64",
                json!({ "model": "stub", "input": ["a b"], "encoding_format": "base64", "user": "me" }),
            ),
            embed("openai_embeddings_tokens", json!({ "model": "stub", "input": [[1, 2], [3]], "dimensions": 2 })),
            chat("openai_tools", calls()),
            chat("openai_tools_stream", streamed(calls())),
            chat("openai_tools_forced", forced()),
            chat("openai_tools_forced_stream", streamed(forced())),
            chat("openai_custom", runs()),
            chat("openai_custom_stream", streamed(runs())),
            chat("openai_custom_result", ran),
            chat(
                "openai_custom_allowed",
                with(script("{\"input\": \"x = 1\"}"), json!({ "tools": custom, "tool_choice": allowed })),
            ),
            chat("openai_error_custom_grammar", with(script("x"), may_run)),
            chat("openai_reasoning", thinks()),
            chat("openai_reasoning_stream", streamed(thinks())),
            chat("openai_logprobs_stream", streamed(with(script("one two"), json!({ "logprobs": true })))),
            chat(
                "openai_failure_before",
                json!({ "model": "stub", "messages": [{ "role": "user", "content": "stub:fail" }] }),
            ),
            chat(
                "openai_failure_midway",
                json!({ "model": "stub", "stream": true, "messages": [{ "role": "user", "content": "stub:break" }] }),
            ),
            case("openai_models", "GET", "/v1/models", None, &Value::Null),
        ]);
    }
    cases
}

/// On the stub the answer is the prompt; a model is held to it.
#[test]
fn a_custom_tools_text_keeps_to_its_grammar() {
    let server = Server::start();
    let ask = |syntax: &str, definition: &str, prompt: &str, stream: bool| {
        let grammar = json!({ "type": "grammar", "grammar": { "syntax": syntax, "definition": definition } });
        let tools =
            json!([{ "type": "custom", "custom": { "name": "say", "description": "Says it.", "format": grammar } }]);
        let choice = json!({ "type": "custom", "custom": { "name": "say" } });
        let messages = json!([{ "role": "user", "content": prompt }]);
        let body = json!({ "messages": messages, "tools": tools, "tool_choice": choice, "stream": stream });
        server.post("/v1/chat/completions", &with(fact(), with(body, json!({ "max_completion_tokens": 50 }))))
    };
    for (syntax, definition, prompt) in
        [("lark", "start: \"a \\\"b\\\"\"", "a \"b\""), ("regex", "a \"b\"", "{\"input\": \"a \\\"b\\\"\"}")]
    {
        let answer = ask(syntax, definition, prompt, false).json();
        let choice = &answer["choices"][0];
        let call = &choice["message"]["tool_calls"][0];
        assert_eq!(
            (&call["type"], &call["custom"]),
            (&json!("custom"), &json!({ "name": "say", "input": "a \"b\"" })),
            "{answer}"
        );
        assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&Value::Null, &json!("tool_calls")));

        let stream = ask(syntax, definition, prompt, true).text();
        let events = stream
            .split_terminator("\n\n")
            .filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok());
        let deltas: Vec<Value> = events.map(|event: Value| event["choices"][0]["delta"].clone()).collect();
        let calls: Vec<&Value> =
            deltas.iter().map(|delta| &delta["tool_calls"][0]).filter(|call| !call.is_null()).collect();
        assert_eq!((&calls[0]["type"], &calls[0]["custom"]["name"]), (&json!("custom"), &json!("say")), "{stream}");
        let input: String = calls.iter().filter_map(|call| call["custom"]["input"].as_str()).collect();
        assert_eq!(input, "a \"b\"", "{stream}");
        assert!(deltas.iter().all(|delta| delta["content"].as_str().unwrap_or_default().is_empty()), "{stream}");
    }
}
