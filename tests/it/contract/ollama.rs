//! Ollama's dialect. `/api/generate` in it has its cases beside those of shimmy's.

use serde_json::{Value, json};

use super::{Case, case, with};
use crate::support::MODEL;

fn post(name: &'static str, path: &'static str, body: Value) -> Case {
    case(name, "POST", path, None, &body)
}

fn chat(name: &'static str, body: Value) -> Case {
    post(name, "/api/chat", body)
}

fn get(name: &'static str, path: &'static str) -> Case {
    case(name, "GET", path, None, &Value::Null)
}

/// Nearly a model's name.
const NEARLY: &str = if cfg!(feature = "llama") { "smolm2:135m-instruct-q4_1" } else { "stub-fats" };

/// A conversation whose answer begins the same on every machine.
fn fact() -> Value {
    json!({ "model": MODEL, "messages": [{ "role": "user", "content": "Tell me a fact about Paris." }],
            "options": { "num_predict": 3, "temperature": 0, "seed": 7 } })
}

fn whole(body: Value) -> Value {
    with(body, json!({ "stream": false }))
}

/// What comes of each is the same for all models, or the real one says it as surely as the stub.
fn for_any_model() -> Vec<Case> {
    let image = json!({ "messages": [{ "role": "user", "content": "x", "images": ["aGk="] }] });
    let generate = |name, more: Value| {
        let body = json!({ "model": MODEL, "prompt": "The capital of France is", "raw": true, "stream": false,
                           "options": { "num_predict": 2, "temperature": 0, "seed": 7 } });
        post(name, "/ollama/api/generate", with(body, more))
    };
    vec![
        chat("ollama_chat", whole(fact())),
        chat("ollama_chat_stream", fact()),
        chat(
            "ollama_chat_ignored",
            with(
                whole(fact()),
                json!({ "truncate": true, "keep_alive": "5m", "format": "", "tools": [],
                        "options": { "num_predict": 3, "temperature": 0, "seed": 7, "num_ctx": 4096, "mirostat": 0 } }),
            ),
        ),
        chat(
            "ollama_chat_logprobs",
            with(
                whole(fact()),
                json!({ "logprobs": true, "top_logprobs": 1, "options": { "num_predict": 2, "temperature": 0 } }),
            ),
        ),
        chat("ollama_chat_loads", json!({ "model": MODEL, "messages": [] })),
        chat("ollama_chat_nearly", json!({ "model": NEARLY, "messages": [] })),
        chat("ollama_chat_image", with(fact(), image)),
        chat("ollama_chat_role", json!({ "model": MODEL, "messages": [{ "role": "king", "content": "x" }] })),
        chat("ollama_chat_format", with(fact(), json!({ "format": "xml" }))),
        chat("ollama_chat_think", with(fact(), json!({ "think": "a lot" }))),
        chat("ollama_chat_keep_alive", with(fact(), json!({ "keep_alive": "soon" }))),
        chat("ollama_chat_no_model", json!({ "messages": [] })),
        chat("ollama_chat_unknown_model", with(fact(), json!({ "model": "nothing" }))),
        generate("ollama_generate_context", json!({ "context": [1, 2, 3], "suffix": "", "system": "" })),
        generate("ollama_generate_suffix", json!({ "suffix": "!" })),
        generate("ollama_generate_template", json!({ "template": "{{ .Prompt }}" })),
        post("ollama_embed_unknown_model", "/api/embed", json!({ "model": "nothing", "input": "x" })),
        post("ollama_embed_no_input", "/api/embed", json!({ "model": MODEL })),
        post("ollama_show_unknown", "/api/show", json!({ "model": "nothing" })),
        post("ollama_show_no_name", "/api/show", json!({})),
        post("ollama_pull", "/api/pull", json!({ "model": format!("{MODEL}:latest") })),
        post("ollama_pull_whole", "/api/pull", json!({ "name": MODEL, "stream": false, "insecure": true })),
        post("ollama_pull_elsewhere", "/api/pull", json!({ "model": "localhost:5000/a/b" })),
        post("ollama_pull_no_name", "/api/pull", json!({ "model": "a/b/c/d", "stream": false })),
        post("ollama_push", "/api/push", json!({ "model": MODEL })),
        case("ollama_blob_no_digest", "HEAD", "/api/blobs/sha256:00", None, &Value::Null),
        post("ollama_blob_post_no_digest", "/api/blobs/sha256:00", Value::Null),
        get("ollama_version", "/api/version"),
        get("ollama_root", "/"),
        case("ollama_root_head", "HEAD", "/", None, &Value::Null),
        get("ollama_root_below", "/ollama/"),
        get("ollama_error_method", "/api/chat"),
        get("ollama_error_method_below", "/ollama/api/chat"),
    ]
}

