//! Ollama's answers: NDJSON lines, and the whole body that shimmy's own dialect shares.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{Encoder, push_json};
use crate::engine::{FinishReason, Summary, Timings, TokenLogprob, Usage};
use crate::runner::{Answer, Delta, RunnerError};

/// One JSON object a line, of `/api/generate`.
#[derive(Debug)]
pub struct NdjsonEncoder {
    model: String,
    load_ms: f64,
    /// Of the tokens of the text that comes next.
    logprobs: Vec<TokenLogprob>,
}

impl NdjsonEncoder {
    #[must_use]
    pub fn new(model: String, load_ms: f64) -> Self {
        Self { model, load_ms, logprobs: Vec::new() }
    }
}

impl Encoder for NdjsonEncoder {
    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn delta(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        let said = match delta {
            Delta::Content(text) => Said { response: text, thinking: "" },
            Delta::Reasoning(text) => Said { response: "", thinking: text },
            Delta::Done(_) => Said { response: "", thinking: "" },
            Delta::Logprobs(more) => return self.logprobs.extend_from_slice(more),
            // Without tools there are none.
            Delta::ToolCall(_) => return,
        };
        let mut line = Line::new(&self.model, said, &self.logprobs);
        if let Delta::Done(summary) = delta {
            line = line.ended(summary, self.load_ms);
            line.ours = Some(Ours::new(summary));
        }
        push_json(&line, out);
        out.push(b'\n');
        self.logprobs.clear();
    }

    /// There are no comments in NDJSON.
    fn ping(&mut self, out: &mut Vec<u8>) {
        push_json(&Line::new(&self.model, Said { response: "", thinking: "" }, &[]), out);
        out.push(b'\n');
    }

    fn error(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        error_line(error, out);
    }
}

/// How a stream ends that fails on its way.
pub(super) fn error_line(error: &RunnerError, out: &mut Vec<u8>) {
    push_json(&json!({ "error": error.to_string() }), out);
    out.push(b'\n');
}

/// What `/api/generate` says.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ollama.Generate")]
pub struct Said<'a> {
    response: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
}

/// One object of an answer. `T` holds the fields that are not the same everywhere.
#[derive(Serialize, JsonSchema)]
#[schemars(
    rename = "{T}Answer",
    description = "An answer, or a piece of one; the last piece has what follows on `done`. Durations are in nanoseconds."
)]
pub struct Line<'a, T> {
    model: &'a str,
    created_at: String,
    #[serde(flatten)]
    said: T,
    done: bool,
    #[serde(flatten)]
    end: Option<End>,
    #[serde(flatten)]
    ours: Option<Ours<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<Logprob<'a>>,
}

impl<'a, T> Line<'a, T> {
    pub fn new(model: &'a str, said: T, logprobs: &'a [TokenLogprob]) -> Self {
        let logprobs = logprobs.iter().map(Logprob::new).collect();
        Self { model, created_at: now(), said, done: false, end: None, ours: None, logprobs }
    }

    /// Makes it the last one.
    pub fn ended(mut self, summary: &Summary, load_ms: f64) -> Self {
        self.done = true;
        self.end = Some(End::new(summary, load_ms));
        self
    }
}

/// What closes an answer. Durations are in nanoseconds.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ollama.End")]
struct End {
    done_reason: &'static str,
    total_duration: i64,
    load_duration: i64,
    prompt_eval_count: u32,
    prompt_eval_duration: i64,
    eval_count: u32,
    eval_duration: i64,
}

impl End {
    fn new(summary: &Summary, load_ms: f64) -> Self {
        let t = &summary.timings;
        Self {
            done_reason: done_reason(summary.reason),
            total_duration: ns(load_ms + t.queue_ms + t.prefill_ms + t.decode_ms),
            load_duration: ns(load_ms),
            prompt_eval_count: summary.usage.prompt_tokens,
            prompt_eval_duration: ns(t.prefill_ms),
            eval_count: summary.usage.completion_tokens,
            eval_duration: ns(t.decode_ms),
        }
    }
}

