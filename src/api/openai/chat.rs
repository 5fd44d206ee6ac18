//! The request body of `POST /v1/chat/completions`.

use serde::Deserialize;
use serde_json::Value;

use crate::api::shimmy::{GenerateRequest, StreamOptions};
use crate::api::{BadRequest, StopList, is_empty};
use crate::chat::{Message, Role};
use crate::engine::Priority;
use crate::runner::GenerateSpec;

/// What is absent takes the defaults of shimmy's own dialect.
#[derive(Clone, Debug, Deserialize)]
struct Fields {
    model: String,
    messages: Vec<Turn>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    /// The older name of the next one.
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    seed: Option<i64>,
    stop: Option<StopList>,
    // Not OpenAI's, but understood by most local servers.
    top_k: Option<u32>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    #[serde(default)]
    ignore_eos: bool,
    #[serde(default)]
    priority: Priority,
}

#[derive(Clone, Debug, Deserialize)]
struct Turn {
    role: TurnRole,
    content: Option<Content>,
    // What an answer can hold beside its text; an answer comes back as a turn.
    #[serde(default)]
    tool_calls: Vec<Value>,
    function_call: Option<Value>,
    audio: Option<Value>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TurnRole {
    System,
    /// What newer models call the system's turn.
    Developer,
    User,
    Assistant,
    Tool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Value>),
}

/// A request, and what of it has no effect here.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    fields: Fields,
    /// Paths of the fields that are passed over, e.g. `user`, `messages.0.name`.
    pub ignored: Vec<String>,
}

/// Whether a value of a field asks for nothing.
type AsksForNothing = fn(&Value) -> bool;

/// Fields whose meaning would be lost if we passed over them.
const NOT_SERVED: &[(&str, AsksForNothing)] = &[
    ("n", |value| value == 1),
    ("tools", is_empty),
    ("functions", is_empty),
    ("tool_choice", |value| value == "none" || value == "auto"),
    ("function_call", |value| value == "none" || value == "auto"),
    ("parallel_tool_calls", Value::is_boolean),
    ("response_format", |value| value["type"] == "text"),
    ("logprobs", |value| value == false),
    ("top_logprobs", |value| value == 0),
    ("logit_bias", has_no_fields),
    ("modalities", |value| *value == serde_json::json!(["text"])),
    ("audio", |_| false),
    ("web_search_options", |_| false),
    // Those of other local servers.
    ("grammar", is_empty),
    ("json_schema", is_empty),
    ("guided_json", is_empty),
    ("guided_regex", is_empty),
    ("guided_choice", is_empty),
    ("guided_grammar", is_empty),
    ("structured_outputs", is_empty),
    ("chat_template_kwargs", has_no_fields),
    ("continue_final_message", |value| value == false),
    ("add_generation_prompt", |value| value == true),
];

fn has_no_fields(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// A field that is null is a field that is absent.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

impl ChatRequest {
    /// # Errors
    /// The first field that is missing, of a wrong type, or asks for what is not served.
    pub fn from_value(mut body: Value) -> Result<Self, BadRequest> {
        drop_nulls(&mut body);
        for (field, asks_for_nothing) in NOT_SERVED {
            if body.get(*field).is_some_and(|value| !asks_for_nothing(value)) {
                return Err(BadRequest(format!("`{field}` is not served by this version")));
            }
        }
        let (fields, mut ignored) = crate::api::from_value_noting_ignored::<Fields>(body)?;
        ignored.retain(|path| NOT_SERVED.iter().all(|(field, _)| path != field));
        Ok(Self { fields, ignored })
    }

    #[must_use]
    pub fn streams(&self) -> bool {
        self.fields.stream
    }

    #[must_use]
    pub fn includes_usage(&self) -> bool {
        self.fields.stream_options.is_some_and(|options| options.include_usage)
    }

    /// # Errors
    /// What is out of range, or is no text.
    pub fn into_spec(self) -> Result<GenerateSpec, BadRequest> {
        let fields = self.fields;
        let messages = fields.messages.into_iter().enumerate().map(|(index, turn)| turn.into_message(index));
        let request = GenerateRequest {
            model: fields.model,
            messages: Some(messages.collect::<Result<_, _>>()?),
            max_tokens: fields.max_completion_tokens.or(fields.max_tokens),
            temperature: fields.temperature,
            top_k: fields.top_k,
            top_p: fields.top_p,
            min_p: fields.min_p,
            repeat_penalty: fields.repeat_penalty,
            frequency_penalty: fields.frequency_penalty,
            presence_penalty: fields.presence_penalty,
            seed: fields.seed.map(crate::api::seed),
            stop: fields.stop,
            priority: fields.priority,
            ignore_eos: fields.ignore_eos,
            ..GenerateRequest::default()
        };
        request.into_spec()
    }
}

impl Turn {
    fn into_message(self, index: usize) -> Result<Message, BadRequest> {
        let role = match self.role {
            TurnRole::System | TurnRole::Developer => Role::System,
            TurnRole::User => Role::User,
            TurnRole::Assistant => Role::Assistant,
            TurnRole::Tool => Role::Tool,
        };
        let calls = (!self.tool_calls.is_empty()).then_some("tool_calls");
        let other = calls.or(self.function_call.and(Some("function_call"))).or(self.audio.and(Some("audio")));
        if let Some(field) = other {
            return Err(BadRequest(format!("`messages[{index}].{field}` is not served by this version")));
        }
        let content = match self.content {
            None => return Err(BadRequest(format!("messages[{index}].content is missing"))),
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) if parts.is_empty() => {
                return Err(BadRequest(format!("messages[{index}].content is empty")));
            }
            Some(Content::Parts(parts)) => {
                let texts: Result<Vec<&str>, _> =
                    parts.iter().enumerate().map(|(part, value)| text_of(value, index, part)).collect();
                texts?.join("\n")
            }
        };
        Ok(Message::new(role, content))
    }
}

