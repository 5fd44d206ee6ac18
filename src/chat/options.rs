//! What a conversation is rendered with beside its messages, and how its answer is read.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Whether a template's setting is the template itself, in Jinja.
#[must_use]
pub fn is_template_text(template: &str) -> bool {
    template.contains("{{") || template.contains("{%")
}

/// A function that the model may ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    pub name: String,
    #[serde(default)]
    pub description: String,
    /// JSON Schema of its arguments.
    pub parameters: Value,
}

/// Whether the model calls tools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    None,
    /// As the model likes.
    #[default]
    Auto,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChatOptions {
    pub tools: Vec<Tool>,
    pub tool_choice: ToolChoice,
    /// More than one call in an answer.
    pub parallel_tool_calls: bool,
    /// `None` leaves it to the template.
    pub thinking: Option<bool>,
    /// Variables of the template.
    pub template_args: Map<String, Value>,
    /// Tell thoughts and tool calls from the text. Otherwise all of the answer is text.
    pub parse: bool,
}

impl ChatOptions {
    /// Whether the answer can hold a tool call.
    #[must_use]
    pub fn may_call(&self) -> bool {
        !self.tools.is_empty() && self.tool_choice != ToolChoice::None
    }

    /// Whether the answer must hold a tool call.
    #[must_use]
    pub fn must_call(&self) -> bool {
        !self.tools.is_empty() && matches!(self.tool_choice, ToolChoice::Required | ToolChoice::Named(_))
    }
}
