//! Every shape, status code and sentinel of shimmy's wire format, as byte transcripts in `tests/golden/`.
//!
//! The same requests go to the stub and to the real model; `UPDATE_GOLDEN=1` writes what came back. Only what
//! differs from run to run or machine to machine (times, dates, ports, sizes in memory) is masked.

mod anthropic;
mod completions;
mod ollama;
mod openai;
mod responses;
mod utility;

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Answer, MODEL, Server, http_request};

pub struct Case {
    pub name: &'static str,
    pub method: &'static str,
    pub path: &'static str,
    pub accept: Option<&'static str>,
    /// Others than `accept`.
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: Vec<u8>,
}

fn case(
    name: &'static str,
    method: &'static str,
    path: &'static str,
    accept: Option<&'static str>,
    body: &Value,
) -> Case {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    Case { name, method, path, accept, headers: Vec::new(), body }
}

/// A prompt whose continuation both the stub and SmolLM2 know for certain.
fn paris() -> Value {
    json!({ "model": MODEL, "prompt": "The capital of France is", "raw": true, "max_tokens": 2, "temperature": 0, "seed": 7 })
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

pub fn cases() -> Vec<Case> {
    let sse = Some("text/event-stream");
    let ndjson = Some("application/x-ndjson");
    let json_accept = Some("application/json");
    let generate = |name, accept, body: Value| case(name, "POST", "/api/generate", accept, &body);
    let ollama = |name, body: Value| case(name, "POST", "/ollama/api/generate", None, &body);
    let mut cases = openai::cases();
    cases.extend([
        generate("generate_whole", None, paris()),
        generate("generate_whole_any", Some("*/*"), paris()),
        generate("generate_sse", None, with(paris(), json!({ "stream": true }))),
        generate("generate_sse_accept_alone_does_not_stream", sse, paris()),
        generate("generate_sse_accept", sse, with(paris(), json!({ "stream": true }))),
        generate(
            "generate_sse_usage",
            None,
            with(paris(), json!({ "stream": true, "stream_options": { "include_usage": true } })),
        ),
        generate("error_priority", None, with(paris(), json!({ "priority": "urgent" }))),
        generate("generate_stop_string", None, with(paris(), json!({ "stop": [" of", "."], "max_tokens": 9 }))),
        generate("ollama_by_accept_streams", ndjson, paris()),
        generate("ollama_by_accept_json", json_accept, with(paris(), json!({ "stream": false }))),
        generate(
            "ollama_by_field",
            sse,
            json!({ "model": MODEL, "prompt": "The capital of France is", "raw": true,
                    "options": { "num_predict": 2, "temperature": 0, "seed": 7 } }),
        ),
        ollama("ollama_path", with(paris(), json!({ "stream": false }))),
        ollama("ollama_loads", json!({ "model": MODEL })),
        ollama("ollama_not_served", with(paris(), json!({ "template": "{{ .Prompt }}" }))),
        ollama("ollama_unknown_model", json!({ "model": "nothing", "prompt": "x" })),
        generate(
            "generate_ignored",
            None,
            with(paris(), json!({ "n_ctx": 5, "stream_options": { "x": 1 }, "mirostat": null })),
        ),
        generate("error_no_prompt", None, json!({ "model": MODEL })),
        generate("error_lark", None, with(paris(), json!({ "lark": "start: \"a\" (" }))),
        generate("error_forms", None, with(paris(), json!({ "regex": "a", "grammar": "root ::= \"a\"" }))),
        generate("error_suffix", None, with(paris(), json!({ "suffix": "x" }))),
        generate("error_both_prompts", None, with(paris(), json!({ "messages": [] }))),
        generate("error_no_model", None, json!({ "prompt": "x" })),
        generate("error_wrong_type", None, with(paris(), json!({ "max_tokens": "many" }))),
        generate("error_negative", None, with(paris(), json!({ "max_tokens": -1 }))),
        generate("error_temperature", None, with(paris(), json!({ "temperature": -0.5 }))),
        generate("error_top_p", None, with(paris(), json!({ "top_p": 1.5 }))),
        generate("error_role", None, json!({ "model": MODEL, "messages": [{ "role": "king", "content": "x" }] })),
        generate("error_empty_messages", None, json!({ "model": MODEL, "messages": [] })),
        generate("error_unknown_model", None, json!({ "model": "nothing", "prompt": "x" })),
        generate("error_unknown_model_stream", None, json!({ "model": "nothing", "prompt": "x", "stream": true })),
        generate("error_empty_prompt", None, json!({ "model": "stub", "prompt": "", "raw": true })),
        generate("error_prompt_too_long", None, json!({ "model": MODEL, "prompt": "word ".repeat(9000), "raw": true })),
        generate("error_not_an_object", None, json!([1])),
        case("error_get_generate", "GET", "/api/generate", None, &Value::Null),
        case("error_no_such_path", "GET", "/api/nothing", None, &Value::Null),
        case(
            "error_too_large",
            "POST",
            "/api/generate",
            None,
            &json!({ "model": MODEL, "prompt": "x".repeat(33 << 20) }),
        ),
        case("health", "GET", "/health", None, &Value::Null),
        case("models_unknown", "POST", "/api/models/nothing/load", None, &Value::Null),
    ]);
    let bytes =
        |name, body: &[u8]| Case { body: body.to_vec(), ..case(name, "POST", "/api/generate", None, &Value::Null) };
    cases.push(bytes("error_not_json", b"{\"model\": \"x\","));
    cases.push(bytes("error_not_utf8", b"{\"model\": \"\xff\xfe\", \"prompt\": \"x\"}"));
    cases.push(bytes(
        "error_number_too_large",
        format!("{{\"model\":\"{MODEL}\",\"prompt\":\"x\",\"temperature\":1e999}}").as_bytes(),
    ));
    cases
        .push(bytes("error_nan", format!("{{\"model\":\"{MODEL}\",\"prompt\":\"x\",\"temperature\":NaN}}").as_bytes()));
    if cfg!(feature = "llama") {
        cases.retain(|case| case.name != "error_empty_prompt");
    } else {
        let stub = |script: &str, stream: bool| json!({ "model": "stub", "prompt": script, "stream": stream });
        cases.push(generate("generate_newlines_sse", None, stub("a\nb  c\n", true)));
        cases.push(generate(
            "generate_messages",
            None,
            json!({ "model": "stub", "system": "be brief", "seed": 7,
            "messages": [{ "role": "user", "content": "first" }, { "role": "assistant", "content": "second" },
                         { "role": "user", "content": "third turn" }] }),
        ));
        cases.push(generate("failure_before_sse", None, stub("stub:fail", true)));
        cases.push(generate("failure_whole", None, stub("stub:fail", false)));
        cases.push(generate("failure_midway_sse", None, stub("stub:break", true)));
        cases.push(generate("failure_midway_ndjson", ndjson, stub("stub:break", true)));
        cases.push(case("models_list", "GET", "/api/models", None, &Value::Null));
        cases.push(case("models_load", "POST", "/api/models/stub/load", None, &Value::Null));
        cases.push(case("models_unload", "POST", "/api/models/stub/unload", None, &Value::Null));
    }
    cases.extend(anthropic::cases());
    cases.extend(completions::cases());
    cases.extend(responses::cases());
    cases.extend(utility::cases());
    // What is in the cache, and what is loaded, shows in the answers of the others.
    cases.extend(ollama::cases());
    cases
}

#[test]
fn transcripts_are_as_recorded() {
    let server = Server::start();
    let mut differing = Vec::new();
    for case in cases() {
        let headers: Vec<_> =
            case.accept.map(|accept| ("accept", accept)).into_iter().chain(case.headers.clone()).collect();
        let answer =
            Answer::parse(&server.raw(&http_request(&server.address, case.method, case.path, &headers, &case.body)));
        let transcript = transcript(&case, &answer);
        let file = golden_file(case.name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &transcript).unwrap();
        } else if std::fs::read_to_string(&file).unwrap_or_default() != transcript {
            differing.push(format!("{}:\n{transcript}", file.display()));
        }
    }
    assert!(differing.is_empty(), "{} transcripts differ:\n{}", differing.len(), differing.join("\n\n"));
}

