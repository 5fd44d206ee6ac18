//! What a runner is asked: to load a model, and to generate.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chat::{ChatOptions, Message};
use crate::constrain::Constraint;
use crate::engine::{Priority, TokenId};
use crate::placement::PlacementSpec;

use super::defaults::{GenerateDefaults, Sampling};

/// The text to continue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// As it is, without a template.
    Raw(String),
    /// Already tokenised, with whatever stands at a text's beginning.
    Tokens(Vec<TokenId>),
    /// Rendered with the model's chat template.
    Messages(Vec<Message>),
    /// A text with a gap, for models with tokens that mark one.
    Infill(Infill),
}

/// What stands around a gap in a text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Infill {
    pub before: String,
    /// Follows `before`, as tokens of its own: the beginning of the line to complete.
    pub line: String,
    pub behind: String,
    /// Other files, the most important one last.
    pub files: Vec<InfillFile>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfillFile {
    pub name: String,
    pub text: String,
}

/// A LoRA adapter as a request names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "shimmy.LoraUse")]
pub struct LoraUse {
    pub name: String,
    /// How strong its effect is; `None` takes the adapter's own scale.
    pub scale: Option<f32>,
}

/// One generation, whatever dialect asked for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerateSpec {
    pub model: String,
    pub input: Input,
    pub sampling: Sampling,
    /// `None` goes on to the end of the context, where the model has no default of its own.
    pub max_tokens: Option<u32>,
    pub stop: Vec<String>,
    pub priority: Priority,
    /// For [`Input::Messages`].
    pub chat: ChatOptions,
    /// The form that the answer must have.
    pub constraint: Option<Constraint>,
    /// Tell each token's probability, and that of so many others.
    pub logprobs: Option<u32>,
    /// Exactly these adapters, which may be none; `None` takes those that the model was loaded with.
    pub lora: Option<Vec<LoraUse>>,
}

impl GenerateSpec {
    /// With defaults for all that is not given.
    #[must_use]
    pub fn new(model: impl Into<String>, input: Input) -> Self {
        Self {
            model: model.into(),
            input,
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Vec::new(),
            priority: Priority::default(),
            chat: ChatOptions::default(),
            constraint: None,
            logprobs: None,
            lora: None,
        }
    }
}

/// Texts to turn into vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmbedSpec {
    pub model: String,
    /// [`Input::Raw`] or [`Input::Tokens`].
    pub inputs: Vec<Input>,
    /// Cut off what is beyond the context. Otherwise it is an error.
    pub truncate: bool,
    /// Keep so many components only.
    pub dimensions: Option<usize>,
}

/// One vector an input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Embeddings {
    /// Of length 1.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs.
    pub prompt_tokens: usize,
}

/// Texts to rank by how well they answer a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankSpec {
    pub model: String,
    pub query: String,
    pub documents: Vec<String>,
}

/// One score a document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ranks {
    /// Higher is better; the scale is the model's own.
    pub scores: Vec<f32>,
    /// Tokens of all pairs of the query and a document.
    pub prompt_tokens: usize,
}

/// What a model is given to go on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    pub text: String,
    pub tokens: Vec<TokenId>,
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelSource {
    Gguf {
        path: PathBuf,
    },
    /// The deterministic runner of the contract tests.
    Stub(StubSpeed),
    /// Known by its name only.
    Absent {
        /// What loading it says.
        why: String,
    },
}

/// How long the stub takes for a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StubSpeed {
    /// Slow enough for a test to act meanwhile.
    Paced,
    /// No time: what is left is what engine and server cost.
    Fast,
}

/// Number format of the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheType {
    #[default]
    F16,
    Q8_0,
    Q4_0,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlashAttention {
    /// llama.cpp decides by model and device.
    #[default]
    Auto,
    On,
    Off,
}

/// How a loaded model serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServeSpec {
    /// Sequences that run at the same time; `None` chooses by context and memory.
    pub parallel: Option<u32>,
    /// Most tokens of one sequence; `None` takes what the model was trained for, within the context.
    pub sequence_tokens: Option<u32>,
    /// All tokens that will ever be asked for at once, where that is known: a smaller cache is made faster.
    pub needed_tokens: Option<u32>,
    /// Requests that may wait.
    pub queue: usize,
    /// The same request gives the same tokens whatever else runs.
    pub deterministic: bool,
    /// Tokens to guess ahead from the text so far; 0 guesses none.
    pub lookup: usize,
    /// Tokens to guess ahead with [`LoadSpec::draft`].
    pub draft_tokens: usize,
    pub cache_type_k: CacheType,
    pub cache_type_v: CacheType,
    pub flash_attention: FlashAttention,
}

impl Default for ServeSpec {
    fn default() -> Self {
        Self {
            parallel: None,
            sequence_tokens: None,
            needed_tokens: None,
            queue: 64,
            deterministic: false,
            lookup: 0,
            draft_tokens: 8,
            cache_type_k: CacheType::F16,
            cache_type_v: CacheType::F16,
            flash_attention: FlashAttention::Auto,
        }
    }
}

/// A projector of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectorSpec {
    pub path: PathBuf,
    /// Found beside the model, and named by nobody: where it cannot be used, the model is of use without it.
    pub found: bool,
}

/// How to load a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadSpec {
    pub source: ModelSource,
    /// LoRA adapters with their scales, for requests that name none.
    pub adapters: Vec<(PathBuf, f32)>,
    /// A smaller model that guesses ahead.
    #[serde(default)]
    pub draft: Option<PathBuf>,
    /// What turns images into what the model reads (`mmproj`).
    #[serde(default)]
    pub projector: Option<ProjectorSpec>,
    /// A built-in name, a file, or a Jinja template. `None` takes the model's own.
    pub template: Option<String>,
    pub placement: PlacementSpec,
    /// Tokens; `None` takes the model's training context, within [`DEFAULT_CONTEXT`].
    pub context_tokens: Option<u32>,
    /// `None` takes the physical cores, and fewer while other programs need them.
    pub threads: Option<u32>,
    /// Name in logs and metrics.
    pub label: String,
    pub serve: ServeSpec,
    /// What requests get that leave it open.
    #[serde(default)]
    pub defaults: GenerateDefaults,
}

/// Models are trained for up to a million tokens now; reserving a cache for all of them by default would fill the memory.
pub const DEFAULT_CONTEXT: u32 = 8192;
