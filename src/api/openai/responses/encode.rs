//! A response as it comes: an event stream of items, whose last event holds the whole.

use serde_json::{Value, json};

use super::head::{Head, State};
use super::kept::Kept;
use crate::api::openai::custom::{InputReader, begin};
use crate::api::openai::parts::logprob;
use crate::api::{Encoder, push_json, random_id};
use crate::engine::{FinishReason, Summary};
use crate::runner::{Delta, RunnerError, ToolCallDelta};

/// Takes a finished response to where it is kept.
pub type Keep = Box<dyn FnOnce(Kept) + Send>;

/// Writes the events of one response. An answer that is not streamed goes the same way, and only the body is told.
pub struct ResponsesEncoder {
    head: Head,
    /// The conversation before the response, and where it goes with it.
    keep: Option<(Vec<Value>, Keep)>,
    /// Items that are complete.
    output: Vec<Value>,
    open: Option<Open>,
    /// Of tokens whose text is yet to come.
    logprobs: Vec<Value>,
    /// Counts the events.
    sequence: u64,
    body: Option<Value>,
}

/// The item that is being written.
struct Open {
    id: String,
    kind: Kind,
    text: String,
    /// Of a custom tool's call.
    input: Option<InputReader>,
    logprobs: Vec<Value>,
}

#[derive(PartialEq, Eq)]
enum Kind {
    Reasoning,
    Message,
    /// With the number of the call.
    Call {
        number: usize,
        call_id: String,
        name: String,
        /// Whether the tool is a custom one, whose text is told and not its arguments.
        custom: bool,
    },
}

impl Open {
    fn new(kind: Kind) -> Self {
        let prefix = match kind {
            Kind::Reasoning => "rs_",
            Kind::Message => "msg_",
            Kind::Call { custom: false, .. } => "fc_",
            Kind::Call { custom: true, .. } => "ctc_",
        };
        Self { id: random_id(prefix), kind, text: String::new(), input: None, logprobs: Vec::new() }
    }

    fn has_part(&self) -> bool {
        !matches!(self.kind, Kind::Call { .. })
    }

    /// What holds its text. A call holds it itself.
    fn part(&self) -> Option<Value> {
        match self.kind {
            Kind::Reasoning => Some(json!({ "type": "reasoning_text", "text": self.text })),
            Kind::Message => Some(json!({
                "type": "output_text", "annotations": [], "logprobs": self.logprobs, "text": self.text,
            })),
            Kind::Call { .. } => None,
        }
    }

    fn item(&self, status: &str) -> Value {
        // A part is told of when it is added, and that is after the item.
        let content: Vec<Value> = if status == "in_progress" { Vec::new() } else { self.part().into_iter().collect() };
        match &self.kind {
            Kind::Reasoning => {
                json!({ "id": self.id, "type": "reasoning", "status": status, "summary": [], "content": content })
            }
            Kind::Message => {
                json!({ "id": self.id, "type": "message", "status": status, "role": "assistant", "content": content })
            }
            Kind::Call { call_id, name, custom: true, .. } => json!({
                "id": self.id, "type": "custom_tool_call", "status": status, "call_id": call_id, "name": name, "input": self.text,
            }),
            Kind::Call { call_id, name, .. } => json!({
                "id": self.id, "type": "function_call", "status": status, "call_id": call_id, "name": name, "arguments": self.text,
            }),
        }
    }

    /// What its events are called, up to `.delta` and `.done`, and the field for the whole text.
    fn events(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Reasoning => ("response.reasoning_text", "text"),
            Kind::Message => ("response.output_text", "text"),
            Kind::Call { custom: false, .. } => ("response.function_call_arguments", "arguments"),
            Kind::Call { custom: true, .. } => ("response.custom_tool_call_input", "input"),
        }
    }
}

impl ResponsesEncoder {
    /// With `keep`, a response that is complete, or as complete as it could be, goes there with the conversation before it.
    #[must_use]
    pub fn new(head: Head, keep: Option<(Vec<Value>, Keep)>) -> Self {
        Self { head, keep, output: Vec::new(), open: None, logprobs: Vec::new(), sequence: 0, body: None }
    }

    /// The whole response, once its last delta was taken in.
    #[must_use]
    pub fn into_body(self) -> Option<Value> {
        self.body
    }

    fn event(&mut self, name: &str, fields: Value, out: &mut Vec<u8>) {
        let mut data = json!({ "type": name, "sequence_number": self.sequence });
        if let (Value::Object(data), Value::Object(fields)) = (&mut data, fields) {
            data.extend(fields);
        }
        self.sequence += 1;
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\ndata: ");
        push_json(&data, out);
        out.extend_from_slice(b"\n\n");
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.sequence == 0 {
            let body = self.head.body(State::InProgress, &[]);
            self.event("response.created", json!({ "response": body }), out);
            self.event("response.in_progress", json!({ "response": body }), out);
        }
    }