/// A transcript that no case writes any more would never be compared.
#[test]
fn every_transcript_belongs_to_a_case() {
    let names: Vec<_> = cases().iter().map(|case| format!("{}.http", case.name)).collect();
    for entry in std::fs::read_dir(golden_file("x").parent().unwrap()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(!file.ends_with(".http") || names.contains(&file), "{file} belongs to no case");
    }
}

fn golden_file(name: &str) -> PathBuf {
    let dir = if cfg!(feature = "llama") { "real" } else { "stub" };
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(dir).join(format!("{name}.http"))
}

fn transcript(case: &Case, answer: &Answer) -> String {
    let body = String::from_utf8_lossy(&case.body);
    let request = if body.len() > 400 { format!("({} bytes, {:.60}…)", body.len(), body) } else { body.into_owned() };
    let accept = case.accept.map(|accept| format!("accept: {accept}\n")).unwrap_or_default();
    let others: String = case.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let mut head: Vec<&str> = answer.head.split("\r\n").collect();
    head[1..].sort_unstable();
    let head: Vec<&str> =
        head.into_iter().filter(|line| !line.starts_with("date:") && !line.starts_with("content-length:")).collect();
    format!(
        "{} {}\n{accept}{others}{request}\n\n=====\n{}\n\n{}",
        case.method,
        case.path,
        mask_ids(head.join("\n")),
        mask(&answer.text())
    )
}