/// What shimmy's own dialect tells beside Ollama's fields.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "shimmy.End")]
struct Ours<'a> {
    seed: u32,
    usage: &'a Usage,
    timings: &'a Timings,
}

impl<'a> Ours<'a> {
    fn new(summary: &'a Summary) -> Self {
        Self { seed: summary.seed, usage: &summary.usage, timings: &summary.timings }
    }
}

/// A token's probability.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ollama.Logprob")]
struct Logprob<'a> {
    #[serde(flatten)]
    token: OneLogprob<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top_logprobs: Vec<OneLogprob<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ollama.TokenLogprob")]
struct OneLogprob<'a> {
    /// Bytes that are no whole characters are in `bytes` alone.
    token: Cow<'a, str>,
    logprob: f32,
    bytes: &'a [u8],
}

impl<'a> Logprob<'a> {
    fn new(token: &'a TokenLogprob) -> Self {
        let one = |bytes: &'a [u8], logprob| OneLogprob { token: String::from_utf8_lossy(bytes), logprob, bytes };
        Self {
            token: one(&token.bytes, token.logprob),
            top_logprobs: token.top.iter().map(|(bytes, logprob)| one(bytes, *logprob)).collect(),
        }
    }
}

/// Ollama has `stop` for both ways in which the model comes to its own end.
#[must_use]
pub fn done_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Eos | FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Cancelled => "cancelled",
    }
}

/// The body of an answer that is not streamed: Ollama's fields with its nanoseconds, and shimmy's `usage`,
/// `timings` and `seed` beside them.
#[must_use]
pub fn whole_body<'a>(model: &'a str, answer: &'a Answer, summary: &'a Summary, load_ms: f64) -> impl Serialize {
    let said = Said { response: &answer.text, thinking: &answer.reasoning };
    let mut line = Line::new(model, said, &answer.logprobs).ended(summary, load_ms);
    line.ours = Some(Ours::new(summary));
    line
}

/// What a request without a prompt did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loading {
    Loaded,
    Unloaded,
}

impl Loading {
    pub(super) fn done_reason(self) -> &'static str {
        match self {
            Self::Loaded => "load",
            Self::Unloaded => "unload",
        }
    }
}

/// The answer to an empty prompt.
#[must_use]
pub fn load_body(model: &str, done: Loading) -> Value {
    json!({ "model": model, "created_at": now(), "response": "", "done": true, "done_reason": done.done_reason() })
}

/// UTC, as Ollama writes it.
pub(super) fn now() -> String {
    jiff::Timestamp::now().to_string()
}

#[allow(clippy::cast_possible_truncation)] // Durations of one request fit 2^63 ns by far.
pub(super) fn ns(ms: f64) -> i64 {
    (ms * 1e6) as i64
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::NdjsonEncoder;
    use crate::api::Encoder;
    use crate::engine::TokenLogprob;
    use crate::runner::Delta;

    #[test]
    fn thoughts_and_probabilities_go_with_their_text() {
        let mut encoder = NdjsonEncoder::new("m".into(), 0.0);
        let mut out = Vec::new();
        let half = TokenLogprob { bytes: vec![0xe2, 0x82], logprob: -0.25, top: vec![(b"a".to_vec(), -0.5)] };
        for delta in [Delta::Reasoning("hm".into()), Delta::Logprobs(vec![half]), Delta::Content("€".into())] {
            encoder.delta(&delta, &mut out);
        }
        let text = String::from_utf8(out).expect("text");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["response"], &lines[0]["thinking"]), (&json!(""), &json!("hm")));
        assert!(lines[0].get("logprobs").is_none() && lines[1].get("thinking").is_none());
        let expected = json!([{ "token": "\u{fffd}", "logprob": -0.25, "bytes": [0xe2, 0x82],
                                "top_logprobs": [{ "token": "a", "logprob": -0.5, "bytes": [97] }] }]);
        assert_eq!(lines[1]["logprobs"], expected);
    }
}
