//! A turn of a conversation.

use schemars::JsonSchema;
use serde::de::Error;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::image::Image;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

impl Role {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// In JSON it has OpenAI's shape, which is what templates expect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "A turn of a conversation.")]
pub struct Message {
    pub role: Role,
    pub content: String,
    /// Images in its text, in their order. A client's stand before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    /// What an assistant thought before it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// What an assistant asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Which call the result of a tool belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Which tool a result comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    #[must_use]
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            images: Vec::new(),
            reasoning_content: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
        }
    }

    /// Adds a part of its text, as [`Message::append`].
    pub fn push_text(&mut self, text: &str) {
        self.append(text, Vec::new());
    }

    /// Adds an image behind its text.
    pub fn push_image(&mut self, image: Image) {
        self.images.push(Image { at: self.content.len(), ..image });
    }

    /// Adds what another message says: on a line of its own where both meet in text.
    pub fn append(&mut self, said: &str, images: Vec<Image>) {
        let ends_in_image = self.images.last().is_some_and(|image| image.at == self.content.len());
        let begins_with_image = images.first().is_some_and(|image| image.at == 0);
        if !self.content.is_empty() && !said.is_empty() && !ends_in_image && !begins_with_image {
            self.content.push('\n');
        }
        let before = self.content.len();
        self.content.push_str(said);
        self.images.extend(images.into_iter().map(|image| Image { at: before + image.at, ..image }));
    }
}

/// A tool that the model wants to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// JSON.
    pub arguments: String,
}

impl ToolCall {
    /// The arguments as an object. A call that was cut off has none that could be read: they are given as they are then, below a
    /// name that no tool expects, for an empty object might be just what one expects.
    #[must_use]
    pub fn input(&self) -> Value {
        if self.arguments.trim().is_empty() {
            return json!({});
        }
        match serde_json::from_str(&self.arguments) {
            Ok(Value::Object(fields)) => Value::Object(fields),
            _ => json!({ "INVALID_JSON": self.arguments }),
        }
    }

    /// The same with arguments that templates can read, as [`ToolCall::input`] tells them where they are no object.
    #[must_use]
    pub fn whole(mut self) -> Self {
        if !serde_json::from_str::<Value>(&self.arguments).is_ok_and(|value| value.is_object()) {
            self.arguments = self.input().to_string();
        }
        self
    }
}

impl Serialize for ToolCall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut call = serializer.serialize_struct("ToolCall", 3)?;
        call.serialize_field("id", &self.id)?;
        call.serialize_field("type", "function")?;
        call.serialize_field("function", &Function { name: &self.name, arguments: &self.arguments })?;
        call.end()
    }
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: &'a str,
}

impl<'de> Deserialize<'de> for ToolCall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Call {
            #[serde(default)]
            id: String,
            function: Option<Called>,
            custom: Option<Custom>,
        }
        #[derive(Deserialize)]
        struct Called {
            name: String,
            #[serde(default)]
            arguments: Value,
        }
        /// OpenAI's tools that take a text: a function with one argument.
        #[derive(Deserialize)]
        struct Custom {
            name: String,
            input: String,
        }
        let Call { id, function, custom } = Call::deserialize(deserializer)?;
        if let Some(Custom { name, input }) = custom {
            return Ok(Self { id, name, arguments: serde_json::json!({ "input": input }).to_string() });
        }
        let function = function.ok_or_else(|| D::Error::missing_field("function"))?;
        // Some clients send the arguments as JSON, others as the text of it.
        let arguments = match function.arguments {
            Value::String(text) if text.trim().is_empty() => "{}".into(),
            Value::String(text) => text,
            Value::Null => "{}".into(),
            other => other.to_string(),
        };
        Ok(Self { id, name: function.name, arguments })
    }
}
