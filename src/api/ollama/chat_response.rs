//! Ollama's answers to `POST /api/chat`.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::response::{Line, Loading, error_line, now};
use super::shapes::Call;
use crate::api::{Encoder, push_json};
use crate::chat::ToolCall;
use crate::engine::{Summary, TokenLogprob};
use crate::runner::{Answer, Delta, RunnerError, ToolCallDelta};

/// One JSON object a line. A tool call is one line, since Ollama does not send their arguments in pieces.
#[derive(Debug)]
pub struct ChatEncoder {
    model: String,
    load_ms: f64,
    /// The call that is not yet complete, with its place among all.
    call: Option<(usize, ToolCall)>,
    /// Of the tokens of what comes next.
    logprobs: Vec<TokenLogprob>,
}

impl ChatEncoder {
    #[must_use]
    pub fn new(model: String, load_ms: f64) -> Self {
        Self { model, load_ms, call: None, logprobs: Vec::new() }
    }

    fn line(&mut self, message: Reply, end: Option<&Summary>, out: &mut Vec<u8>) {
        let mut line = Line::new(&self.model, Said { message }, &self.logprobs);
        if let Some(summary) = end {
            line = line.ended(summary, self.load_ms);
        }
        push_json(&line, out);
        out.push(b'\n');
        self.logprobs.clear();
    }

    fn add_to_call(&mut self, more: &ToolCallDelta, out: &mut Vec<u8>) {
        if self.call.as_ref().is_some_and(|(index, _)| *index != more.index) {
            self.finish_call(out);
        }
        let (_, call) = self.call.get_or_insert_with(|| (more.index, ToolCall::default()));
        call.id.push_str(more.id.as_deref().unwrap_or_default());
        call.name.push_str(more.name.as_deref().unwrap_or_default());
        call.arguments.push_str(&more.arguments);
    }

    fn finish_call(&mut self, out: &mut Vec<u8>) {
        if let Some((index, call)) = self.call.take() {
            let mut reply = Reply::default();
            reply.add_call(index, &call);
            self.line(reply, None, out);
        }
    }
}

impl Encoder for ChatEncoder {
    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn delta(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        match delta {
            Delta::Content(text) => self.line(Reply { content: text.to_string(), ..Reply::default() }, None, out),
            Delta::Reasoning(text) => self.line(Reply { thinking: text.to_string(), ..Reply::default() }, None, out),
            Delta::ToolCall(more) => self.add_to_call(more, out),
            Delta::Logprobs(more) => self.logprobs.extend_from_slice(more),
            Delta::Done(summary) => {
                self.finish_call(out);
                self.line(Reply::default(), Some(summary), out);
            }
        }
    }

    /// There are no comments in NDJSON.
    fn ping(&mut self, out: &mut Vec<u8>) {
        push_json(&Line::new(&self.model, Said { message: Reply::default() }, &[]), out);
        out.push(b'\n');
    }

    fn error(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        error_line(error, out);
    }
}

/// What `/api/chat` says.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ollama.Chat")]
pub struct Said {
    message: Reply,
}

/// The assistant's turn, or a piece of it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ollama.Reply")]
struct Reply {
    role: &'static str,
    content: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    thinking: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Call>")]
    tool_calls: Vec<Value>,
}

impl Default for Reply {
    fn default() -> Self {
        Self { role: "assistant", content: String::new(), thinking: String::new(), tool_calls: Vec::new() }
    }
}

impl Reply {
    /// Arguments are an object in Ollama. A call whose arguments never became one, e.g. because the answer was cut off, is
    /// shown as text: there it is at least seen.
    fn add_call(&mut self, index: usize, call: &ToolCall) {
        let arguments = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
        match serde_json::from_str::<Map<String, Value>>(arguments) {
            Ok(arguments) => {
                let function = json!({ "index": index, "name": call.name, "arguments": arguments });
                self.tool_calls.push(if call.id.is_empty() {
                    json!({ "function": function })
                } else {
                    json!({ "id": call.id, "function": function })
                });
            }
            Err(_) => {
                let name = Value::from(call.name.as_str());
                self.content.push_str(&format!("{{\"name\": {name}, \"arguments\": {arguments}}}"));
            }
        }
    }
}

