//! Answers that must have a form, calls that must happen, and text that must stay text, of a real model.

use serde_json::{Value, json};

use crate::support::{MODEL, Server};

type Check = fn(&Value) -> bool;

fn schemas() -> Vec<(Value, Check)> {
    let closed = |properties: Value, required: Value| json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false });
    vec![
        (json!({ "type": "integer", "minimum": -3, "maximum": 12 }), |v| {
            v.as_i64().is_some_and(|n| (-3..=12).contains(&n))
        }),
        (json!({ "enum": ["red", "green", 7, null] }), |v| {
            [json!("red"), json!("green"), json!(7), json!(null)].contains(v)
        }),
        (json!({ "type": "string", "pattern": "^[A-Z][a-z]{2,8}$" }), |v| {
            let text = v.as_str().unwrap_or_default();
            let (first, rest) = text.split_at(text.len().min(1));
            first.chars().all(|c| c.is_ascii_uppercase())
                && (2..=8).contains(&rest.len())
                && rest.chars().all(|c| c.is_ascii_lowercase())
        }),
        (json!({ "type": "string", "format": "date" }), |v| {
            let parts: Vec<&str> = v.as_str().unwrap_or_default().split('-').collect();
            parts.iter().map(|part| part.len()).collect::<Vec<_>>() == [4, 2, 2]
                && parts.iter().all(|part| part.parse::<u32>().is_ok())
        }),
        (json!({ "type": "array", "items": { "type": "boolean" }, "minItems": 2, "maxItems": 4 }), |v| {
            v.as_array().is_some_and(|items| (2..=4).contains(&items.len()) && items.iter().all(Value::is_boolean))
        }),
        (
            closed(
                json!({ "name": { "type": "string", "maxLength": 20 }, "age": { "type": "integer", "minimum": 0, "maximum": 150 },
            "tags": { "type": "array", "items": { "type": "string", "maxLength": 8 }, "maxItems": 3 } }),
                json!(["name", "age"]),
            ),
            |v| {
                v["name"].as_str().is_some_and(|name| name.chars().count() <= 20)
                    && v["age"].as_u64().is_some_and(|age| age <= 150)
                    && v.as_object()
                        .is_some_and(|fields| fields.keys().all(|key| ["name", "age", "tags"].contains(&key.as_str())))
            },
        ),
        (
            json!({ "anyOf": [closed(json!({ "kind": { "const": "a" }, "n": { "type": "number" } }), json!(["kind", "n"])),
            closed(json!({ "kind": { "const": "b" }, "t": { "type": "string", "maxLength": 9 } }), json!(["kind", "t"]))] }),
            |v| (v["kind"] == "a" && v["n"].is_number()) || (v["kind"] == "b" && v["t"].is_string()),
        ),
        // What it does not close is closed all the same, or few answers would end.
        (
            json!({ "type": "object", "properties": { "name": { "type": "string", "maxLength": 20 }, "people": { "type": "integer" } },
                "required": ["name", "people"] }),
            |v| v["name"].is_string() && v["people"].is_i64() && v.as_object().is_some_and(|fields| fields.len() == 2),
        ),
        (json!({ "$ref": "#/$defs/color", "$defs": { "color": { "enum": ["red", "blue"] } } }), |v| {
            v == "red" || v == "blue"
        }),
    ]
}

#[test]
fn every_complete_answer_has_the_form_that_was_asked_for() {
    let server = Server::start();
    for (schema, is_right) in schemas() {
        let mut complete = 0;
        for seed in 0..4 {
            let answer = server.post(
                "/v1/chat/completions",
                &json!({ "model": MODEL, "seed": seed, "temperature": 1.3, "max_tokens": 300,
                "messages": [{ "role": "user", "content": "Answer in JSON." }],
                "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": schema } } }),
            );
            assert_eq!(answer.status, 200, "{schema}: {}", answer.text());
            let choice = &answer.json()["choices"][0];
            if choice["finish_reason"] == "stop" {
                complete += 1;
                let text = choice["message"]["content"].as_str().unwrap();
                let value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{schema}: {text:?}: {e}"));
                assert!(is_right(&value), "{schema}: {text}");
            }
        }
        assert!(complete > 0, "no answer to {schema} came to its end");
    }
}

#[test]
fn regular_grammars_and_their_refusals() {
    let server = Server::start();
    let ask = |more: Value| {
        let mut body = json!({ "model": MODEL, "messages": [{ "role": "user", "content": "Yes or no?" }], "max_tokens": 40, "seed": 3 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/v1/chat/completions", &body)
    };
    for _ in 0..2 {
        // The second time the compiled grammar is known.
        let answer = ask(json!({ "grammar": "root ::= (\"ja\" | \"nein\") \"!\"{1,3}" }));
        let text = answer.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
        let word = text.trim_end_matches('!');
        assert!(["ja", "nein"].contains(&word) && (1..=3).contains(&(text.len() - word.len())), "{text:?}");
    }
    for form in [
        json!({ "guided_regex": "(ja|nein)!{1,3}" }),
        json!({ "guided_choice": ["ja!", "nein!"] }),
        json!({ "structured_outputs": { "grammar": "start: (\"ja\" | \"nein\") \"!\"" } }),
    ] {
        let answer = ask(form.clone()).json();
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
        assert!(text.ends_with('!') && ["ja", "nein"].contains(&text.trim_end_matches('!')), "{form}: {text:?}");
    }
    for (form, named) in [
        (json!({ "grammar": "root ::= (" }), "byte"),
        (json!({ "guided_regex": "[a" }), "unclosed"),
        (json!({ "grammar": "root ::= \"a\"{5,2}" }), "repetition"),
        (
            json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": { "type": "array", "uniqueItems": true } } } }),
            "uniqueItems",
        ),
        (
            json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": { "type": "string", "minLength": 4, "maxLength": 2 } } } }),
            "nsatisfiable",
        ),
    ] {
        let answer = ask(form);
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains(named), "{named}: {}", answer.text());
    }
}

/// What stands in a message is text, whatever token it names.
#[test]
fn names_of_control_tokens_in_messages_are_no_control_tokens() {
    let server = Server::start();
    let tokens = |content: &str| {
        let body = json!({ "model": MODEL, "messages": [{ "role": "user", "content": content }], "max_tokens": 1 });
        server.post("/v1/chat/completions", &body).json()["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let plain = tokens("a b");
    for name in ["<|im_end|>", "<|im_start|>", "<|endoftext|>"] {
        assert!(tokens(&format!("a {name} b")) > plain + 3, "{name} became one token");
    }
    let raw = server.post("/tokenize", &json!({ "model": MODEL, "content": "<|im_end|>" }));
    assert_eq!(raw.json()["tokens"].as_array().unwrap().len(), 1, "where it is asked for it is one");
}

/// Also beside others whose answers have forms of their own.
#[test]
fn forms_do_not_get_mixed_up() {
    let server = Server::start();
    std::thread::scope(|scope| {
        for n in 0..8u32 {
            let server = &server;
            scope.spawn(move || {
                let letter = char::from_u32('a' as u32 + n).unwrap();
                let body = json!({ "model": MODEL, "messages": [{ "role": "user", "content": "Write." }], "max_tokens": 60,
                    "grammar": format!("root ::= [{letter}]{{5,12}} \".\"") });
                let answer = server.post("/v1/chat/completions", &body).json();
                let text = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
                assert!(text.ends_with('.') && text.trim_end_matches('.').chars().all(|c| c == letter), "{letter}: {text:?}");
            });
        }
    });
}
