//! OpenAI's dialect.

use serde_json::{Value, json};

use super::{Case, case, with};
use crate::support::MODEL;

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