/// The body of an answer that is not streamed.
#[must_use]
pub fn chat_body<'a>(model: &'a str, answer: &'a Answer, summary: &'a Summary, load_ms: f64) -> impl Serialize {
    let mut reply = Reply { content: answer.text.clone(), thinking: answer.reasoning.clone(), ..Reply::default() };
    for (index, call) in answer.tool_calls.iter().enumerate() {
        reply.add_call(index, call);
    }
    Line::new(model, Said { message: reply }, &answer.logprobs).ended(summary, load_ms)
}

/// The answer to no messages.
#[must_use]
pub fn chat_load_body(model: &str, done: Loading) -> Value {
    json!({
        "model": model,
        "created_at": now(),
        "message": Reply::default(),
        "done": true,
        "done_reason": done.done_reason(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{ChatEncoder, chat_body};
    use crate::api::Encoder;
    use crate::engine::{FinishReason, Summary, Timings, Usage};
    use crate::runner::{Answer, Delta, ToolCallDelta};

    fn call(index: usize, name: Option<&str>, arguments: &str) -> Delta {
        let id = name.map(|name| format!("id-{name}"));
        Delta::ToolCall(ToolCallDelta { index, id, name: name.map(str::to_owned), arguments: arguments.into() })
    }

    fn deltas() -> Vec<Delta> {
        let summary = Summary {
            reason: FinishReason::Length,
            stop: None,
            seed: 1,
            usage: Usage::default(),
            timings: Timings::default(),
        };
        vec![
            Delta::Reasoning("hm".into()),
            Delta::Content("ok".into()),
            call(0, Some("f"), ""),
            call(0, None, "{\"a\""),
            call(0, None, ": 1}"),
            call(1, Some("g"), ""),
            call(2, Some("h"), "{\"cut"),
            Delta::Done(summary),
        ]
    }

    #[test]
    fn calls_come_whole_and_a_broken_one_as_text() {
        let mut encoder = ChatEncoder::new("m".into(), 0.0);
        let mut out = Vec::new();
        for delta in deltas() {
            encoder.delta(&delta, &mut out);
        }
        let text = String::from_utf8(out).expect("text");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let messages: Vec<&Value> = lines.iter().map(|line| &line["message"]).collect();
        let f = json!({ "id": "id-f", "function": { "index": 0, "name": "f", "arguments": { "a": 1 } } });
        let g = json!({ "id": "id-g", "function": { "index": 1, "name": "g", "arguments": {} } });
        let cut = "{\"name\": \"h\", \"arguments\": {\"cut}";
        let expected = [
            json!({ "role": "assistant", "content": "", "thinking": "hm" }),
            json!({ "role": "assistant", "content": "ok" }),
            json!({ "role": "assistant", "content": "", "tool_calls": [&f] }),
            json!({ "role": "assistant", "content": "", "tool_calls": [&g] }),
            json!({ "role": "assistant", "content": cut }),
            json!({ "role": "assistant", "content": "" }),
        ];
        assert_eq!(messages, expected.iter().collect::<Vec<_>>());
        assert_eq!((&lines[5]["done"], &lines[5]["done_reason"]), (&json!(true), &json!("length")));
        assert!(lines[..5].iter().all(|line| line["done"] == false && line.get("done_reason").is_none()));

        let mut answer = Answer::default();
        let summary = deltas().into_iter().find_map(|delta| answer.add(delta)).expect("an end");
        let body = serde_json::to_value(chat_body("m", &answer, &summary, 0.0)).expect("JSON");
        let whole =
            json!({ "role": "assistant", "content": format!("ok{cut}"), "thinking": "hm", "tool_calls": [f, g] });
        assert_eq!(body["message"], whole);
    }
}
