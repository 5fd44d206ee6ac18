//! Shapes of Ollama's answers that no type of the encoders has, for the API's document.

use schemars::JsonSchema;
use serde_json::{Map, Value};

/// What is wrong.
#[derive(JsonSchema)]
#[schemars(rename = "Error")]
pub struct ErrorBody {
    pub error: String,
}

/// A tool that the model wants to be run.
#[derive(JsonSchema)]
#[schemars(rename = "ollama.ToolCall")]
pub struct Call {
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub function: CalledFunction,
}

#[derive(JsonSchema)]
#[schemars(rename = "ollama.CalledFunction")]
pub struct CalledFunction {
    pub index: usize,
    pub name: String,
    pub arguments: Map<String, Value>,
}

#[derive(JsonSchema)]
#[schemars(rename = "ollama.Version")]
pub struct Version {
    pub version: String,
}

#[derive(JsonSchema)]
#[schemars(rename = "ollama.Tags")]
pub struct Tags {
    pub models: Vec<Tag>,
}

#[derive(JsonSchema)]
#[schemars(rename = "ollama.Model")]
pub struct Tag {
    pub name: String,
    pub model: String,
    pub modified_at: String,
    /// Bytes.
    pub size: u64,
    pub digest: String,
    pub details: Details,
}

#[derive(JsonSchema)]
#[schemars(rename = "ollama.Details")]
pub struct Details {
    pub parent_model: String,
    pub format: String,
    pub family: String,
    pub families: Vec<String>,
    /// E.g. `134.52M`.
    pub parameter_size: String,
    pub quantization_level: String,
}

#[derive(JsonSchema)]
#[schemars(rename = "ollama.LoadedModels")]
pub struct LoadedModels {
    pub models: Vec<Loaded>,
}

#[derive(JsonSchema)]
#[schemars(rename = "ollama.LoadedModel")]
pub struct Loaded {
    pub name: String,
    pub model: String,
    /// Bytes.
    pub size: u64,
    pub digest: String,
    pub details: Details,
    pub expires_at: String,
    /// Bytes that GPUs hold.
    pub size_vram: u64,
    pub context_length: usize,
}

#[derive(JsonSchema)]
#[schemars(rename = "ollama.Show")]
pub struct Shown {
    pub license: String,
    pub modelfile: String,
    pub parameters: String,
    pub template: String,
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Turns that stand before each conversation.
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Value>>,
    pub details: Details,
    /// By the keys of the file's header.
    pub model_info: Map<String, Value>,
    pub capabilities: Vec<String>,
    pub modified_at: String,
}

/// How far fetching or making a model is. The last status is `success`.
#[derive(JsonSchema)]
#[schemars(rename = "ollama.Progress")]
pub struct Progress {
    pub status: String,
    /// Of the file that is fetched.
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Bytes.
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Bytes.
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub completed: Option<u64>,
}
