//! OpenAI's answers: chunks of an event stream, and the whole body.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Value, json};

use super::error_body;
use crate::api::{Encoder, ErrorKind, push_json};
use crate::engine::{FinishReason, Summary};
use crate::runner::{Delta, RunnerError};

/// What all parts of one answer have in common.
#[derive(Clone, Debug)]
pub struct Head {
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
}

impl Head {
    /// `fingerprint` stands for the program that computes.
    #[must_use]
    pub fn new(model: String, fingerprint: String) -> Self {
        let id: String = std::iter::repeat_with(fastrand::alphanumeric).take(29).collect();
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        Self { id: format!("chatcmpl-{id}"), created, model, fingerprint }
    }
}

/// An event stream of chunks.
#[derive(Debug)]
pub struct ChatEncoder {
    head: Head,
    /// Tell the usage in a chunk of its own before the end.
    include_usage: bool,
    begun: bool,
}

impl ChatEncoder {
    #[must_use]
    pub fn new(head: Head, include_usage: bool) -> Self {
        Self { head, include_usage, begun: false }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !self.begun {
            self.begun = true;
            self.chunk(Piece { role: Some("assistant"), content: Some("") }, None, out);
        }
    }

    fn chunk(&self, delta: Piece<'_>, finish_reason: Option<&'static str>, out: &mut Vec<u8>) {
        self.event(&[Choice { index: 0, delta, logprobs: (), finish_reason }], None, out);
    }

    fn event(&self, choices: &[Choice<'_>], usage: Option<Value>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: ");
        let chunk = Chunk {
            id: &self.head.id,
            object: "chat.completion.chunk",
            created: self.head.created,
            model: &self.head.model,
            system_fingerprint: &self.head.fingerprint,
            choices,
            // Where it is asked for, all chunks have the field.
            usage: self.include_usage.then_some(usage),
        };
        push_json(&chunk, out);
        out.extend_from_slice(b"\n\n");
    }
}

impl Encoder for ChatEncoder {
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    fn delta(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        self.begin(out);
        match delta {
            Delta::Content(text) => self.chunk(Piece { role: None, content: Some(text) }, None, out),
            Delta::Reasoning(_) | Delta::ToolCall(_) | Delta::Logprobs(_) => {}
            Delta::Done(summary) => {
                self.chunk(Piece { role: None, content: None }, Some(finish_reason(summary.reason)), out);
                if self.include_usage {
                    self.event(&[], Some(usage(summary)), out);
                }
                out.extend_from_slice(b"data: [DONE]\n\n");
            }
        }
    }

    fn error(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: ");
        push_json(&error_body(ErrorKind::ModelFailed, &error.to_string()), out);
        out.extend_from_slice(b"\n\n");
    }
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Value>>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    delta: Piece<'a>,
    /// Always null; clients look for it.
    logprobs: (),
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Piece<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

/// The body of an answer that is not streamed. `timings` is ours.
#[must_use]
pub fn chat_body(head: &Head, text: &str, summary: &Summary) -> Value {
    json!({
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "system_fingerprint": head.fingerprint,
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": text, "refusal": null },
            "logprobs": null,
            "finish_reason": finish_reason(summary.reason),
        }],
        "usage": usage(summary),
        "timings": summary.timings,
    })
}

/// OpenAI has no word for an answer that the server cut off; `length` says at least that more was to come.
fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Eos | FinishReason::Stop => "stop",
        FinishReason::Length | FinishReason::Cancelled => "length",
    }
}

fn usage(summary: &Summary) -> Value {
    let usage = &summary.usage;
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": { "cached_tokens": usage.cached_tokens },
    })
}
