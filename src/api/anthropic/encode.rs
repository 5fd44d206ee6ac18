//! Anthropic's answers: an event stream of content blocks, and the whole body.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::error_body;
use crate::api::{Encoder, ErrorKind, push_json, random_id};
use crate::engine::{FinishReason, Summary};
use crate::runner::{Answer, Delta, RunnerError, ToolCallDelta};

/// What all parts of one answer have in common.
#[derive(Clone, Debug)]
pub struct Head {
    id: String,
    model: String,
    /// Those of the request. A template has stop strings of its own, which are no business of the client's.
    stop_sequences: Vec<String>,
}

impl Head {
    #[must_use]
    pub fn new(model: String, stop_sequences: Vec<String>) -> Self {
        Self { id: random_id("msg_"), model, stop_sequences }
    }

    fn message(&self, content: &[Block<'_>], stop: Option<Stop<'_>>, usage: Value) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop.map(|stop| stop.reason),
            "stop_sequence": stop.and_then(|stop| stop.sequence),
            "usage": usage,
        })
    }

    fn stop<'a>(&self, summary: &'a Summary, called: bool) -> Stop<'a> {
        let ours = |stop: &&str| self.stop_sequences.iter().any(|sequence| sequence == stop);
        match (summary.reason, summary.stop.as_deref().filter(ours)) {
            // There is no word for an answer that the server cut off; this one says at least that more was to come.
            (FinishReason::Length | FinishReason::Cancelled, _) => Stop { reason: "max_tokens", sequence: None },
            (_, Some(sequence)) => Stop { reason: "stop_sequence", sequence: Some(sequence) },
            (_, None) if called => Stop { reason: "tool_use", sequence: None },
            (_, None) => Stop { reason: "end_turn", sequence: None },
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[schemars(rename = "anthropic.Stop")]
pub struct Stop<'a> {
    #[serde(rename = "stop_reason")]
    reason: &'static str,
    #[serde(rename = "stop_sequence")]
    sequence: Option<&'a str>,
}

/// A block of content; as its beginning, without what is still to come.
#[derive(Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "anthropic.Block")]
pub enum Block<'a> {
    Thinking {
        thinking: &'a str,
        signature: &'static str,
    },
    Text {
        text: &'a str,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        #[schemars(with = "Map<String, Value>")]
        input: Value,
    },
}

/// More of a block.
#[derive(Serialize, JsonSchema)]
#[serde(tag = "type")]
#[schemars(rename = "anthropic.BlockDelta")]
pub enum Piece<'a> {
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "signature_delta")]
    Signature { signature: &'static str },
    #[serde(rename = "input_json_delta")]
    Input { partial_json: &'a str },
}

/// What the block is that was begun last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
    /// With the number of the call.
    Call(usize),
}

/// An event stream of content blocks.
#[derive(Debug)]
pub struct MessagesEncoder {
    head: Head,
    prompt_tokens: usize,
    begun: bool,
    /// Blocks that were begun.
    blocks: usize,
    open: Option<Kind>,
    called: bool,
}

impl MessagesEncoder {
    /// How many of `prompt_tokens` need no computing is known at the end only.
    #[must_use]
    pub fn new(head: Head, prompt_tokens: usize) -> Self {
        Self { head, prompt_tokens, begun: false, blocks: 0, open: None, called: false }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !self.begun {
            self.begun = true;
            let message = self.head.message(&[], None, usage(self.prompt_tokens, 0, 0));
            event("message_start", &json!({ "type": "message_start", "message": message }), out);
        }
    }

    /// Begins a block, unless it is the one that is open.
    fn open(&mut self, kind: Kind, block: &Block<'_>, out: &mut Vec<u8>) {
        if self.open == Some(kind) {
            return;
        }
        self.close(out);
        let start = json!({ "type": "content_block_start", "index": self.blocks, "content_block": block });
        event("content_block_start", &start, out);
        if self.blocks == 0 {
            event("ping", &json!({ "type": "ping" }), out);
        }
        self.blocks += 1;
        self.open = Some(kind);
    }

    fn piece(&self, delta: Piece<'_>, out: &mut Vec<u8>) {
        let more = More { kind: "content_block_delta", index: self.blocks.saturating_sub(1), delta };
        event("content_block_delta", &more, out);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let Some(kind) = self.open.take() else { return };
        if kind == Kind::Thinking {
            self.piece(Piece::Signature { signature: "" }, out);
        }
        let stop = json!({ "type": "content_block_stop", "index": self.blocks.saturating_sub(1) });
        event("content_block_stop", &stop, out);
    }

    fn call(&mut self, call: &ToolCallDelta, out: &mut Vec<u8>) {
        self.called = true;
        let (id, name) = (call.id.as_deref().unwrap_or_default(), call.name.as_deref().unwrap_or_default());
        self.open(Kind::Call(call.index), &Block::ToolUse { id, name, input: json!({}) }, out);
        if !call.arguments.is_empty() {
            self.piece(Piece::Input { partial_json: &call.arguments }, out);
        }
    }