/// Copies and what is loaded, one after the other.
fn states() -> Vec<Case> {
    vec![
        get("ollama_tags", "/api/tags"),
        post("ollama_show", "/api/show", json!({ "name": MODEL, "verbose": true })),
        get("ollama_ps", "/ollama/api/ps"),
        post("ollama_unloads", "/ollama/api/generate", json!({ "model": MODEL, "keep_alive": 0 })),
        chat("ollama_chat_unloads", json!({ "model": MODEL, "keep_alive": 0 })),
        get("ollama_ps_none", "/api/ps"),
        post("ollama_copy", "/api/copy", json!({ "source": MODEL, "destination": "mine" })),
        post("ollama_copy_unknown", "/api/copy", json!({ "source": "nothing", "destination": "mine" })),
        post(
            "ollama_copy_onto_a_model",
            "/api/copy",
            json!({ "source": MODEL, "destination": format!("{MODEL}:latest") }),
        ),
        get("ollama_tags_copied", "/api/tags"),
        chat("ollama_chat_copied", whole(with(fact(), json!({ "model": "mine:latest" })))),
        case("ollama_delete", "DELETE", "/api/delete", None, &json!({ "model": "mine" })),
        case("ollama_delete_again", "DELETE", "/api/delete", None, &json!({ "model": "mine" })),
        case("ollama_delete_a_model", "DELETE", "/api/delete", None, &json!({ "name": MODEL })),
    ]
}

/// What the stub does on demand.
fn scripted() -> Vec<Case> {
    let says = |script: &str| json!({ "model": "stub", "messages": [{ "role": "user", "content": script }] });
    let thinks = "<think> well then </think> four";
    let tools = json!({ "tools": [{ "type": "function", "function": { "name": "add", "description": "Adds.",
        "parameters": { "type": "object", "properties": { "a": { "type": "integer" } }, "required": ["a"] } } }] });
    let calls = || with(says("Well: stub:call add {\"a\": 1} stub:call add {\"a\": 2}"), tools.clone());
    let round = json!({ "model": "stub", "stream": false, "tools": tools["tools"], "messages": [
        { "role": "user", "content": "add" },
        { "role": "assistant", "content": "", "tool_calls": [
            { "id": "call_stub0", "function": { "index": 0, "name": "add", "arguments": { "a": 1 } } }] },
        { "role": "tool", "content": "the sum is 1", "tool_name": "add" }] });
    vec![
        chat("ollama_chat_thinks", whole(with(says(thinks), json!({ "think": true })))),
        chat("ollama_chat_thinks_stream", with(says(thinks), json!({ "think": "high" }))),
        post(
            "ollama_generate_thinks",
            "/ollama/api/generate",
            json!({ "model": "stub", "prompt": thinks, "stream": false, "options": { "seed": 7 } }),
        ),
        chat("ollama_chat_tools", whole(calls())),
        chat("ollama_chat_tools_stream", calls()),
        chat("ollama_chat_tools_cut", with(whole(calls()), json!({ "options": { "num_predict": 4 } }))),
        chat("ollama_chat_round", round),
        chat("ollama_chat_logprobs_stream", with(says("one two"), json!({ "logprobs": true }))),
        chat("ollama_chat_fails", says("stub:fail")),
        chat("ollama_chat_breaks", says("stub:break")),
        post("ollama_embed", "/api/embed", json!({ "model": "stub", "input": ["one two", "three"], "dimensions": 3 })),
        post("ollama_embed_nothing", "/api/embed", json!({ "model": "stub", "input": "" })),
        post("ollama_embeddings", "/api/embeddings", json!({ "model": "stub", "prompt": "one two" })),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = for_any_model();
    // What there is on a machine, and when it is loaded, differs with a real model.
    if !cfg!(feature = "llama") {
        cases.extend(scripted());
        cases.extend(states());
    }
    cases
}
