//! The answers of `POST /v1/completions`: chunks of an event stream, and the whole body.

use serde_json::{Map, Value, json};

use super::parts::{Head, Usage, finish_reason, finite, push_error};
use crate::api::{Encoder, push_event};
use crate::engine::{Summary, TokenLogprob};
use crate::runner::{Answer, Delta, RunnerError};

/// An event stream of chunks.
#[derive(Debug)]
pub struct CompletionEncoder {
    head: Head,
    /// Tell the usage in a chunk of its own before the end.
    include_usage: bool,
    /// Answers to one prompt stand side by side.
    choices_a_prompt: usize,
    choices: Vec<Progress>,
    /// Which of them comes next.
    current: usize,
    usage: Usage,
}

/// How far one answer is.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// The prompt's text, until it is told.
    echo: Option<String>,
    done: bool,
    logprobs: Logprobs,
}

impl CompletionEncoder {
    /// `echoes` has what stands in front of each answer.
    #[must_use]
    pub fn new(head: Head, include_usage: bool, echoes: Vec<Option<String>>, choices_a_prompt: usize) -> Self {
        let choices = echoes.into_iter().map(|echo| Progress { echo, ..Progress::default() }).collect();
        Self { head, include_usage, choices_a_prompt, choices, current: 0, usage: Usage::default() }
    }

    fn chunk(&mut self, text: &str, reason: Option<&'static str>, out: &mut Vec<u8>) {
        let index = self.current;
        if let Some(echo) = self.choices[index].echo.take() {
            self.event(json!([choice(index, &echo, Value::Null, None)]), None, out);
        }
        let logprobs = self.choices[index].logprobs.take();
        self.event(json!([choice(index, text, logprobs, reason)]), None, out);
    }

    fn event(&self, choices: Value, usage: Option<Value>, out: &mut Vec<u8>) {
        let mut chunk = body(&self.head, choices);
        if self.include_usage {
            // Where it is asked for, all chunks have the field.
            chunk["usage"] = usage.unwrap_or_default();
        }
        push_event(&chunk, out);
    }
}

impl Encoder for CompletionEncoder {
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    fn choose(&mut self, choice: usize) {
        self.current = choice;
    }

    fn delta(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        match delta {
            Delta::Content(text) => self.chunk(text, None, out),
            Delta::Logprobs(tokens) => self.choices[self.current].logprobs.extend(tokens),
            // A text that is continued has no such parts.
            Delta::Reasoning(_) | Delta::ToolCall(_) => {}
            Delta::Done(summary) => {
                self.chunk("", Some(finish_reason(summary.reason)), out);
                self.choices[self.current].done = true;
                self.usage.add(&summary.usage, self.current.is_multiple_of(self.choices_a_prompt));
                if self.choices.iter().all(|choice| choice.done) {
                    if self.include_usage {
                        self.event(json!([]), Some(self.usage.told()), out);
                    }
                    out.extend_from_slice(b"data: [DONE]\n\n");
                }
            }
        }
    }

    fn error(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        push_error(error, out);
    }
}

/// The body of answers that are not streamed; for `echoes`, see [`CompletionEncoder::new`]. `timings` is ours, of the first answer.
#[must_use]
pub fn completion_body(
    head: &Head,
    answers: &[(Answer, Summary)],
    echoes: &[Option<String>],
    choices_a_prompt: usize,
) -> Value {
    let mut usage = Usage::default();
    let mut choices = Vec::with_capacity(answers.len());
    for (index, ((answer, summary), echo)) in answers.iter().zip(echoes).enumerate() {
        usage.add(&summary.usage, index.is_multiple_of(choices_a_prompt));
        let mut logprobs = Logprobs::default();
        logprobs.extend(&answer.logprobs);
        let text = format!("{}{}", echo.as_deref().unwrap_or_default(), answer.text);
        choices.push(choice(index, &text, logprobs.take(), Some(finish_reason(summary.reason))));
    }
    let mut body = body(head, Value::Array(choices));
    body["usage"] = usage.told();
    body["timings"] = json!(answers.first().map(|(_, summary)| summary.timings));
    body
}

