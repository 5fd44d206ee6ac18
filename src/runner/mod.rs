//! Runs one model: a [`GenerateSpec`] goes in, a stream of [`Delta`]s comes out. Which dialect asked is unknown here.
//!
//! Everything that crosses is plain serde data, so the same stream can cross a pipe to a child process.

mod adapters;
mod defaults;
mod delta;
#[cfg(feature = "llama")]
mod draft;
mod error;
#[cfg(all(test, feature = "llama"))]
mod families;
#[cfg(any(test, feature = "stub", feature = "llama"))]
mod forms;
mod free;
#[cfg(any(test, feature = "stub", feature = "llama"))]
mod infill;
#[cfg(feature = "llama")]
mod layout;
#[cfg(feature = "llama")]
mod local;
#[cfg(feature = "llama")]
mod offload;
#[cfg(feature = "llama")]
mod output;
#[cfg(feature = "llama")]
mod plan;
#[cfg(feature = "llama")]
mod prompt;
#[cfg(feature = "llama")]
mod prompt_images;
mod rank;
#[cfg(feature = "llama")]
mod sight;
mod spec;
#[cfg(any(test, feature = "stub"))]
mod stub;
#[cfg(any(test, feature = "stub"))]
mod stub_parser;

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::engine::{Measure, TokenId};
pub use adapters::{adapter_name, adapter_names, listed};
pub use defaults::{GenerateDefaults, Sampling, check_stops, ollama};
pub use delta::{Answer, Delta, DeltaStream, ToolCallDelta};
pub use error::{LoadError, RunnerError};
pub use free::free_memory;
#[cfg(feature = "llama")]
pub use local::LocalRunner;
#[cfg(feature = "llama")]
pub use offload::offload_for;
pub use spec::{
    CacheType, DEFAULT_CONTEXT, EmbedSpec, Embeddings, FlashAttention, GenerateSpec, Infill, InfillFile, Input,
    LoadSpec, LoraUse, ModelSource, ProjectorSpec, Prompt, RankSpec, Ranks, ServeSpec, StubSpeed,
};
#[cfg(any(test, feature = "stub"))]
pub use stub::StubRunner;

use crate::placement::{Bytes, Limit, MemoryPlan, PlacementReport};

/// A loaded model.
pub trait Runner: Send + Sync + Debug {
    /// Queues a generation. Renders and tokenises the prompt first, so call it off the async threads.
    ///
    /// # Errors
    /// What is wrong with the request, or that the queue is full.
    fn generate(&self, spec: &GenerateSpec) -> Result<DeltaStream, RunnerError> {
        let streams = self.generate_several(std::slice::from_ref(spec), 1, &|| true)?;
        streams.into_iter().next().ok_or_else(|| RunnerError::Failed("no generation was begun".into()))
    }

    /// Queues `answers` generations for each of `specs`, in this order, all of them or none. Each prompt is rendered and
    /// tokenised once. The answers to a prompt with a seed have that seed, the one after it, and so on. It gives up where
    /// nobody `waits` while it looks at images, which takes long.
    ///
    /// # Errors
    /// As [`Runner::generate`], or that the queue could never hold so many.
    fn generate_several(
        &self,
        specs: &[GenerateSpec],
        answers: u32,
        waits: Waits<'_>,
    ) -> Result<Vec<DeltaStream>, RunnerError>;

    /// What [`Runner::generate`] would begin from: the rendered template and its tokens.
    ///
    /// # Errors
    /// What is wrong with the messages.
    fn prompt(&self, spec: &GenerateSpec) -> Result<Prompt, RunnerError>;

    /// The tokens of a text. `add_special` puts in front what a prompt begins with; `parse_special` reads the names of
    /// control tokens in the text as those tokens.
    ///
    /// # Errors
    /// A text that is too long.
    fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<TokenId>, RunnerError>;

    /// The bytes that tokens stand for, one entry a token; not always whole characters.
    ///
    /// # Errors
    /// A token that the model does not have.
    fn pieces(&self, tokens: &[TokenId]) -> Result<Vec<Vec<u8>>, RunnerError>;

    /// Turns texts into vectors. Blocks until all are done.
    ///
    /// # Errors
    /// A model that cannot embed; a text that is empty or too long.
    fn embed(&self, spec: &EmbedSpec) -> Result<Embeddings, RunnerError>;

    /// Scores texts by how well they answer a query. Blocks until all are done.
    ///
    /// # Errors
    /// A model that cannot rank; a text that is too long.
    fn rank(&self, spec: &RankSpec) -> Result<Ranks, RunnerError>;

    /// Loads a LoRA adapter while the model serves, in place of the one that has this name. `again` reads a file that is
    /// loaded already once more. Generations that run go on with what they began with.
    ///
    /// # Errors
    /// What is wrong with the file.
    fn load_adapter(&self, name: &str, path: &Path, again: bool) -> Result<(), LoadError>;

