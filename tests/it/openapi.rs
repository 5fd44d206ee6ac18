//! The API's own description, `/openapi.json`, against what the server does.

use std::collections::HashMap;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use crate::contract::{Case, cases};
use crate::support::{Answer, Server};

/// Fields of a path that are operations.
const METHODS: &[&str] = &["get", "post", "delete", "head"];

fn document(server: &Server) -> Value {
    server.get("/openapi.json").json()
}

#[test]
fn what_is_described_is_served() {
    let server = Server::start();
    let document = document(&server);
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an object") {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(METHODS.contains(&method.as_str()), "{method}");
            let described =
                ["200", "101", "404", "501"].iter().any(|status| operation["responses"][status].is_object());
            assert!(described, "{method} {path}: src/server/tables must say what it answers, e.g. `.answers::<T>()`");
            let filled = path.replace("{id}", "x").replace("{name}", "x").replace("{digest}", "x");
            let answer = server.request(&method.to_uppercase(), &filled, &[], "");
            let missing = answer.body.len() < 300 && answer.text().contains("no such path: ");
            assert!(answer.status != 405 && !missing, "{id}: {}", answer.head);
            ids.push(id);
        }
    }
    let all = ids.len();
    assert!(all > 40, "{all}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "each operation has an id of its own");
}

/// The requests of the contract tests, and what comes back, byte by byte the same as their golden transcripts.
#[test]
fn requests_and_answers_are_as_described() {
    let server = Server::start();
    let mut read = Checks::new(document(&server));
    let mut written = Checks::new(document(&server));
    written.document["components"]["schemas"].as_object_mut().expect("schemas").values_mut().for_each(close);
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for case in cases() {
        let headers: Vec<_> =
            case.accept.map(|accept| ("accept", accept)).into_iter().chain(case.headers.clone()).collect();
        let request = crate::support::http_request("localhost", case.method, case.path, &headers, &case.body);
        let answer = Answer::parse(&server.raw(&request));
        let path = template(&read.document, case.path).unwrap_or_default();
        let operation = read.document["paths"][path][case.method.to_lowercase()].clone();
        if operation.is_null() {
            // Whatever can be shown can be asked for without its body.
            let head = case.method == "HEAD" && answer.status == 200;
            assert!(head || matches!(answer.status, 404 | 405), "{}: {}", case.name, answer.head);
            continue;
        }
        checked += 1;
        let asked = request_faults(&mut read, &operation, &case, &answer);
        let told = answer_faults(&mut written, &operation, &answer);
        wrong.extend(asked.into_iter().chain(told).map(|fault| format!("{}: {fault}", case.name)));
    }
    // The stub is asked for more than a real model is.
    assert!(checked > 130, "{checked}");
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}

/// The document, with what was made of its schemas.
struct Checks {
    document: Value,
    made: HashMap<String, Validator>,
}

impl Checks {
    fn new(document: Value) -> Self {
        Self { document, made: HashMap::new() }
    }

    fn faults(&mut self, schema: &Value, value: &Value) -> Vec<String> {
        let components = &self.document["components"];
        let make = || {
            let dialect = "https://json-schema.org/draft/2020-12/schema";
            jsonschema::validator_for(&json!({ "$schema": dialect, "components": components, "allOf": [schema] }))
        };
        let made = self.made.entry(schema.to_string()).or_insert_with(|| make().expect("a schema"));
        made.iter_errors(value).map(|error| format!("{}: {:.300}", error.instance_path(), error.to_string())).collect()
    }
}

/// The document's path that a request's path fits.
fn template(document: &Value, path: &str) -> Option<String> {
    let path = path.split('?').next().unwrap_or_default();
    let fits = |template: &str| {
        let (mut wanted, mut given) = (template.split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some(parameter), Some(_)) if parameter.starts_with('{') => {}
                (Some(wanted), Some(given)) if wanted == given => {}
                _ => return false,
            }
        }
    };
    let paths = document["paths"].as_object().expect("paths");
    paths.keys().find(|template| *template == path).or_else(|| paths.keys().find(|path| fits(path))).cloned()
}

/// What was understood must be described. A field that is null is one that is absent.
fn request_faults(checks: &mut Checks, operation: &Value, case: &Case, answer: &Answer) -> Vec<String> {
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    match serde_json::from_slice::<Map<String, Value>>(&case.body) {
        Ok(mut body) if answer.status < 300 => {
            body.retain(|_, field| !field.is_null());
            checks.faults(schema, &Value::Object(body))
        }
        _ => Vec::new(),
    }
}

