//! Shapes of Anthropic's answers that no type of the encoder has, for the API's document.

use schemars::JsonSchema;

use super::encode::{Block, Piece, Stop};

/// What is wrong.
#[derive(JsonSchema)]
#[schemars(rename = "anthropic.Error")]
pub struct ErrorBody {
    #[schemars(extend("const" = "error"))]
    pub r#type: String,
    pub error: ErrorFields,
    /// Not in an event of a stream; there the header `request-id` has it.
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename = "anthropic.ErrorFields")]
pub struct ErrorFields {
    /// E.g. `invalid_request_error`, `not_found_error`, `overloaded_error`.
    pub r#type: String,
    pub message: String,
}

/// The answer to a conversation.
#[derive(JsonSchema)]
#[schemars(rename = "anthropic.Message")]
pub struct Message {
    pub id: String,
    #[schemars(extend("const" = "message"))]
    pub r#type: String,
    #[schemars(extend("const" = "assistant"))]
    pub role: String,
    pub model: String,
    pub content: Vec<Block<'static>>,
    /// `end_turn`, `max_tokens`, `stop_sequence` or `tool_use`; null in the first event of a stream.
    pub stop_reason: Option<String>,
    pub stop_sequence: Option<String>,
    pub usage: Usage,
}

/// What came from the cache is no part of `input_tokens`.
#[derive(JsonSchema)]
#[schemars(rename = "anthropic.Usage")]
pub struct Usage {
    pub input_tokens: usize,
    pub cache_creation_input_tokens: usize,
    pub cache_read_input_tokens: usize,
    pub output_tokens: usize,
}

/// An event of a message's stream.
#[derive(JsonSchema)]
#[schemars(rename = "anthropic.Event", tag = "type", rename_all = "snake_case")]
pub enum Event {
    MessageStart { message: Message },
    ContentBlockStart { index: usize, content_block: Block<'static> },
    Ping,
    ContentBlockDelta { index: usize, delta: Piece<'static> },
    ContentBlockStop { index: usize },
    MessageDelta { delta: Stop<'static>, usage: Usage },
    MessageStop,
    Error { error: ErrorFields },
}

#[derive(JsonSchema)]
#[schemars(rename = "anthropic.TokenCount")]
pub struct TokenCount {
    pub input_tokens: usize,
}

/// All models, on one page.
#[derive(JsonSchema)]
#[schemars(rename = "anthropic.ModelList")]
pub struct ModelList {
    pub data: Vec<Model>,
    pub has_more: bool,
    pub first_id: Option<String>,
    pub last_id: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename = "anthropic.Model")]
pub struct Model {
    #[schemars(extend("const" = "model"))]
    pub r#type: String,
    pub id: String,
    pub display_name: String,
    /// When its file was last written; the beginning of 1970 where there is none.
    pub created_at: String,
    #[schemars(extend("const" = "active"))]
    pub lifecycle: String,
}