    /// Begins an item, unless it is the one that is open.
    fn open(&mut self, kind: Kind, out: &mut Vec<u8>) {
        let same = |open: &Open| match (&open.kind, &kind) {
            (Kind::Call { number, .. }, Kind::Call { number: other, .. }) => number == other,
            (open, other) => open == other,
        };
        if self.open.as_ref().is_some_and(same) {
            return;
        }
        self.close("completed", out);
        let open = Open::new(kind);
        let index = self.output.len();
        self.event(
            "response.output_item.added",
            json!({ "output_index": index, "item": open.item("in_progress") }),
            out,
        );
        if let Some(part) = open.part() {
            let added = json!({ "item_id": open.id, "output_index": index, "content_index": 0, "part": part });
            self.event("response.content_part.added", added, out);
        }
        self.open = Some(open);
    }

    /// More text of the open item.
    fn more(&mut self, text: &str, out: &mut Vec<u8>) {
        let Some(open) = &mut self.open else { return };
        open.text.push_str(text);
        let mut fields = json!({ "item_id": open.id, "output_index": self.output.len() });
        if open.has_part() {
            fields["content_index"] = 0.into();
        }
        fields["delta"] = text.into();
        // Those of thoughts and calls have no place in an answer.
        let logprobs = std::mem::take(&mut self.logprobs);
        if open.kind == Kind::Message {
            open.logprobs.extend_from_slice(&logprobs);
            fields["logprobs"] = logprobs.into();
        }
        let name = format!("{}.delta", open.events().0);
        self.event(&name, fields, out);
    }

    fn close(&mut self, status: &str, out: &mut Vec<u8>) {
        let held = self.open.as_mut().and_then(|open| open.input.as_mut()).map(InputReader::end);
        if let Some(held) = held.filter(|held| !held.is_empty()) {
            self.more(&held, out);
        }
        let Some(open) = self.open.take() else { return };
        let index = self.output.len();
        let (name, whole) = open.events();
        let part = open.part();
        let mut done = json!({ "item_id": open.id, "output_index": index });
        if part.is_some() {
            done["content_index"] = 0.into();
        }
        done[whole] = open.text.as_str().into();
        if open.kind == Kind::Message {
            done["logprobs"] = json!(open.logprobs);
        }
        self.event(&format!("{name}.done"), done, out);
        if let Some(part) = part {
            let done = json!({ "item_id": open.id, "output_index": index, "content_index": 0, "part": part });
            self.event("response.content_part.done", done, out);
        }
        let item = open.item(status);
        self.event("response.output_item.done", json!({ "output_index": index, "item": item }), out);
        self.output.push(item);
    }

    fn call(&mut self, call: &ToolCallDelta, out: &mut Vec<u8>) {
        let (call_id, name) = (call.id.clone().unwrap_or_default(), call.name.clone().unwrap_or_default());
        let reader = self.head.custom.reader(&name);
        self.open(Kind::Call { number: call.index, call_id, name, custom: reader.is_some() }, out);
        let Some(open) = &mut self.open else { return };
        open.input = reader.or(open.input.take());
        let read = open.input.as_mut().map(|reader| reader.more(&call.arguments));
        let text = read.as_deref().unwrap_or(&call.arguments);
        if !text.is_empty() {
            self.more(text, out);
        }
    }

    /// A text that is what a custom tool is given.
    fn raw(&mut self, name: &str, text: &str, out: &mut Vec<u8>) {
        if self.open.is_none() {
            self.call(&begin(name, ""), out);
        }
        self.call(&ToolCallDelta { arguments: text.into(), ..ToolCallDelta::default() }, out);
    }

    fn end(&mut self, summary: &Summary, out: &mut Vec<u8>) {
        let (status, name) = match summary.reason {
            FinishReason::Eos | FinishReason::Stop => ("completed", "response.completed"),
            FinishReason::Length | FinishReason::Cancelled => ("incomplete", "response.incomplete"),
        };
        if self.output.is_empty() && self.open.is_none() {
            // Clients look for a message, if only an empty one.
            self.open(Kind::Message, out);
        }
        self.close(status, out);
        let body = self.head.body(State::Done(summary), &self.output);
        if let Some((input, keep)) = self.keep.take() {
            keep(Kept::new(&self.head.id, &body, &input));
        }
        self.event(name, json!({ "response": body }), out);
        self.body = Some(body);
    }
}

impl Encoder for ResponsesEncoder {
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    fn delta(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        self.begin(out);
        if let (Some(name), Delta::Content(_) | Delta::Done(_)) = (self.head.custom.raw().map(str::to_owned), delta) {
            let text = if let Delta::Content(text) = delta { text.as_str() } else { "" };
            self.raw(&name, text, out);
        }
        match delta {
            Delta::Content(_) if self.head.custom.raw().is_some() => {}
            Delta::Content(text) if !text.is_empty() => {
                self.open(Kind::Message, out);
                self.more(text, out);
            }
            Delta::Reasoning(text) if !text.is_empty() => {
                self.open(Kind::Reasoning, out);
                self.more(text, out);
            }
            Delta::ToolCall(call) => self.call(call, out),
            Delta::Content(_) | Delta::Reasoning(_) => {}
            Delta::Logprobs(tokens) => self.logprobs.extend(tokens.iter().map(logprob)),
            Delta::Done(summary) => self.end(summary, out),
        }
    }

    fn error(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        self.begin(out);
        let mut output = std::mem::take(&mut self.output);
        output.extend(self.open.take().map(|open| open.item("incomplete")));
        let body = self.head.body(State::Failed(&error.to_string()), &output);
        self.event("response.failed", json!({ "response": body }), out);
    }
}
