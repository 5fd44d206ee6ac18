//! Anthropic's dialect.

use serde_json::{Value, json};

use super::{Case, case, with};
use crate::support::MODEL;

/// A conversation whose answer begins the same on every machine.
fn river() -> Value {
    said(json!("Name one river in France."))
}

/// One turn of the user.
fn said(content: Value) -> Value {
    json!({ "model": MODEL, "max_tokens": 3, "temperature": 0, "messages": [{ "role": "user", "content": content }] })
}

fn messages(name: &'static str, body: Value) -> Case {
    case(name, "POST", "/v1/messages", None, &body)
}

fn stream(name: &'static str, body: Value) -> Case {
    messages(name, with(body, json!({ "stream": true })))
}

/// As Anthropic's clients ask.
fn get(name: &'static str, path: &'static str) -> Case {
    Case { headers: vec![("anthropic-version", "2023-06-01")], ..case(name, "GET", path, None, &Value::Null) }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        messages("anthropic_message", river()),
        stream("anthropic_stream", river()),
        messages(
            "anthropic_ignored",
            with(
                said(
                    json!([{ "type": "text", "text": "Name one river in France.", "cache_control": { "type": "ephemeral" } }]),
                ),
                json!({ "metadata": { "user_id": "me" }, "service_tier": "auto", "tools": null }),
            ),
        ),
        messages(
            "anthropic_stop_sequence",
            with(river(), json!({ "max_tokens": 30, "stop_sequences": [" France", " Loire", "."] })),
        ),
        case(
            "anthropic_count_tokens",
            "POST",
            "/v1/messages/count_tokens",
            None,
            &with(river(), json!({ "system": "Be brief." })),
        ),
        messages(
            "anthropic_error_image",
            said(json!([{ "type": "text", "text": "What is it?" }, { "type": "image" }])),
        ),
        messages("anthropic_error_no_max_tokens", with(river(), json!({ "max_tokens": null }))),
        messages(
            "anthropic_error_wrong_type",
            with(river(), json!({ "messages": [{ "role": "king", "content": "x" }] })),
        ),
        messages("anthropic_error_temperature", with(river(), json!({ "temperature": -1 }))),
        messages(
            "anthropic_error_server_tool",
            with(river(), json!({ "tools": [{ "type": "web_search_20250305", "name": "web_search" }] })),
        ),
        messages("anthropic_error_unknown_model", with(river(), json!({ "model": "nothing" }))),
        messages("anthropic_error_too_long", said(json!("word ".repeat(9000)))),
        messages("anthropic_error_too_large", said(json!("x".repeat(33 << 20)))),
        case("anthropic_error_method", "GET", "/v1/messages", None, &Value::Null),
        case("anthropic_error_no_such_path", "POST", "/v1/messages/batches", None, &json!({})),
        Case { body: b"{".to_vec(), ..messages("anthropic_error_not_json", Value::Null) },
        get(
            "anthropic_model",
            if cfg!(feature = "llama") { "/v1/models/smollm2-135m-instruct" } else { "/v1/models/stub" },
        ),
        get("anthropic_model_unknown", "/v1/models/org/nothing"),
    ];
    if !cfg!(feature = "llama") {
        cases.extend(on_the_stub());
    }
    cases
}

/// The stub says what it is told to say, thoughts and calls too.
fn on_the_stub() -> Vec<Case> {
    let all = "<think> Hm, rivers. </think> Let me look. stub:call river {\"country\": \"France\"} stub:call lake {}";
    let tools = json!([
        { "name": "river", "description": "Finds rivers.",
          "input_schema": { "type": "object", "properties": { "country": { "type": "string" } } } },
        { "name": "lake", "input_schema": { "type": "object" } },
    ]);
    let thinks = || {
        with(
            said(json!(all)),
            json!({ "max_tokens": 99, "tools": tools, "thinking": { "type": "enabled", "budget_tokens": 1024 } }),
        )
    };
    let forced = |choice: Value| {
        with(
            said(json!("{\"country\": \"France\"}")),
            json!({ "max_tokens": 99, "tools": tools, "tool_choice": choice }),
        )
    };
    let result = json!({
        "model": "stub", "max_tokens": 99, "tools": tools, "system": "Be brief.",
        "messages": [
            { "role": "user", "content": "Name one river in France." },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "Hm.", "signature": "" },
                { "type": "text", "text": "Let me look." },
                { "type": "tool_use", "id": "call_stub0", "name": "river", "input": { "country": "France" } },
            ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "call_stub0", "content": [{ "type": "text", "text": "Too many" }], "is_error": true },
            ] },
        ],
    });
    vec![
        messages("anthropic_tools", thinks()),
        stream("anthropic_tools_stream", thinks()),
        messages("anthropic_tools_cut_off", with(thinks(), json!({ "max_tokens": 10 }))),
        messages("anthropic_tools_any", forced(json!({ "type": "any" }))),
        stream("anthropic_tools_named_stream", forced(json!({ "type": "tool", "name": "river" }))),
        messages("anthropic_tools_result", result),
        messages("anthropic_failure_before", said(json!("stub:fail"))),
        stream("anthropic_failure_midway", said(json!("stub:break"))),
        get("anthropic_models", "/v1/models"),
    ]
}
