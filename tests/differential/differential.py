#!/usr/bin/env python3
"""Sends the same requests to shimmy and to another server that speaks OpenAI's dialect, and lists what differs in status,
shape and greedy text. What is accepted, with its reason, is in accepted.txt; anything else is an error.

    LLAMA_SERVER=/path/to/llama-server tests/differential/differential.py SHIMMY MODEL.gguf
"""
import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

ACCEPTED = pathlib.Path(__file__).with_name("accepted.txt")
ASK = {"messages": [{"role": "user", "content": "What is 2+2?"}], "max_tokens": 16, "temperature": 0, "seed": 1}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}}}]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["n"],
          "additionalProperties": False}
CHAT = "/v1/chat/completions"
REQUESTS = {
    "chat": (CHAT, ASK),
    "chat stop": (CHAT, {**ASK, "stop": ["4"]}),
    "chat parts": (CHAT, {**ASK, "messages": [{"role": "user", "content": [{"type": "text", "text": "What is 2+2?"}]}]}),
    "chat system": (CHAT, {**ASK, "messages": [{"role": "system", "content": "Be brief."}, *ASK["messages"]]}),
    "chat length": (CHAT, {**ASK, "max_tokens": 1}),
    "chat stream": (CHAT, {**ASK, "stream": True}),
    "chat stream usage": (CHAT, {**ASK, "stream": True, "stream_options": {"include_usage": True}}),
    "chat logprobs": (CHAT, {**ASK, "max_tokens": 2, "logprobs": True, "top_logprobs": 2}),
    "chat object": (CHAT, {**ASK, "max_tokens": 64, "response_format": {"type": "json_object"}}),
    "chat schema": (CHAT, {**ASK, "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}}),
    "chat tools required": (CHAT, {**ASK, "max_tokens": 64, "tools": TOOLS, "tool_choice": "required"}),
    "chat tools none": (CHAT, {**ASK, "tools": TOOLS, "tool_choice": "none"}),
    "chat no messages": (CHAT, {"max_tokens": 1}),
    "chat wrong role": (CHAT, {"messages": [{"role": "king", "content": "x"}]}),
    "chat wrong type": (CHAT, {**ASK, "temperature": "hot"}),
    "chat wrong schema": (CHAT, {**ASK, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}}}),
    "chat too long": (CHAT, {**ASK, "messages": [{"role": "user", "content": "word " * 9000}]}),
    "completion": ("/v1/completions", {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}),
    "completion stream": ("/v1/completions", {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0, "stream": True}),
    "embeddings": ("/v1/embeddings", {"input": "a text"}),
    "models": ("/v1/models", None),
    "no such path": ("/v1/nothing", None),
    "tokenize": ("/tokenize", {"content": "Hello world"}),
    "tokenize pieces": ("/tokenize", {"content": "Hello world", "with_pieces": True}),
    "detokenize": ("/detokenize", {"tokens": [19556, 905]}),
    "apply template": ("/apply-template", {"messages": ASK["messages"]}),
}
# Their values are of one server and one moment.
MOMENTARY = {"id", "created", "system_fingerprint", "timings", "model", "__verbose"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def running(command, port):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).status == 200:
                    break
            if process.poll() is not None:
                sys.exit(f"differential: error: {command[0]} ended with {process.returncode} before it served")
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


def ask(port, path, body):
    data = None if body is None else json.dumps({"model": "default", **body}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    if text.startswith("data:"):
        events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        chunks = [json.loads(event) for event in events if event != "[DONE]"]
        return status, {"stream": merged(chunks), "ends": "[DONE]" if events[-1] == "[DONE]" else "without"}
    return status, json.loads(text) if text[:1] in "{[" else text


def merged(chunks):
    """All chunks of a stream as one: where their text is cut is the server's to choose."""
    whole = {"fields": sorted({field for chunk in chunks for field in chunk}), "text": "", "finish_reason": None}
    for chunk in chunks:
        for choice in chunk.get("choices", []):
            delta = choice.get("delta", {})
            whole["text"] += delta.get("content") or choice.get("text") or ""
            whole["finish_reason"] = choice.get("finish_reason") or whole["finish_reason"]
        if chunk.get("usage"):
            whole["usage"] = {field: chunk["usage"].get(field) for field in ("prompt_tokens", "completion_tokens", "total_tokens")}
    return whole


def differences(ours, theirs, path=""):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for field in sorted(ours.keys() | theirs.keys()):
            where = f"{path}.{field}" if path else field
            if field not in theirs:
                yield f"{where}: only shimmy has it"
            elif field not in ours:
                yield f"{where}: only the other has it"
            elif field not in MOMENTARY:
                yield from differences(ours[field], theirs[field], where)
    elif isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            yield f"{path}: {len(ours)} entries here, {len(theirs)} there"
        for index, (mine, other) in enumerate(zip(ours, theirs)):
            yield from differences(mine, other, f"{path}[{index}]")
    elif isinstance(ours, float) and isinstance(theirs, (int, float)):
        # Probabilities are sums of floating-point numbers.
        if abs(ours - theirs) > 0.05:
            yield f"{path}: {ours} here, {theirs} there"
    elif ours != theirs:
        yield f"{path}: {json.dumps(ours)[:120]} here, {json.dumps(theirs)[:120]} there"


def accepted():
    """Lines of `request | difference`, both regular expressions, with the reason behind `#`."""
    for number, line in enumerate(ACCEPTED.read_text().splitlines(), 1):
        rule, _, reason = line.partition(" # ")
        if rule.strip() and not line.startswith("#"):
            if not reason.strip():
                sys.exit(f"differential: error: {ACCEPTED.name}:{number}: a difference is accepted for a reason")
            request, difference = rule.strip().split(" | ", 1)
            yield re.compile(request), re.compile(difference), line


def main(shimmy, model):
    if "LLAMA_SERVER" not in os.environ:
        sys.exit("differential: error: LLAMA_SERVER must name the other server, llama.cpp's llama-server")
    port, other = free_port(), free_port()
    command = [shimmy, "--base-gguf", model, "--ctx-size", "8192", "serve", "--bind", f"127.0.0.1:{port}", "--model", "default"]
    theirs = [os.environ["LLAMA_SERVER"], "-m", model, "-c", "8192", "-np", "1", "--host", "127.0.0.1", "--port", str(other)]
    rules, used, unexpected, known = list(accepted()), set(), 0, 0
    with running(command, port), running(theirs, other):
        for name, (path, body) in REQUESTS.items():
            (status, mine), (their_status, their) = ask(port, path, body), ask(other, path, body)
            found = [] if status == their_status else [f"status: {status} here, {their_status} there"]
            found += list(differences(mine, their))
            for difference in found:
                matching = [line for request, rule, line in rules if request.fullmatch(name) and rule.match(difference)]
                used.update(matching)
                known += bool(matching)
                if not matching:
                    unexpected += 1
                    print(f"{name}: {difference}")
    for _, _, line in rules:
        if line not in used:
            print(f"{ACCEPTED.name}: does not occur any more: {line}")
    print(f"{len(REQUESTS)} requests, {known} accepted differences, {unexpected} others")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
