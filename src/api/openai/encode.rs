//! OpenAI's answers: chunks of an event stream, and the whole body.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::custom::{InputReader, begin};
use super::parts::{Head, Usage, logprob, push_error};
use super::shapes;
use crate::api::{Encoder, push_event};
use crate::chat::ToolCall;
use crate::engine::{FinishReason, Summary};
use crate::runner::{Answer, Delta, RunnerError, ToolCallDelta};

/// An event stream of chunks.
#[derive(Debug)]
pub struct ChatEncoder {
    head: Head,
    /// Tell the usage in a chunk of its own before the end.
    include_usage: bool,
    choices: Vec<Progress>,
    /// Which of them comes next.
    current: usize,
    usage: Usage,
}

/// How far one answer is.
#[derive(Clone, Debug, Default)]
struct Progress {
    begun: bool,
    calls: bool,
    /// Of the call that has begun, where it is one of a custom tool.
    input: Option<InputReader>,
    done: bool,
    /// The number of that call.
    index: usize,
    /// Of tokens whose text is yet to come.
    logprobs: Vec<Value>,
}

impl ChatEncoder {
    /// For as many answers at the same time as there are choices.
    #[must_use]
    pub fn new(head: Head, include_usage: bool, choices: usize) -> Self {
        let choices = vec![Progress::default(); choices];
        Self { head, include_usage, choices, current: 0, usage: Usage::default() }
    }

    fn chunk(&mut self, delta: Piece<'_>, finish_reason: Option<&'static str>, out: &mut Vec<u8>) {
        let progress = &mut self.choices[self.current];
        if !progress.begun {
            progress.begun = true;
            let content = if delta.content.is_some() || finish_reason.is_some() { Some(Some("")) } else { Some(None) };
            let first = Piece { role: Some("assistant"), content, ..Piece::default() };
            self.choice(first, None, None, out);
        }
        let logprobs = std::mem::take(&mut self.choices[self.current].logprobs);
        let logprobs = (!logprobs.is_empty()).then(|| json!({ "content": logprobs, "refusal": null }));
        self.choice(delta, logprobs, finish_reason, out);
    }

    fn call(&mut self, call: &ToolCallDelta, out: &mut Vec<u8>) {
        let mut call = Cow::Borrowed(call);
        if let Some(name) = &call.name {
            self.end_call(out);
            self.choices[self.current].input = self.head.custom.reader(name);
        }
        let progress = &mut self.choices[self.current];
        progress.calls = true;
        if let Some(reader) = &mut progress.input {
            let text = reader.more(&call.arguments);
            if text.is_empty() && call.name.is_none() {
                return;
            }
            progress.index = call.index;
            call.to_mut().arguments = text;
        }
        let piece = CallPiece::of(&call, progress.input.is_some());
        self.chunk(Piece { tool_calls: Some([piece]), ..Piece::default() }, None, out);
    }

    /// Tells what was held back of a custom tool's call.
    fn end_call(&mut self, out: &mut Vec<u8>) {
        let progress = &mut self.choices[self.current];
        let Some(arguments) = progress.input.take().map(|mut reader| reader.end()).filter(|text| !text.is_empty())
        else {
            return;
        };
        let call = ToolCallDelta { index: progress.index, arguments, ..ToolCallDelta::default() };
        self.chunk(Piece { tool_calls: Some([CallPiece::of(&call, true)]), ..Piece::default() }, None, out);
    }

    fn choice(
        &self,
        delta: Piece<'_>,
        logprobs: Option<Value>,
        finish_reason: Option<&'static str>,
        out: &mut Vec<u8>,
    ) {
        self.event(&[Choice { index: self.current, delta, logprobs, finish_reason }], None, out);
    }

    fn event(&self, choices: &[Choice<'_>], usage: Option<Value>, out: &mut Vec<u8>) {
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
        push_event(&chunk, out);
    }
}

impl Encoder for ChatEncoder {
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    fn choose(&mut self, choice: usize) {
        self.current = choice;
    }

