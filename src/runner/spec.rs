//! What a runner is asked: to load a model, and to generate.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::chat::Message;
use crate::engine::SamplingParams;
use crate::placement::GpuBackend;

/// The text to continue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// As it is, without a template.
    Raw(String),
    /// Rendered with the model's chat template.
    Messages(Vec<Message>),
}

/// One generation, whatever dialect asked for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerateSpec {
    pub model: String,
    pub input: Input,
    pub sampling: SamplingParams,
    /// `None` goes on to the end of the context.
    pub max_tokens: Option<u32>,
    pub stop: Vec<String>,
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelSource {
    Gguf {
        path: PathBuf,
    },
    /// The deterministic runner of the contract tests.
    Stub,
}

/// How to load a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadSpec {
    pub source: ModelSource,
    /// LoRA adapters with their scales.
    pub adapters: Vec<(PathBuf, f32)>,
    /// A built-in name, a file, or a Jinja template. `None` takes the model's own.
    pub template: Option<String>,
    pub gpu_backend: GpuBackend,
    /// Tokens; `None` takes the model's training context, within [`DEFAULT_CONTEXT`].
    pub context_tokens: Option<u32>,
    pub threads: Option<u32>,
    /// Requests that may wait.
    pub queue: usize,
}

/// Models are trained for up to a million tokens now; reserving a cache for all of them by default would fill the memory.
pub const DEFAULT_CONTEXT: u32 = 8192;
