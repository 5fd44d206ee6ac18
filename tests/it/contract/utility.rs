//! Tokens and templates, in the shapes of llama.cpp's server.

use serde_json::{Value, json};

use super::{Case, case};
use crate::support::{MODEL, Server};

pub(super) fn cases() -> Vec<Case> {
    let post = |name, path, body: Value| case(name, "POST", path, None, &body);
    let messages = json!([{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "Who?" }]);
    vec![
        post("utility_apply_template", "/apply-template", json!({ "model": MODEL, "messages": messages })),
        post("utility_tokenize_nothing", "/tokenize", json!({ "model": MODEL, "content": "" })),
        post("utility_error_no_content", "/tokenize", json!({ "model": MODEL })),
        post("utility_error_unknown_model", "/tokenize", json!({ "model": "nothing", "content": "x" })),
        post("utility_error_no_such_token", "/detokenize", json!({ "model": MODEL, "tokens": [999_999_999] })),
        post("utility_error_negative_token", "/detokenize", json!({ "model": MODEL, "tokens": [-1] })),
        post("utility_error_no_messages", "/apply-template", json!({ "model": MODEL })),
    ]
}

/// The numbers are the model's own; what they stand for is the text.
#[test]
fn tokens_stand_for_the_text() {
    let server = Server::start();
    let text = "Tokens of a text,\nand é.";
    let tokens = |more: Value| {
        let body = super::with(json!({ "model": MODEL, "content": text }), more);
        server.post("/tokenize", &body).json()["tokens"].as_array().unwrap().clone()
    };
    let plain = tokens(json!({}));
    assert!(plain.len() > 3 && plain.iter().all(Value::is_u64), "{plain:?}");
    let back = server.post("/detokenize", &json!({ "model": MODEL, "tokens": plain }));
    assert_eq!(back.json(), json!({ "content": text }));

    let pieces = tokens(json!({ "with_pieces": true }));
    assert_eq!(pieces.iter().map(|token| token["id"].clone()).collect::<Vec<_>>(), plain);
    let bytes = pieces.iter().flat_map(|token| match &token["piece"] {
        Value::String(text) => text.clone().into_bytes(),
        bytes => serde_json::from_value(bytes.clone()).unwrap(),
    });
    assert_eq!(String::from_utf8(bytes.collect()).unwrap(), text);
}
