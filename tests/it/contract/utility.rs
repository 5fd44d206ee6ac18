//! Tokens and templates, in the shapes of llama.cpp's server.

use serde_json::{Value, json};

use super::{Case, case};
use crate::support::{MODEL, Server};

pub(super) fn cases() -> Vec<Case> {
    let post = |name, path, body: Value| case(name, "POST", path, None, &body);
    let messages = json!([{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "Who?" }]);
    let gap = |model: &str, more: Value| {
        let body = json!({ "model": model, "input_prefix": "def f():\n", "input_suffix": "\n return x", "seed": 7 });
        super::with(body, more)
    };
    let rank = |model: &str, more: Value| {
        let documents = json!(["Rome is large", { "text": "Paris is the capital" }, "capital letters"]);
        super::with(json!({ "model": model, "query": "the capital", "documents": documents }), more)
    };
    let mut cases = vec![
        post("utility_apply_template", "/apply-template", json!({ "model": MODEL, "messages": messages })),
        post("utility_tokenize_nothing", "/tokenize", json!({ "model": MODEL, "content": "", "with_scores": true })),
        post("utility_error_no_content", "/tokenize", json!({ "model": MODEL })),
        post("utility_error_unknown_model", "/tokenize", json!({ "model": "nothing", "content": "x" })),
        post("utility_error_no_such_token", "/detokenize", json!({ "model": MODEL, "tokens": [999_999_999] })),
        post("utility_error_negative_token", "/detokenize", json!({ "model": MODEL, "tokens": [-1] })),
        post("utility_error_no_messages", "/apply-template", json!({ "model": MODEL })),
        post("infill_error_no_suffix", "/infill", json!({ "model": MODEL, "input_prefix": "x" })),
        post("infill_error_unknown_model", "/infill", gap("nothing", json!({}))),
        post("rerank_error_none", "/v1/rerank", rank(MODEL, json!({ "documents": [] }))),
    ];
    if cfg!(feature = "llama") {
        cases.push(post("infill_error_no_marks", "/infill", gap(MODEL, json!({}))));
        cases.push(post("rerank_error_no_rank", "/v1/rerank", rank(MODEL, json!({}))));
    } else {
        let extra = json!([{ "filename": "a.py", "text": "x = 1" }]);
        let all =
            json!({ "input_extra": extra, "prompt": " x =", "n_predict": 12, "cache_prompt": true, "stream": true });
        cases.extend([
            post("infill", "/infill", gap("stub", json!({ "stop": "<|fim_middle|>" }))),
            post("rerank", "/v1/rerank", rank("stub", json!({ "user": "me" }))),
            post("rerank_best", "/v1/rerank", rank("stub", json!({ "top_n": 1, "return_documents": true }))),
            post("infill_stream", "/infill", gap("stub", all)),
            post("infill_shimmy", "/api/generate", json!({ "model": "stub", "prompt": "a", "suffix": "b", "seed": 7 })),
            post(
                "infill_ollama",
                "/ollama/api/generate",
                json!({ "model": "stub", "prompt": "def f():", "suffix": " return x", "stream": false,
                         "options": { "seed": 7 } }),
            ),
        ]);
    }
    cases
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

/// The other stub has no tokens that mark a gap, and does not rank.
#[cfg(not(feature = "llama"))]
#[test]
fn a_model_that_cannot_says_so_in_every_dialect() {
    let server = Server::start();
    let ask = |path: &str, body: Value| {
        let answer = server.post(path, &super::with(json!({ "model": "stub-fast", "prompt": "a" }), body));
        assert_eq!(answer.status, 400, "{path}");
        answer.json()["error"].clone()
    };
    let suffix = json!({ "suffix": "b" });
    let plain = ask("/infill", json!({ "input_prefix": "a", "input_suffix": "b" }));
    assert!(plain.as_str().unwrap().starts_with("this model does not support insert: "), "{plain}");
    assert_eq!(ask("/ollama/api/generate", suffix.clone()), plain);
    let ranked = ask("/v1/rerank", json!({ "query": "a", "documents": ["b"] }));
    assert!(ranked["message"].as_str().unwrap().starts_with("this model was not made to rank"), "{ranked}");
    let error = ask("/v1/completions", suffix);
    assert_eq!((&error["message"], &error["type"]), (&plain, &json!("invalid_request_error")));
}