    /// Forgets an adapter; its memory is free when the last generation with it has ended. Returns whether there was one.
    fn unload_adapter(&self, name: &str) -> bool;

    /// Where the adapter of this name was loaded from, if it is loaded.
    fn adapter(&self, name: &str) -> Option<PathBuf>;

    /// What the adapter in this file would take on each device.
    ///
    /// # Errors
    /// A file that is no adapter.
    fn adapter_need(&self, path: &Path) -> Result<Bytes, LoadError>;

    /// What all loaded adapters hold on each device, beside what [`RunnerInfo::placement`] counts.
    fn adapters_held(&self) -> Bytes;

    /// What was loaded.
    fn info(&self) -> &RunnerInfo;

    /// What requests get that leave it open.
    fn defaults(&self) -> &GenerateDefaults;

    /// Speed without the server around it. See [`crate::engine`]'s `measure`.
    ///
    /// # Errors
    /// What the model failed with.
    fn measure(&self, what: Measure) -> Result<f64, RunnerError>;
}

/// Facts about a loaded model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunnerInfo {
    /// What llama.cpp calls it, e.g. `llama 256M Q4_1`.
    pub description: String,
    pub size_bytes: u64,
    pub parameters: u64,
    /// Tokens that one sequence can hold.
    pub context_tokens: usize,
    /// Sequences that run at the same time.
    pub parallel: usize,
    pub threads: u32,
    /// `jinja`, the name of a built-in template, or `none`.
    pub template: String,
    /// Paths of the LoRA adapters that the model was loaded with, with their scales.
    pub adapters: Vec<(String, f32)>,
    /// The file of the model that guesses ahead for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<String>,
    /// The file of what turns images into what it reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projector: Option<String>,
    pub placement: PlacementReport,
    pub load_ms: f64,
}

/// What a model answers to images that looks at none.
#[cfg(any(test, feature = "stub", feature = "llama"))]
fn sees_nothing(why: &str) -> RunnerError {
    RunnerError::BadRequest(format!("this model takes no images: {why}"))
}

/// Hears the loaded fraction, 0.0 to 1.0; `false` cancels.
pub type Progress<'a> = &'a mut dyn FnMut(f32) -> bool;

/// Tells whether somebody still waits for an answer.
pub type Waits<'a> = &'a dyn Fn() -> bool;

/// Tells the recorder of metrics what each of a model's means. Call once, after it is installed.
pub fn describe_metrics() {
    crate::engine::describe_metrics();
    #[cfg(feature = "llama")]
    sight::describe_metrics();
}

/// Loads a model. Blocks for as long as that takes. What `--gpu-layers auto` puts on a device stays within `limit`.
///
/// # Errors
/// What is wrong with the file, the adapter, the template or the asked placement.
pub fn load(
    spec: &LoadSpec,
    limit: Limit<'_>,
    progress: Progress<'_>,
) -> Result<std::sync::Arc<dyn Runner>, LoadError> {
    #[cfg(not(feature = "llama"))]
    let _ = limit;
    match &spec.source {
        #[cfg(any(test, feature = "stub"))]
        ModelSource::Stub(speed) => {
            progress(1.0);
            Ok(std::sync::Arc::new(StubRunner::new(*speed, spec.defaults.clone())?))
        }
        #[cfg(not(any(test, feature = "stub")))]
        ModelSource::Stub(_) => Err(LoadError::NotBuilt { feature: "stub" }),
        ModelSource::Absent { why } => Err(LoadError::Failed(why.clone())),
        #[cfg(feature = "llama")]
        ModelSource::Gguf { path } => Ok(std::sync::Arc::new(LocalRunner::load(path, spec, limit, progress)?)),
        #[cfg(not(feature = "llama"))]
        ModelSource::Gguf { .. } => Err(LoadError::NotBuilt { feature: "llama" }),
    }
}

/// What a load would take on each device, without loading.
///
/// # Errors
/// As [`load`].
pub fn plan(spec: &LoadSpec, limit: Limit<'_>) -> Result<MemoryPlan, LoadError> {
    #[cfg(not(feature = "llama"))]
    let _ = limit;
    match &spec.source {
        #[cfg(any(test, feature = "stub"))]
        ModelSource::Stub(speed) => Ok(StubRunner::plan(*speed, &spec.adapters)),
        #[cfg(not(any(test, feature = "stub")))]
        ModelSource::Stub(_) => Err(LoadError::NotBuilt { feature: "stub" }),
        ModelSource::Absent { why } => Err(LoadError::Failed(why.clone())),
        #[cfg(feature = "llama")]
        ModelSource::Gguf { path } => plan::plan(path, spec, limit),
        #[cfg(not(feature = "llama"))]
        ModelSource::Gguf { .. } => Err(LoadError::NotBuilt { feature: "llama" }),
    }
}