    fn end(&mut self, summary: &Summary, out: &mut Vec<u8>) {
        self.close(out);
        let stop = self.head.stop(summary, self.called);
        let end = json!({ "type": "message_delta", "delta": stop, "usage": final_usage(summary) });
        event("message_delta", &end, out);
        event("message_stop", &json!({ "type": "message_stop" }), out);
    }
}

impl Encoder for MessagesEncoder {
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    fn delta(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        self.begin(out);
        match delta {
            Delta::Content(text) if !text.is_empty() => {
                self.open(Kind::Text, &Block::Text { text: "" }, out);
                self.piece(Piece::Text { text }, out);
            }
            Delta::Reasoning(thinking) if !thinking.is_empty() => {
                self.open(Kind::Thinking, &Block::Thinking { thinking: "", signature: "" }, out);
                self.piece(Piece::Thinking { thinking }, out);
            }
            Delta::ToolCall(call) => self.call(call, out),
            Delta::Content(_) | Delta::Reasoning(_) | Delta::Logprobs(_) => {}
            Delta::Done(summary) => self.end(summary, out),
        }
    }

    fn ping(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        event("ping", &json!({ "type": "ping" }), out);
    }

    fn error(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        event("error", &error_body(ErrorKind::ModelFailed, &error.to_string(), None), out);
    }
}

#[derive(Serialize)]
struct More<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    index: usize,
    delta: Piece<'a>,
}

fn event(name: &str, data: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    push_json(data, out);
    out.extend_from_slice(b"\n\n");
}

/// The body of an answer that is not streamed.
#[must_use]
pub fn message_body(head: &Head, answer: &Answer, summary: &Summary) -> Value {
    let mut content = Vec::new();
    if !answer.reasoning.is_empty() {
        content.push(Block::Thinking { thinking: &answer.reasoning, signature: "" });
    }
    if !answer.text.is_empty() {
        content.push(Block::Text { text: &answer.text });
    }
    for call in &answer.tool_calls {
        content.push(Block::ToolUse { id: &call.id, name: &call.name, input: call.input() });
    }
    let stop = head.stop(summary, !answer.tool_calls.is_empty());
    head.message(&content, Some(stop), final_usage(summary))
}

/// In Anthropic's count, what came from the cache is no part of `input_tokens`.
fn usage(computed: usize, cached: usize, output: usize) -> Value {
    json!({
        "input_tokens": computed,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": output,
    })
}

fn final_usage(summary: &Summary) -> Value {
    let used = &summary.usage;
    let computed = used.prompt_tokens.saturating_sub(used.cached_tokens);
    usage(computed as usize, used.cached_tokens as usize, used.completion_tokens as usize)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Head, message_body};
    use crate::chat::ToolCall;
    use crate::engine::{FinishReason, Summary, Timings, Usage};
    use crate::runner::Answer;

    fn summary(reason: FinishReason, stop: Option<&str>) -> Summary {
        let usage = Usage { prompt_tokens: 10, completion_tokens: 3, cached_tokens: 4, reasoning_tokens: 0 };
        Summary { reason, stop: stop.map(str::to_owned), seed: 1, usage, timings: Timings::default() }
    }

    #[test]
    fn a_stop_string_is_told_where_the_client_gave_it() {
        let head = Head::new("m".into(), vec!["END".into()]);
        let text = Answer { text: "a".into(), ..Answer::default() };
        let call = ToolCall { id: "1".into(), name: "f".into(), arguments: "{}".into() };
        let called = Answer { tool_calls: vec![call], ..Answer::default() };
        for (answer, reason, stop, stop_reason, stop_sequence) in [
            (&text, FinishReason::Eos, None, "end_turn", None),
            (&text, FinishReason::Stop, Some("END"), "stop_sequence", Some("END")),
            (&text, FinishReason::Stop, Some("<|im_end|>"), "end_turn", None),
            (&text, FinishReason::Length, None, "max_tokens", None),
            (&called, FinishReason::Eos, None, "tool_use", None),
            (&called, FinishReason::Stop, Some("<|im_end|>"), "tool_use", None),
            (&called, FinishReason::Length, None, "max_tokens", None),
        ] {
            let body = message_body(&head, answer, &summary(reason, stop));
            assert_eq!((&body["stop_reason"], &body["stop_sequence"]), (&json!(stop_reason), &json!(stop_sequence)));
            assert_eq!(
                (&body["usage"]["input_tokens"], &body["usage"]["cache_read_input_tokens"]),
                (&json!(6), &json!(4))
            );
        }
    }

    #[test]
    fn arguments_that_are_no_object_do_not_pass_for_one() {
        let head = Head::new("m".into(), Vec::new());
        for (arguments, input) in [
            ("", json!({})),
            (" {\"a\": null}", json!({ "a": null })),
            ("{\"a\": 1", json!({ "INVALID_JSON": "{\"a\": 1" })),
            ("[1]", json!({ "INVALID_JSON": "[1]" })),
        ] {
            let call = ToolCall { id: "1".into(), name: "f".into(), arguments: arguments.into() };
            let answer = Answer { tool_calls: vec![call], ..Answer::default() };
            let body = message_body(&head, &answer, &summary(FinishReason::Length, None));
            assert_eq!(body["content"], json!([{ "type": "tool_use", "id": "1", "name": "f", "input": input }]));
        }
    }
}
