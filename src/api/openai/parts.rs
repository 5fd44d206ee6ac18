//! What the answers of several of OpenAI's paths consist of.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::custom::Customs;
use super::error_body;
use crate::api::{ErrorKind, push_event, random_id};
use crate::engine::{FinishReason, TokenLogprob};
use crate::runner::RunnerError;

/// What all parts of one answer have in common.
#[derive(Clone, Debug)]
pub struct Head {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) fingerprint: String,
    pub(super) custom: Customs,
}

impl Head {
    /// Of a chat's answer. `fingerprint` stands for the program that computes.
    #[must_use]
    pub fn chat(model: String, fingerprint: String) -> Self {
        Self { id: random_id("chatcmpl-"), created: now(), model, fingerprint, custom: Customs::default() }
    }

    /// Of an answer that may call these.
    #[must_use]
    pub fn with(self, custom: Customs) -> Self {
        Self { custom, ..self }
    }

    /// Of the continuations of a text.
    #[must_use]
    pub fn completion(model: String, fingerprint: String) -> Self {
        Self { id: random_id("cmpl-"), ..Self::chat(model, fingerprint) }
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

/// The last event of a stream that broke.
pub(super) fn push_error(error: &RunnerError, out: &mut Vec<u8>) {
    push_event(&error_body(ErrorKind::ModelFailed, &error.to_string()), out);
}

/// One token's probability, as chats and responses tell it.
pub(super) fn logprob(token: &TokenLogprob) -> Value {
    let one = |bytes: &[u8], logprob: f32| json!({ "token": String::from_utf8_lossy(bytes), "logprob": finite(logprob), "bytes": bytes });
    let mut told = one(&token.bytes, token.logprob);
    told["top_logprobs"] = token.top.iter().map(|(bytes, logprob)| one(bytes, *logprob)).collect();
    told
}

/// JSON has no infinity; this is what OpenAI tells of what is all but impossible.
pub(super) fn finite(logprob: f32) -> f32 {
    logprob.max(-9999.0)
}

/// OpenAI has no word for an answer that the server cut off; `length` says at least that more was to come.
pub(super) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Eos | FinishReason::Stop => "stop",
        FinishReason::Length | FinishReason::Cancelled => "length",
    }
}

/// Of all answers to a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    cached_tokens: u32,
    reasoning_tokens: u32,
}

impl Usage {
    /// Takes in one answer. A prompt counts once, with the first answer to it.
    pub fn add(&mut self, more: &crate::engine::Usage, first: bool) {
        if first {
            self.prompt_tokens += more.prompt_tokens;
            self.cached_tokens += more.cached_tokens;
        }
        self.completion_tokens += more.completion_tokens;
        self.reasoning_tokens += more.reasoning_tokens;
    }

    pub fn told(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": { "cached_tokens": self.cached_tokens },
            "completion_tokens_details": { "reasoning_tokens": self.reasoning_tokens },
        })
    }
}
