//! Items of a conversation, and the messages that they become.

use std::fmt;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::api::conversation::{Conversation, image};
use crate::api::{BadRequest, random_id};
use crate::chat::{Message, Role, ToolCall};

/// A text, or a list of what it stands for.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged, inline)]
pub(super) enum TextOr<T> {
    Text(String),
    List(Vec<T>),
}

// An untagged enum would lose the paths of what is wrong and of what is passed over.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrList<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for TextOrList<T> {
            type Value = TextOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list")
            }

            fn visit_str<E>(self, text: &str) -> Result<TextOr<T>, E> {
                Ok(TextOr::Text(text.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<TextOr<T>, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(TextOr::List)
            }
        }

        deserializer.deserialize_any(TextOrList(PhantomData))
    }
}

/// The fields of all kinds of item, so that those that an item has beside them are told to have no effect.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.InputItem", description = "A message, a thought, a call or the result of one.")]
pub(super) struct Item {
    /// Absent for a message.
    r#type: Option<String>,
    role: Option<ItemRole>,
    content: Option<TextOr<Part>>,
    summary: Option<Vec<Part>>,
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    input: Option<String>,
    output: Option<TextOr<Part>>,
    // An answer's item comes back as it went out.
    #[serde(rename = "id")]
    _id: Option<String>,
    #[serde(rename = "status")]
    _status: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "openai.ItemRole")]
enum ItemRole {
    System,
    /// What newer models call the system's turn.
    Developer,
    User,
    Assistant,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.InputPart")]
pub(super) struct Part {
    r#type: String,
    text: Option<String>,
    refusal: Option<String>,
    image_url: Option<String>,
    // Of an answer's text.
    #[serde(rename = "annotations")]
    _annotations: Option<Value>,
    #[serde(rename = "logprobs")]
    _logprobs: Option<Value>,
}

/// Takes an item in. `at` is its path.
///
/// # Errors
/// What is missing, or is no text.
pub(super) fn add(read: &mut Conversation, item: Item, at: &str) -> Result<(), BadRequest> {
    match item.r#type.as_deref() {
        None | Some("message") => {
            let role = match given(item.role, at, "role")? {
                ItemRole::System | ItemRole::Developer => Role::System,
                ItemRole::User => Role::User,
                ItemRole::Assistant => Role::Assistant,
            };
            read.add(said(role, given(item.content, at, "content")?, &format!("{at}.content"))?);
        }
        // The thought itself where there is one; what OpenAI lets others see of it otherwise.
        Some("reasoning") => {
            let thought = item.content.map(|content| text(content, &format!("{at}.content"))).transpose()?;
            let summary = item.summary.map(|parts| text(TextOr::List(parts), &format!("{at}.summary"))).transpose()?;
            let thought = thought.filter(|text| !text.is_empty()).or(summary).filter(|text| !text.is_empty());
            if thought.is_some() {
                read.add(Message { reasoning_content: thought, ..Message::new(Role::Assistant, "") });
            }
        }
        Some("function_call") => {
            let (id, name) = (given(item.call_id, at, "call_id")?, given(item.name, at, "name")?);
            let arguments = given(item.arguments, at, "arguments")?;
            let call = ToolCall { id, name, arguments }.whole();
            read.add(Message { tool_calls: vec![call], ..Message::new(Role::Assistant, "") });
        }
        Some("custom_tool_call") => {
            let (id, name) = (given(item.call_id, at, "call_id")?, given(item.name, at, "name")?);
            let arguments = json!({ "input": given(item.input, at, "input")? }).to_string();
            let call = ToolCall { id, name, arguments };
            read.add(Message { tool_calls: vec![call], ..Message::new(Role::Assistant, "") });
        }
        Some("function_call_output" | "custom_tool_call_output") => {
            let output = said(Role::Tool, given(item.output, at, "output")?, &format!("{at}.output"))?;
            read.result(given(item.call_id, at, "call_id")?, output);
        }
        Some("item_reference") => {
            return Err(BadRequest(format!(
                "{at}: items are not looked up by this version; send the item itself, or go on from `previous_response_id`"
            )));
        }
        Some(other) => {
            return Err(BadRequest(format!("{at}: items of type {other:?} are not served by this version")));
        }
    }
    Ok(())
}

/// A text that has no images.
fn text(content: TextOr<Part>, at: &str) -> Result<String, BadRequest> {
    said(Role::Assistant, content, at).map(|message| message.content)
}

fn said(role: Role, content: TextOr<Part>, at: &str) -> Result<Message, BadRequest> {
    let parts = match content {
        TextOr::Text(text) => return Ok(Message::new(role, text)),
        TextOr::List(parts) => parts,
    };
    let mut all = Message::new(role, "");
    for (index, part) in parts.into_iter().enumerate() {
        let at = format!("{at}[{index}]");
        match part.r#type.as_str() {
            "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" => {
                all.push_text(&given(part.text, &at, "text")?);
            }
            "refusal" => all.push_text(&given(part.refusal, &at, "refusal")?),
            "input_image" => all.push_image(image(role, &at, "image_url", part.image_url.as_deref())?),
            other => {
                return Err(BadRequest(format!("{at}: parts of type {other:?} are not served by this version")));
            }
        }
    }
    Ok(all)
}

fn given<T>(field: Option<T>, at: &str, name: &str) -> Result<T, BadRequest> {
    field.ok_or_else(|| BadRequest(format!("{at}.{name} is missing")))
}

/// A request's input as a list of items with ids, the way it is kept.
pub(super) fn listed(input: Value) -> Vec<Value> {
    let mut items = match input {
        Value::Array(items) => items,
        text => vec![json!({ "type": "message", "role": "user", "content": [{ "type": "input_text", "text": text }] })],
    };
    for item in &mut items {
        if item.get("type").is_none() {
            item["type"] = "message".into();
        }
        if let Some(text) = item.get("content").and_then(Value::as_str) {
            let part = if item["role"] == "assistant" { "output_text" } else { "input_text" };
            item["content"] = json!([{ "type": part, "text": text }]);
        }
        if item.get("id").is_none() {
            let prefix = match item["type"].as_str() {
                Some("function_call") => "fc_",
                Some("function_call_output") => "fco_",
                Some("custom_tool_call") => "ctc_",
                Some("custom_tool_call_output") => "ctco_",
                Some("reasoning") => "rs_",
                _ => "msg_",
            };
            item["id"] = random_id(prefix).into();
        }
    }
    items
}
