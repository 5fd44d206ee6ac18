//! Shapes of responses and their events, for the API's document.

use schemars::JsonSchema;
use serde_json::{Map, Value};

use crate::api::openai::shapes::Logprob;

/// An answer, and the request as far as it is told again.
#[derive(JsonSchema)]
#[schemars(rename = "openai.Response")]
pub struct Response {
    pub id: String,
    #[schemars(extend("const" = "response"))]
    pub object: String,
    /// Seconds since 1970.
    pub created_at: u64,
    pub completed_at: Option<u64>,
    pub status: Status,
    pub background: bool,
    pub error: Option<ResponseError>,
    pub incomplete_details: Option<IncompleteDetails>,
    pub model: String,
    pub output: Vec<OutputItem>,
    pub instructions: Option<String>,
    pub max_output_tokens: Option<u32>,
    pub metadata: Map<String, Value>,
    pub parallel_tool_calls: bool,
    pub previous_response_id: Option<String>,
    pub reasoning: ReasoningTold,
    pub store: bool,
    pub temperature: f64,
    pub text: Map<String, Value>,
    /// As it was asked for.
    pub tool_choice: Value,
    pub tools: Vec<Value>,
    pub top_logprobs: u32,
    pub top_p: f64,
    pub truncation: String,
    pub usage: Option<ResponseUsage>,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.ResponseStatus", rename_all = "snake_case")]
pub enum Status {
    InProgress,
    Completed,
    Incomplete,
    Failed,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.ResponseError")]
pub struct ResponseError {
    pub code: String,
    pub message: String,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.IncompleteDetails")]
pub struct IncompleteDetails {
    #[schemars(extend("const" = "max_output_tokens"))]
    pub reason: String,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.ReasoningTold")]
pub struct ReasoningTold {
    pub effort: Option<String>,
    pub summary: (),
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.ResponseUsage")]
pub struct ResponseUsage {
    pub input_tokens: u32,
    pub input_tokens_details: InputTokensDetails,
    pub output_tokens: u32,
    pub output_tokens_details: OutputTokensDetails,
    pub total_tokens: u32,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.InputTokensDetails")]
pub struct InputTokensDetails {
    /// Those that needed no computing.
    pub cached_tokens: u32,
    pub cache_write_tokens: u32,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.OutputTokensDetails")]
pub struct OutputTokensDetails {
    pub reasoning_tokens: u32,
}

/// What the model put out.
#[derive(JsonSchema)]
#[schemars(rename = "openai.OutputItem", tag = "type", rename_all = "snake_case")]
pub enum OutputItem {
    Reasoning {
        id: String,
        status: Status,
        #[schemars(length(max = 0))]
        summary: Vec<Value>,
        content: Vec<OutputPart>,
    },
    Message {
        id: String,
        status: Status,
        #[schemars(extend("const" = "assistant"))]
        role: String,
        content: Vec<OutputPart>,
    },
    FunctionCall {
        id: String,
        status: Status,
        call_id: String,
        name: String,
        arguments: String,
    },
    CustomToolCall {
        id: String,
        status: Status,
        call_id: String,
        name: String,
        input: String,
    },
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.OutputPart", tag = "type", rename_all = "snake_case")]
pub enum OutputPart {
    ReasoningText {
        text: String,
    },
    OutputText {
        #[schemars(length(max = 0))]
        annotations: Vec<Value>,
        logprobs: Vec<Logprob>,
        text: String,
    },
}

/// An event of a response's stream.
#[derive(JsonSchema)]
#[schemars(rename = "openai.ResponseEvent")]
pub struct ResponseEvent {
    pub sequence_number: u64,
    #[schemars(flatten)]
    pub event: Event,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.ResponseEventKind", tag = "type")]
pub enum Event {
    #[schemars(rename = "response.created")]
    Created { response: Response },
    #[schemars(rename = "response.in_progress")]
    InProgress { response: Response },
    #[schemars(rename = "response.completed")]
    Completed { response: Response },
    #[schemars(rename = "response.incomplete")]
    Incomplete { response: Response },
    #[schemars(rename = "response.failed")]
    Failed { response: Response },
    #[schemars(rename = "response.output_item.added")]
    ItemAdded { output_index: usize, item: OutputItem },
    #[schemars(rename = "response.output_item.done")]
    ItemDone { output_index: usize, item: OutputItem },
    #[schemars(rename = "response.content_part.added")]
    PartAdded { item_id: String, output_index: usize, content_index: usize, part: OutputPart },
    #[schemars(rename = "response.content_part.done")]
    PartDone { item_id: String, output_index: usize, content_index: usize, part: OutputPart },
    #[schemars(rename = "response.output_text.delta")]
    TextDelta { item_id: String, output_index: usize, content_index: usize, delta: String, logprobs: Vec<Logprob> },
    #[schemars(rename = "response.output_text.done")]
    TextDone { item_id: String, output_index: usize, content_index: usize, text: String, logprobs: Vec<Logprob> },
    #[schemars(rename = "response.reasoning_text.delta")]
    ReasoningDelta { item_id: String, output_index: usize, content_index: usize, delta: String },
    #[schemars(rename = "response.reasoning_text.done")]
    ReasoningDone { item_id: String, output_index: usize, content_index: usize, text: String },
    #[schemars(rename = "response.function_call_arguments.delta")]
    ArgumentsDelta { item_id: String, output_index: usize, delta: String },
    #[schemars(rename = "response.function_call_arguments.done")]
    ArgumentsDone { item_id: String, output_index: usize, arguments: String },
    #[schemars(rename = "response.custom_tool_call_input.delta")]
    InputDelta { item_id: String, output_index: usize, delta: String },
    #[schemars(rename = "response.custom_tool_call_input.done")]
    InputDone { item_id: String, output_index: usize, input: String },
}

/// What a kept response was an answer to, as it was sent.
#[derive(JsonSchema)]
#[schemars(rename = "openai.InputItemList")]
pub struct InputItemList {
    #[schemars(extend("const" = "list"))]
    pub object: String,
    pub first_id: Option<String>,
    pub last_id: Option<String>,
    pub has_more: bool,
    pub data: Vec<Map<String, Value>>,
}

#[derive(JsonSchema)]
#[schemars(rename = "openai.DeletedResponse")]
pub struct DeletedResponse {
    pub id: String,
    #[schemars(extend("const" = "response"))]
    pub object: String,
    pub deleted: bool,
}
