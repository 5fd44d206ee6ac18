//! Shapes of OpenAI's answers, for the API's document. The encoders beside write the bytes; `tests/it/openapi.rs` holds
//! what they write against these.

use std::collections::HashMap;

use schemars::JsonSchema;

use crate::engine::Timings;

/// What is wrong.
#[derive(JsonSchema)]
#[schemars(rename = "openai.Error")]
pub struct ErrorBody {
    pub error: ErrorFields,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.ErrorFields")]
pub struct ErrorFields {
    pub message: String,
    pub r#type: ErrorType,
    /// The field that is wrong, where clients look for it.
    pub param: Option<String>,
    pub code: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.ErrorType", rename_all = "snake_case")]
pub enum ErrorType {
    InvalidRequestError,
    ServerError,
}

/// Tokens of all answers to a request.
#[derive(JsonSchema)]
#[schemars(rename = "openai.Usage")]
pub struct Usage {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    pub total_tokens: u32,
    pub prompt_tokens_details: PromptTokensDetails,
    pub completion_tokens_details: CompletionTokensDetails,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.CompletionTokensDetails")]
pub struct CompletionTokensDetails {
    /// Those of thoughts.
    pub reasoning_tokens: u32,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.PromptTokensDetails")]
pub struct PromptTokensDetails {
    /// Those that needed no computing.
    pub cached_tokens: u32,
}

/// The answer to a conversation.
#[derive(JsonSchema)]
#[schemars(rename = "openai.ChatCompletion")]
pub struct ChatCompletion {
    pub id: String,
    #[schemars(extend("const" = "chat.completion"))]
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    pub model: String,
    /// Stands for the program that computes.
    pub system_fingerprint: String,
    pub choices: Vec<ChatChoice>,
    pub usage: Usage,
    /// Of the first choice.
    pub timings: Timings,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.ChatChoice")]
pub struct ChatChoice {
    pub index: usize,
    pub message: ChatMessage,
    pub logprobs: Option<ChatLogprobs>,
    pub finish_reason: ChatFinish,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.ChatFinish", rename_all = "snake_case")]
pub enum ChatFinish {
    Stop,
    Length,
    ToolCalls,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.ChatMessage")]
pub struct ChatMessage {
    #[schemars(extend("const" = "assistant"))]
    pub role: String,
    /// Null beside tool calls.
    pub content: Option<String>,
    /// Always null: models here do not tell refusals from other text.
    pub refusal: (),
    /// What the model thought.
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    #[schemars(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// A tool that the model wants to be run.
#[derive(JsonSchema)]
#[schemars(rename = "openai.ToolCall", tag = "type", rename_all = "lowercase")]
pub enum ToolCall {
    Function { id: String, function: CalledFunction },
    Custom { id: String, custom: CalledCustom },
}

/// A custom tool, which takes a text.
#[derive(JsonSchema)]
#[schemars(rename = "openai.CalledCustom")]
pub struct CalledCustom {
    pub name: String,
    pub input: String,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.CalledFunction")]
pub struct CalledFunction {
    pub name: String,
    /// The text of a JSON object.
    pub arguments: String,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.ChatLogprobs")]
pub struct ChatLogprobs {
    pub content: Vec<Logprob>,
    pub refusal: (),
}

/// How likely a token was.
#[derive(JsonSchema)]
#[schemars(rename = "openai.Logprob")]
pub struct Logprob {
    #[schemars(flatten)]
    pub taken: TokenLogprob,
    /// The most likely ones in its place.
    pub top_logprobs: Vec<TokenLogprob>,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.TokenLogprob")]
pub struct TokenLogprob {
    pub token: String,
    pub logprob: f32,
    /// What it stands for; not always whole characters.
    pub bytes: Vec<u8>,
}

/// Prompts with what follows on them.
#[derive(JsonSchema)]
#[schemars(rename = "openai.Completion")]
pub struct Completion {
    #[schemars(flatten)]
    pub head: CompletionHead,
    pub choices: Vec<TextChoice<CompletionFinish>>,
    pub usage: Usage,
    /// Of the first choice.
    pub timings: Timings,
}

/// A piece of a completion.
#[derive(JsonSchema)]
#[schemars(rename = "openai.CompletionChunk")]
pub struct CompletionChunk {
    #[schemars(flatten)]
    pub head: CompletionHead,
    pub choices: Vec<TextChoice<Option<CompletionFinish>>>,
    /// In all chunks where it is asked for, null but in the last.
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.CompletionHead")]
pub struct CompletionHead {
    pub id: String,
    #[schemars(extend("const" = "text_completion"))]
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    pub model: String,
    /// Stands for the program that computes.
    pub system_fingerprint: String,
}

#[derive(JsonSchema)]
#[schemars(inline)]
pub struct TextChoice<F> {
    pub index: usize,
    pub text: String,
    pub logprobs: Option<TextLogprobs>,
    pub finish_reason: F,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.CompletionFinish", rename_all = "snake_case")]
pub enum CompletionFinish {
    Stop,
    Length,
}

/// Lists side by side, an entry a token.
#[derive(JsonSchema)]
#[schemars(rename = "openai.TextLogprobs")]
pub struct TextLogprobs {
    pub tokens: Vec<String>,
    pub token_logprobs: Vec<f32>,
    /// Null where none were asked for.
    pub top_logprobs: Option<Vec<HashMap<String, f32>>>,
    /// In characters.
    pub text_offset: Vec<usize>,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.EmbeddingList")]
pub struct EmbeddingList {
    #[schemars(extend("const" = "list"))]
    pub object: String,
    pub data: Vec<Embedding>,
    pub model: String,
    pub usage: EmbeddingUsage,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.Embedding")]
pub struct Embedding {
    #[schemars(extend("const" = "embedding"))]
    pub object: String,
    pub index: usize,
    pub embedding: Vector,
}

/// Numbers, or the bytes of little-endian 32-bit floats in Base64.
#[derive(JsonSchema)]
#[schemars(rename = "openai.Vector", untagged)]
pub enum Vector {
    Numbers(Vec<f32>),
    Base64(String),
}

/// Texts, the best first.
#[derive(JsonSchema)]
#[schemars(rename = "openai.Reranked")]
pub struct Reranked {
    #[schemars(extend("const" = "list"))]
    pub object: String,
    pub model: String,
    pub results: Vec<RerankResult>,
    pub usage: EmbeddingUsage,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.RerankResult")]
pub struct RerankResult {
    /// Of the text among those that were sent.
    pub index: usize,
    /// As the model gives it: not within 0 and 1 for all models.
    pub relevance_score: f32,
    /// Where it is asked for.
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub document: Option<RerankedText>,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.RerankedText")]
pub struct RerankedText {
    pub text: String,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.EmbeddingUsage")]
pub struct EmbeddingUsage {
    pub prompt_tokens: usize,
    pub total_tokens: usize,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.ModelList")]
pub struct ModelList {
    #[schemars(extend("const" = "list"))]
    pub object: String,
    pub data: Vec<Model>,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.Model")]
pub struct Model {
    pub id: String,
    #[schemars(extend("const" = "model"))]
    pub object: String,
    /// When its file was last written, in seconds since 1970; 0 where there is none.
    pub created: u64,
    pub owned_by: String,
}