/// Status, content type and schema of an answer, or of each part of a stream.
fn answer_faults(checks: &mut Checks, operation: &Value, answer: &Answer) -> Vec<String> {
    let described = &operation["responses"][answer.status.to_string()];
    if !described.is_object() {
        return vec![format!("{} is not described", answer.status)];
    }
    let header = answer.head.lines().find_map(|line| line.strip_prefix("content-type: "));
    let Some(kind) = header.filter(|_| !answer.body.is_empty()) else {
        return if answer.body.is_empty() { Vec::new() } else { vec!["there is no content type".into()] };
    };
    let content = &described["content"][kind.split(';').next().unwrap_or_default()];
    if !content.is_object() {
        return vec![format!("{kind} is not described")];
    }
    let text = answer.text();
    match (kind, content.get("x-itemSchema")) {
        ("application/json", _) => {
            let mut body = answer.json();
            let faults = checks.faults(&content["schema"], &body);
            body["more"] = "than is described".into();
            assert!(!checks.faults(&content["schema"], &body).is_empty(), "whatever comes is as described");
            faults
        }
        ("text/event-stream", Some(item)) => {
            let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
            data.flat_map(|data| checks.faults(item, &parsed(data))).collect()
        }
        ("application/x-ndjson", Some(item)) => {
            text.lines().flat_map(|line| checks.faults(item, &parsed(line))).collect()
        }
        _ => Vec::new(),
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text:?}"))
}

/// Forbids what is not described. Clients may send more, and we may not.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let composed = ["anyOf", "oneOf", "allOf"].iter().any(|word| fields.contains_key(*word));
            if fields.get("properties").is_some_and(Value::is_object) {
                let word = if composed { "unevaluatedProperties" } else { "additionalProperties" };
                fields.insert(word.into(), false.into());
                return close_properties(fields);
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// What is composed with an object's own properties has them too, and is closed with it.
fn close_properties(fields: &mut Map<String, Value>) {
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(close);
    }
}

#[test]
fn where_keys_are_needed_the_document_says_so_and_the_page_opens_without() {
    const KEY: &str = "long-enough-not-to-be-guessed";
    let server = Server::with(&["--api-key", KEY]);
    let page = server.get("/docs");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert_eq!(server.get("/openapi.json").status, 401);
    let document = server.request("GET", "/openapi.json", &[("x-api-key", KEY)], "").json();
    let schemes: Vec<_> = document["components"]["securitySchemes"].as_object().expect("schemes").keys().collect();
    assert_eq!(schemes, ["bearer", "x-api-key"]);
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an object") {
            let open = operation["security"] == json!([]);
            assert_eq!(open, ["/health", "/docs"].contains(&path.as_str()), "{method} {path}");
            assert_eq!(operation["responses"]["401"].is_null(), open, "{method} {path}");
        }
    }
    assert!(self::document(&Server::start())["security"].is_null());
}

/// A bound that is described is taken, and what is beyond it is refused.
#[cfg(not(feature = "llama"))]
#[test]
fn bounds_are_those_of_the_server() {
    let server = Server::start();
    let document = document(&server);
    let chat = || json!({ "model": "stub-fast", "messages": [{ "role": "user", "content": "a" }], "logprobs": true });
    let mut tried = 0;
    for (path, base, within) in [
        ("/api/generate", json!({ "model": "stub-fast", "prompt": "a" }), None),
        ("/v1/chat/completions", chat(), None),
        ("/v1/completions", json!({ "model": "stub-fast", "prompt": "a" }), None),
        ("/v1/responses", json!({ "model": "stub-fast", "input": "a" }), None),
        ("/v1/messages", json!({ "model": "stub-fast", "messages": chat()["messages"], "max_tokens": 1 }), None),
        ("/api/chat", chat(), None),
        ("/api/chat", chat(), Some("options")),
    ] {
        let schema = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        let name = if within.is_some() { "ollama.Options" } else { referred(schema) };
        let properties = document["components"]["schemas"][name]["properties"].as_object().expect("properties");
        for (field, schema) in properties {
            let (Some(min), Some(max)) = (schema["minimum"].as_f64(), schema["maximum"].as_f64()) else { continue };
            let values = [(min, true), (max, true), (min - 1.0, false), (max + 1.0, false)];
            for (value, allowed) in values {
                let whole = schema["type"].to_string().contains("integer");
                let value = if whole { json!(value as i64) } else { json!(value) };
                let mut body = base.clone();
                match within {
                    Some(within) => body[within] = json!({ field: value }),
                    None => body[field] = value.clone(),
                }
                let answer = server.post(path, &body);
                // As many answers as may be asked for can be more than this server's queue holds.
                let too_many = field == "n" && answer.text().contains("raise --queue");
                let taken = answer.status == 200 || too_many;
                assert!(
                    if allowed { taken } else { answer.status == 400 },
                    "{path} {field} {value}: {}",
                    answer.text()
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "{tried}");
}

/// The name of the first type that is taken.
#[cfg(not(feature = "llama"))]
fn referred(schema: &Value) -> &str {
    let reference = schema["$ref"].as_str().or_else(|| schema["anyOf"][0]["$ref"].as_str()).expect("a reference");
    reference.rsplit('/').next().unwrap_or_default()
}
