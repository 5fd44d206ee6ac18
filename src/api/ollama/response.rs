//! Ollama's answers: NDJSON lines, and the whole body that shimmy's own dialect shares.

use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{Encoder, push_json};
use crate::engine::{FinishReason, Summary};
use crate::runner::{Delta, RunnerError};

/// One JSON object a line.
#[derive(Debug)]
pub struct NdjsonEncoder {
    model: String,
    load_ms: f64,
}

impl NdjsonEncoder {
    #[must_use]
    pub fn new(model: String, load_ms: f64) -> Self {
        Self { model, load_ms }
    }
}

impl Encoder for NdjsonEncoder {
    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn delta(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        match delta {
            Delta::Content(text) => push_json(&Part::new(&self.model, text), out),
            Delta::Done(summary) => push_json(&whole_body(&self.model, "", summary, self.load_ms), out),
            // Its answer is all text.
            Delta::Reasoning(_) | Delta::ToolCall(_) | Delta::Logprobs(_) => return,
        }
        out.push(b'\n');
    }

    fn error(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        push_json(&json!({ "error": error.to_string() }), out);
        out.push(b'\n');
    }
}

/// One token's line.
#[derive(Serialize)]
struct Part<'a> {
    model: &'a str,
    created_at: String,
    response: &'a str,
    done: bool,
}

impl<'a> Part<'a> {
    fn new(model: &'a str, response: &'a str) -> Self {
        Self { model, created_at: now(), response, done: false }
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
pub fn whole_body(model: &str, text: &str, summary: &Summary, load_ms: f64) -> Value {
    let t = &summary.timings;
    json!({
        "model": model,
        "created_at": now(),
        "response": text,
        "done": true,
        "done_reason": done_reason(summary.reason),
        "total_duration": ns(load_ms + t.queue_ms + t.prefill_ms + t.decode_ms),
        "load_duration": ns(load_ms),
        "prompt_eval_count": summary.usage.prompt_tokens,
        "prompt_eval_duration": ns(t.prefill_ms),
        "eval_count": summary.usage.completion_tokens,
        "eval_duration": ns(t.decode_ms),
        "seed": summary.seed,
        "usage": summary.usage,
        "timings": t,
    })
}

/// The answer to an empty prompt.
#[must_use]
pub fn load_body(model: &str) -> Value {
    json!({ "model": model, "created_at": now(), "response": "", "done": true, "done_reason": "load" })
}

/// UTC, as Ollama writes it.
fn now() -> String {
    jiff::Timestamp::now().to_string()
}

#[allow(clippy::cast_possible_truncation)] // Durations of one request fit 2^63 ns by far.
fn ns(ms: f64) -> i64 {
    (ms * 1e6) as i64
}