fn text_of(part: &Value, message: usize, index: usize) -> Result<&str, BadRequest> {
    let at = || format!("messages[{message}].content[{index}]");
    match part["type"].as_str() {
        // An answer of OpenAI's may come back as a refusal.
        Some(kind @ ("text" | "refusal")) => {
            part[kind].as_str().ok_or_else(|| BadRequest(format!("{}.{kind} is missing", at())))
        }
        Some(other) => Err(BadRequest(format!("{}: parts of type {other:?} are not served by this version", at()))),
        None => Err(BadRequest(format!("{}.type is missing", at()))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::ChatRequest;
    use crate::chat::{Message, Role};
    use crate::runner::Input;

    /// Clients send what they have no value for as null, and an answer back as it came.
    #[test]
    fn nulls_are_absent_fields() {
        let body = json!({
            "model": "m", "stream": null, "stream_options": { "include_usage": null }, "ignore_eos": null, "priority": null,
            "seed": null, "stop": null, "tools": null, "user": null,
            "messages": [
                { "role": "user", "content": "a" },
                { "role": "assistant", "content": "b", "refusal": null, "audio": null, "function_call": null, "tool_calls": null },
                { "role": "assistant", "content": [{ "type": "refusal", "refusal": "c" }], "tool_calls": [] },
            ],
        });
        let request = ChatRequest::from_value(body).expect("it is served");
        assert_eq!(request.ignored, [""; 0]);
        assert!(!request.streams());
        let spec = request.into_spec().expect("it is in range");
        let Input::Messages(messages) = spec.input else { panic!("messages") };
        assert_eq!(messages[2], Message::new(Role::Assistant, "c"));
    }

    #[test]
    fn what_has_no_effect_is_listed_and_what_would_be_missed_is_refused() {
        let body = json!({
            "model": "m", "user": "me", "n": 1, "tools": [], "tool_choice": "none", "logprobs": null,
            "response_format": { "type": "text" }, "max_tokens": 5, "max_completion_tokens": 7, "seed": -1,
            "messages": [
                { "role": "developer", "content": "be brief" },
                { "role": "user", "name": "Ada", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
            ],
        });
        let request = ChatRequest::from_value(body.clone()).expect("it is served");
        assert_eq!(request.ignored, ["user", "messages.1.name"]);
        let spec = request.into_spec().expect("it is in range");
        assert_eq!((spec.max_tokens, spec.sampling.seed), (Some(7), Some(u32::MAX)));
        let expected = vec![Message::new(Role::System, "be brief"), Message::new(Role::User, "a\nb")];
        assert_eq!(spec.input, Input::Messages(expected));

        let refused = |field: &str, value: serde_json::Value| {
            let mut body = body.clone();
            body[field] = value;
            ChatRequest::from_value(body).and_then(ChatRequest::into_spec).expect_err("it would be missed").0
        };
        assert_eq!(refused("n", json!(2)), "`n` is not served by this version");
        assert_eq!(refused("tools", json!([{}])), "`tools` is not served by this version");
        assert_eq!(refused("messages", json!([])), "`messages` is empty");
        let image = json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": {} }] }]);
        assert!(refused("messages", image).starts_with("messages[0].content[0]: parts of type \"image_url\""));
        let call = json!([{ "role": "assistant", "tool_calls": [{ "id": "1" }] }]);
        assert_eq!(refused("messages", call), "`messages[0].tool_calls` is not served by this version");
        assert_eq!(
            refused("messages", json!([{ "role": "assistant", "content": null }])),
            "messages[0].content is missing"
        );
        let empty = json!([{ "role": "user", "content": [] }]);
        assert_eq!(refused("messages", empty), "messages[0].content is empty");
        assert!(refused("temperature", json!("hot")).starts_with("temperature: "));
    }
}