fn body(head: &Head, choices: Value) -> Value {
    json!({
        "id": head.id,
        "object": "text_completion",
        "created": head.created,
        "model": head.model,
        "system_fingerprint": head.fingerprint,
        "choices": choices,
    })
}

fn choice(index: usize, text: &str, logprobs: Value, reason: Option<&'static str>) -> Value {
    json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": reason })
}

/// Probabilities in the older shape: lists side by side.
#[derive(Clone, Debug, Default)]
struct Logprobs {
    tokens: Vec<TokenLogprob>,
    /// Characters that began before these tokens.
    before: usize,
}

impl Logprobs {
    fn extend(&mut self, more: &[TokenLogprob]) {
        self.tokens.extend_from_slice(more);
    }

    /// What has come since the last time; null where that is nothing.
    fn take(&mut self) -> Value {
        let tokens = std::mem::take(&mut self.tokens);
        if tokens.is_empty() {
            return Value::Null;
        }
        let offset = |token: &TokenLogprob| {
            let at = self.before - usize::from(continues(&token.bytes)).min(self.before);
            self.before += token.bytes.iter().filter(|byte| !is_continuation(**byte)).count();
            at
        };
        let offsets: Vec<usize> = tokens.iter().map(offset).collect();
        json!({
            "tokens": tokens.iter().map(|token| name(&token.bytes)).collect::<Vec<_>>(),
            "token_logprobs": tokens.iter().map(|token| finite(token.logprob)).collect::<Vec<_>>(),
            "top_logprobs": tokens.iter().map(top).collect::<Option<Vec<_>>>(),
            "text_offset": offsets,
        })
    }
}

/// The most likely tokens, and the one that was taken. `None` where none were asked for.
fn top(token: &TokenLogprob) -> Option<Map<String, Value>> {
    let taken = (&token.bytes, token.logprob);
    let all = token.top.iter().map(|(bytes, logprob)| (bytes, *logprob)).chain([taken]);
    (!token.top.is_empty()).then(|| all.map(|(bytes, logprob)| (name(bytes), json!(finite(logprob)))).collect())
}

/// Tokens are keys here, so those that are no text by themselves must be told apart.
fn name(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |name, byte| format!("{name}\\x{byte:02x}")),
    }
}

/// Whether a token begins inside a character.
fn continues(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|byte| is_continuation(*byte))
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Logprobs;
    use crate::engine::TokenLogprob;

    #[test]
    fn offsets_count_characters_and_odd_tokens_have_names_of_their_own() {
        let token = |bytes: &[u8], top: &[(&[u8], f32)]| TokenLogprob {
            bytes: bytes.to_vec(),
            logprob: -0.5,
            top: top.iter().map(|(bytes, logprob)| (bytes.to_vec(), *logprob)).collect(),
        };
        let mut logprobs = Logprobs::default();
        assert!(logprobs.take().is_null());
        logprobs.extend(&[
            token("né".as_bytes(), &[(b"x", -0.25), (b"y", f32::NEG_INFINITY)]),
            token(&[0xc3], &[(&[0xc3], -0.5)]),
        ]);
        let first = logprobs.take();
        assert_eq!(first["tokens"], json!(["né", "bytes:\\xc3"]));
        assert_eq!(first["text_offset"], json!([0, 2]));
        assert_eq!(first["top_logprobs"], json!([{ "x": -0.25, "y": -9999.0, "né": -0.5 }, { "bytes:\\xc3": -0.5 }]));
        // The rest of that character, and what follows it.
        logprobs.extend(&[token(&[0xa9], &[]), token(b"!", &[])]);
        let rest = logprobs.take();
        assert_eq!((&rest["text_offset"], &rest["top_logprobs"]), (&json!([2, 3]), &json!(null)));
    }
}
