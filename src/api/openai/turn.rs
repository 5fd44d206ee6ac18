//! Turns of a conversation, as OpenAI writes them.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::api::BadRequest;
use crate::api::conversation::image;
use crate::chat::{Message, Role, ToolCall};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.Turn")]
pub(super) struct Turn {
    role: TurnRole,
    content: Option<Content>,
    /// Which tool a result comes from. For other turns it has no effect.
    name: Option<String>,
    tool_call_id: Option<String>,
    // What an answer can hold beside its text; an answer comes back as a turn.
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Vec<ToolCall>,
    function_call: Option<Value>,
    audio: Option<Value>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "openai.Role")]
enum TurnRole {
    System,
    /// What newer models call the system's turn.
    Developer,
    User,
    Assistant,
    Tool,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "openai.Content")]
enum Content {
    Text(String),
    Parts(Vec<Value>),
}

impl Turn {
    /// Paths in it that have no effect.
    pub fn ignored(&self) -> Vec<String> {
        let name = self.name.is_some() && !matches!(self.role, TurnRole::Tool);
        let mut found: Vec<String> = name.then(|| "name".to_owned()).into_iter().collect();
        if let Some(Content::Parts(parts)) = &self.content {
            for (index, part) in parts.iter().enumerate() {
                let kind = part["type"].as_str().unwrap_or_default();
                found.extend(others(part, &["type", kind]).map(|field| format!("content.{index}.{field}")));
                if kind == "image_url" {
                    let image = &part["image_url"];
                    let known: &[&str] = if image["detail"] == "auto" { &["url", "detail"] } else { &["url"] };
                    found.extend(others(image, known).map(|field| format!("content.{index}.image_url.{field}")));
                }
            }
        }
        found
    }

    /// # Errors
    /// What is missing, or is no text.
    pub fn into_message(self, index: usize) -> Result<Message, BadRequest> {
        let role = match self.role {
            TurnRole::System | TurnRole::Developer => Role::System,
            TurnRole::User => Role::User,
            TurnRole::Assistant => Role::Assistant,
            TurnRole::Tool => Role::Tool,
        };
        if let Some(field) = self.function_call.and(Some("function_call")).or(self.audio.and(Some("audio"))) {
            return Err(BadRequest(format!("`messages[{index}].{field}` is not served by this version")));
        }
        let mut message = Message::new(role, "");
        match self.content {
            None if !self.tool_calls.is_empty() => {}
            None => return Err(BadRequest(format!("messages[{index}].content is missing"))),
            Some(Content::Text(text)) => message.content = text,
            Some(Content::Parts(parts)) if parts.is_empty() && self.tool_calls.is_empty() => {
                return Err(BadRequest(format!("messages[{index}].content is empty")));
            }
            Some(Content::Parts(parts)) => {
                for (part, value) in parts.iter().enumerate() {
                    add(&mut message, value, &format!("messages[{index}].content[{part}]"))?;
                }
            }
        }
        if role == Role::Tool && self.tool_call_id.is_none() {
            return Err(BadRequest(format!("messages[{index}].tool_call_id is missing")));
        }
        if role != Role::Assistant && !self.tool_calls.is_empty() {
            return Err(BadRequest(format!("messages[{index}].tool_calls: only an assistant calls tools")));
        }
        Ok(Message {
            reasoning_content: self.reasoning_content.filter(|text| !text.is_empty()),
            tool_calls: self.tool_calls.into_iter().map(ToolCall::whole).collect(),
            tool_call_id: self.tool_call_id,
            name: self.name.filter(|_| role == Role::Tool),
            ..message
        })
    }
}

/// Fields of an object that are set, beside those that are known.
fn others<'a>(object: &'a Value, known: &'a [&str]) -> impl Iterator<Item = &'a String> {
    let fields = object.as_object().into_iter().flatten();
    fields.filter(|(field, value)| !value.is_null() && !known.contains(&field.as_str())).map(|(field, _)| field)
}

/// Adds a part of a message's content, which is at `at`.
fn add(message: &mut Message, part: &Value, at: &str) -> Result<(), BadRequest> {
    match part["type"].as_str() {
        // An answer of OpenAI's may come back as a refusal.
        Some(kind @ ("text" | "refusal")) => {
            let text = part[kind].as_str().ok_or_else(|| BadRequest(format!("{at}.{kind} is missing")))?;
            message.push_text(text);
        }
        Some("image_url") => {
            let url = part["image_url"]["url"].as_str().or(part["image_url"].as_str());
            message.push_image(image(message.role, at, "image_url.url", url)?);
        }
        Some(other) => {
            return Err(BadRequest(format!("{at}: parts of type {other:?} are not served by this version")));
        }
        None => return Err(BadRequest(format!("{at}.type is missing"))),
    }
    Ok(())
}