/// Replaces the values of fields that differ from run to run.
fn mask(text: &str) -> String {
    const MASKED: &[&str] = &[
        "created_at",
        "completed_at",
        "modified_at",
        "expires_at",
        "in_use",
        "digest",
        "size",
        "modelfile",
        "created",
        "system_fingerprint",
        "total_duration",
        "load_duration",
        "prompt_eval_duration",
        "eval_duration",
        "queue_ms",
        "prefill_ms",
        "decode_ms",
        "ttft_ms",
        "tokens_per_second",
        "prompt_ms",
        "prompt_per_token_ms",
        "prompt_per_second",
        "predicted_ms",
        "predicted_per_token_ms",
        "predicted_per_second",
        "uptime_seconds",
        "load_ms",
        "logprob",
        "weights_bytes",
        "context_bytes",
        "compute_bytes",
    ];
    let mut masked = text.to_owned();
    for field in MASKED {
        let key = format!("\"{field}\":");
        let mut done = String::new();
        while let Some(at) = masked.find(&key) {
            let value = at + key.len();
            let end = masked[value..].find([',', '}']).map_or(masked.len(), |end| value + end);
            done.push_str(&masked[..value]);
            done.push('*');
            masked.drain(..end);
        }
        masked.insert_str(0, &done);
    }
    mask_ids(masked)
}

/// Ids are drawn at random. The first of a kind becomes `kind_*`, another one `kind_*2`: what refers to an item still does.
fn mask_ids(mut text: String) -> String {
    const LETTERS: usize = 24;
    for prefix in ["chatcmpl-", "cmpl-", "msg_", "req_", "resp_", "rs_", "fc_", "fco_", "ctc_"] {
        let mut ids: Vec<String> = Vec::new();
        for (at, _) in text.match_indices(prefix) {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let id: String = text[at..].chars().take(prefix.len() + LETTERS).collect();
            let drawn = id[prefix.len()..].chars().filter(char::is_ascii_alphanumeric).count() == LETTERS;
            if drawn && !text[..at].ends_with(word) && !ids.contains(&id) {
                ids.push(id);
            }
        }
        for (number, id) in ids.iter().enumerate() {
            let other = if number == 0 { String::new() } else { (number + 1).to_string() };
            text = text.replace(id, &format!("{prefix}*{other}"));
        }
    }
    text
}