    fn delta(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        if let Some(name) = self.head.custom.raw() {
            let begun = self.choices[self.current].calls;
            let call = match delta {
                Delta::Content(text) if begun => {
                    Some(ToolCallDelta { arguments: text.to_string(), ..ToolCallDelta::default() })
                }
                Delta::Content(text) => Some(begin(name, text)),
                Delta::Done(_) if !begun => Some(begin(name, "")),
                _ => None,
            };
            if let Some(call) = call {
                self.call(&call, out);
            }
        }
        match delta {
            Delta::Content(_) if self.head.custom.raw().is_some() => {}
            Delta::Content(text) => self.chunk(Piece { content: Some(Some(text)), ..Piece::default() }, None, out),
            Delta::Reasoning(text) => {
                self.chunk(Piece { reasoning_content: Some(text), ..Piece::default() }, None, out);
            }
            Delta::ToolCall(call) => self.call(call, out),
            Delta::Logprobs(tokens) => self.choices[self.current].logprobs.extend(tokens.iter().map(logprob)),
            Delta::Done(summary) => {
                self.end_call(out);
                let reason = finish_reason(summary.reason, self.choices[self.current].calls);
                self.chunk(Piece::default(), Some(reason), out);
                self.choices[self.current].done = true;
                self.usage.add(&summary.usage, self.current == 0);
                if self.choices.iter().all(|choice| choice.done) {
                    if self.include_usage {
                        self.event(&[], Some(self.usage.told()), out);
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

/// A piece of the answer to a conversation.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "openai.ChatChunk")]
pub struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: &'a [Choice<'a>],
    /// In all chunks where it is asked for, null but in the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<shapes::Usage>")]
    usage: Option<Option<Value>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "openai.ChunkChoice")]
struct Choice<'a> {
    index: usize,
    delta: Piece<'a>,
    /// Null where none are asked for; clients look for the field.
    #[schemars(with = "Option<shapes::ChatLogprobs>")]
    logprobs: Option<Value>,
    #[schemars(with = "Option<shapes::ChatFinish>")]
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize, JsonSchema)]
#[schemars(rename = "openai.ChunkDelta")]
struct Piece<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    /// Null at the beginning of an answer that is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[CallPiece<'a>; 1]>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "openai.ToolCallDelta")]
struct CallPiece<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<FunctionPiece<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom: Option<CustomPiece<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "openai.FunctionDelta")]
struct FunctionPiece<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "openai.CustomDelta")]
struct CustomPiece<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    input: &'a str,
}

impl<'a> CallPiece<'a> {
    /// Where the tool is a custom one, the arguments are its text.
    fn of(call: &'a ToolCallDelta, custom: bool) -> Self {
        let (name, text) = (call.name.as_deref(), call.arguments.as_str());
        Self {
            index: call.index,
            id: call.id.as_deref(),
            r#type: call.id.as_ref().map(|_| if custom { "custom" } else { "function" }),
            function: (!custom).then_some(FunctionPiece { name, arguments: text }),
            custom: custom.then_some(CustomPiece { name, input: text }),
        }
    }
}

/// The body of answers that are not streamed. `timings` is ours, of the first one.
#[must_use]
pub fn chat_body(head: &Head, answers: &[(Answer, Summary)]) -> Value {
    let mut sum = Usage::default();
    let mut choices = Vec::with_capacity(answers.len());
    for (index, (answer, summary)) in answers.iter().enumerate() {
        let calls = calls(head, answer);
        sum.add(&summary.usage, index == 0);
        let logprobs: Vec<Value> = answer.logprobs.iter().map(logprob).collect();
        choices.push(json!({
            "index": index,
            "message": message(answer, head.custom.raw().is_none(), &calls),
            "logprobs": (!logprobs.is_empty()).then(|| json!({ "content": logprobs, "refusal": null })),
            "finish_reason": finish_reason(summary.reason, !calls.is_empty()),
        }));
    }
    json!({
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "system_fingerprint": head.fingerprint,
        "choices": choices,
        "usage": sum.told(),
        "timings": answers.first().map(|(_, summary)| summary.timings),
    })
}

fn calls(head: &Head, answer: &Answer) -> Vec<Value> {
    if let Some(name) = head.custom.raw() {
        let call = begin(name, &answer.text);
        return vec![json!({ "id": call.id, "type": "custom", "custom": { "name": name, "input": answer.text } })];
    }
    let told = |call: &ToolCall| match head.custom.input(&call.name, &call.arguments) {
        Some(input) => json!({ "id": call.id, "type": "custom", "custom": { "name": call.name, "input": input } }),
        None => json!(call),
    };
    answer.tool_calls.iter().map(told).collect()
}

/// `is_text` where the answer's text is not that of a call.
fn message(answer: &Answer, is_text: bool, calls: &[Value]) -> Value {
    let text = (is_text && (!answer.text.is_empty() || calls.is_empty())).then_some(answer.text.as_str());
    let mut message = json!({ "role": "assistant", "content": text, "refusal": null });
    if !answer.reasoning.is_empty() {
        message["reasoning_content"] = answer.reasoning.as_str().into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    message
}

fn finish_reason(reason: FinishReason, calls: bool) -> &'static str {
    match super::parts::finish_reason(reason) {
        "stop" if calls => "tool_calls",
        reason => reason,
    }
}
