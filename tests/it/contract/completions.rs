//! OpenAI's older dialect: texts that are continued.

use serde_json::{Value, json};

use super::{Case, case, with};
use crate::support::{MODEL, Server};

const TEXT: &str = "Paris is the capital of France, and Rome is the capital of";

/// A text whose continuation SmolLM2 knows for certain. The other transcripts do not find it in the cache.
fn italy() -> Value {
    json!({ "model": MODEL, "prompt": TEXT, "max_tokens": 2, "temperature": 0, "seed": 7 })
}

fn complete(name: &'static str, body: Value) -> Case {
    case(name, "POST", "/v1/completions", None, &body)
}

fn with_usage() -> Value {
    json!({ "stream": true, "stream_options": { "include_usage": true } })
}

pub(super) fn cases() -> Vec<Case> {
    let italy = |more: Value| with(italy(), more);
    let mut cases = vec![
        complete("completions", italy(json!({}))),
        complete("completions_stream", italy(json!({ "stream": true }))),
        complete("completions_stream_usage", italy(with_usage())),
        complete("completions_prompts", italy(json!({ "prompt": [TEXT, "One, two,"], "n": 2 }))),
        complete("completions_echo", italy(json!({ "echo": true, "user": "me" }))),
        complete("completions_echo_stream", italy(json!({ "echo": true, "stream": true }))),
        complete("completions_stop", italy(json!({ "stop": [" of", "."], "max_tokens": 9 }))),
        complete("completions_error_no_prompt", json!({ "model": MODEL })),
        complete("completions_error_prompt", italy(json!({ "prompt": [[1], -1] }))),
        complete("completions_error_token", italy(json!({ "prompt": [999_999_999] }))),
        complete("completions_error_suffix_tokens", italy(json!({ "suffix": ".", "prompt": [1] }))),
        complete("completions_error_echo_logprobs", italy(json!({ "echo": true, "logprobs": 0 }))),
        complete("completions_error_logprobs", italy(json!({ "logprobs": 6 }))),
        complete("completions_error_best_of", italy(json!({ "best_of": 3 }))),
        complete("completions_error_unknown_model", italy(json!({ "model": "nothing" }))),
        complete("completions_error_too_long", italy(json!({ "prompt": ["x", "word ".repeat(9000)] }))),
        case("completions_error_method", "GET", "/v1/completions", None, &Value::Null),
    ];
    if cfg!(feature = "llama") {
        // It has no tokens that mark a gap.
        cases.push(complete("completions_error_suffix", italy(json!({ "suffix": "." }))));
    } else {
        let script = |text: &str, more: Value| with(json!({ "model": "stub", "prompt": text, "seed": 7 }), more);
        let marks = "<think> no </think> stub:call f {}";
        cases.extend([
            complete("completions_default_length", script("one two ".repeat(20).trim_end(), json!({}))),
            complete("completions_logprobs", script("one two", json!({ "logprobs": 1 }))),
            complete("completions_logprobs_stream", script("né two", json!({ "logprobs": 0, "stream": true }))),
            complete("completions_marks_are_text", script(marks, json!({}))),
            complete("completions_suffix", script("def f():", json!({ "suffix": " return x", "echo": true }))),
            complete("completions_failure_before", script("stub:fail", json!({ "stream": true }))),
            complete("completions_failure_midway", script("stub:break", json!({ "stream": true }))),
        ]);
    }
    cases
}

/// What an answer's choices say, in their order.
fn texts(answer: &Value) -> Vec<&str> {
    let choices = answer["choices"].as_array().unwrap_or_else(|| panic!("no choices in {answer}"));
    choices.iter().map(|choice| choice["text"].as_str().unwrap()).collect()
}

/// The numbers of tokens are the model's own, so that no transcript can have them.
#[test]
fn a_prompt_of_tokens_is_the_text_that_they_stand_for() {
    let server = Server::start();
    let complete = |more: Value| server.post("/v1/completions", &with(italy(), more)).json();
    let tokenize = json!({ "model": MODEL, "content": TEXT, "add_special": true });
    let tokens = server.post("/tokenize", &tokenize).json()["tokens"].clone();
    let expected = complete(json!({ "prompt": TEXT }));
    assert!(!texts(&expected)[0].is_empty(), "{expected}");
    for (prompt, more) in [
        (json!(tokens), json!({})),
        (json!([tokens]), json!({})),
        (json!(tokens), json!({ "stream": false, "best_of": 1 })),
    ] {
        let answer = complete(with(json!({ "prompt": prompt }), more));
        assert_eq!(texts(&answer), texts(&expected));
        assert_eq!(answer["usage"]["prompt_tokens"], expected["usage"]["prompt_tokens"]);
    }
    let echoed = complete(json!({ "prompt": [tokens, tokens], "echo": true }));
    let whole = format!("{TEXT}{}", texts(&expected)[0]);
    assert_eq!(texts(&echoed), [&whole, &whole]);
    let twice = 2 * expected["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(echoed["usage"]["prompt_tokens"], twice);
}

/// They come in any order, each with its number.
#[test]
fn streamed_choices_are_those_of_the_whole_answer() {
    // Sums depend on what is computed together.
    let server = Server::with(&["--deterministic"]);
    let body = with(italy(), json!({ "prompt": [TEXT, "One, two, three,"], "n": 2, "max_tokens": 6 }));
    let whole = server.post("/v1/completions", &body).json();
    let stream = server.post("/v1/completions", &with(body, with_usage())).text();
    let mut events: Vec<&str> =
        stream.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    assert_eq!(events.pop(), Some("[DONE]"));
    let mut chunks: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let last = chunks.pop().unwrap();
    assert_eq!(last["choices"], json!([]));
    let counted = |usage: &Value| (usage["prompt_tokens"].clone(), usage["completion_tokens"].clone());
    assert_eq!(counted(&last["usage"]), counted(&whole["usage"]));
    let mut joined = vec![String::new(); 4];
    let mut ends = vec![0; 4];
    for chunk in &chunks {
        let [choice] = chunk["choices"].as_array().unwrap().as_slice() else { panic!("{chunk}") };
        let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
        joined[index].push_str(choice["text"].as_str().unwrap());
        ends[index] += usize::from(!choice["finish_reason"].is_null());
    }
    assert_eq!((joined, ends), (texts(&whole).iter().map(|text| (*text).to_owned()).collect(), vec![1; 4]));
}
