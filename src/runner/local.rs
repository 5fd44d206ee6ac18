//! A model in this process, through llama.cpp.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::chat::TemplateChoice;
use crate::engine::{EngineConfig, EngineHandle, default_threads, measure};
use crate::llama::{Adapter, Backend, ContextParams, LlamaError, Model, ModelParams, Offload, Vocab};
use crate::placement::{self, PlacementError, PlacementReport};

use super::delta::DeltaStream;
use super::error::{LoadError, RunnerError};
use super::spec::{DEFAULT_CONTEXT, GenerateSpec, Input, LoadSpec};
use super::{Measure, Progress, Runner, RunnerInfo};

#[derive(Debug)]
pub struct LocalRunner {
    // Dropped first: the engine's thread ends before the model is let go.
    engine: EngineHandle,
    vocab: Vocab,
    template: TemplateChoice,
    info: RunnerInfo,
}

impl LocalRunner {
    /// Loads a model and starts its engine.
    ///
    /// # Errors
    /// See [`super::load`].
    pub fn load(path: &Path, spec: &LoadSpec, progress: Progress<'_>) -> Result<Self, LoadError> {
        let start = Instant::now();
        let backend = Backend::init().map_err(|e| PlacementError::Backend(e.to_string()))?;
        let offload = placement::select(backend, spec.gpu_backend)?;
        let params = ModelParams { offload: offload.clone(), ..ModelParams::default() };
        let model = Model::load(backend, path, &params, progress).map_err(load_error)?;
        let vocab = model.vocab().map_err(load_error)?;
        let template = TemplateChoice::new(&model, spec.template.as_deref()).map_err(LoadError::Failed)?;
        let adapters = load_adapters(&model, &spec.adapters)?;

        let threads = spec.threads.unwrap_or_else(default_threads);
        let n_ctx = context_tokens(&model, spec.context_tokens)?;
        let config = EngineConfig {
            context: ContextParams { n_ctx, n_threads: threads, n_threads_batch: threads, ..ContextParams::default() },
            queue: spec.queue,
        };
        let engine = EngineHandle::start(&model, adapters, &config).map_err(load_error)?;
        let placement = placement_report(&offload, model.n_layer());
        tracing::info!(model = %path.display(), %placement, context = engine.n_ctx(), threads, "model loaded");
        let info = RunnerInfo {
            description: model.description(),
            size_bytes: model.size(),
            parameters: model.n_params(),
            context_tokens: engine.n_ctx(),
            threads,
            template: template.name().to_owned(),
            adapters: spec.adapters.iter().map(|(path, scale)| (path.display().to_string(), *scale)).collect(),
            placement,
            load_ms: start.elapsed().as_secs_f64() * 1e3,
        };
        Ok(Self { engine, vocab, template, info })
    }
}

impl Runner for LocalRunner {
    fn generate(&self, spec: &GenerateSpec) -> Result<DeltaStream, RunnerError> {
        let mut stop = spec.stop.clone();
        let text = match &spec.input {
            Input::Raw(text) => text.clone(),
            Input::Messages(messages) => {
                let prompt = self.template.render(messages).map_err(|e| RunnerError::BadRequest(e.to_string()))?;
                stop.extend(prompt.stops);
                prompt.text
            }
        };
        // The template leaves BOS and EOS to the tokeniser.
        let tokens = self.vocab.tokenize(&text, true, true).map_err(|e| match e {
            LlamaError::TextTooLong { .. } => RunnerError::BadRequest(e.to_string()),
            e => RunnerError::Failed(e.to_string()),
        })?;
        let events = self.engine.submit(tokens, spec.sampling.clone(), stop, spec.max_tokens)?;
        Ok(DeltaStream::new(events))
    }

    fn info(&self) -> &RunnerInfo {
        &self.info
    }

    fn measure(&self, what: Measure) -> Result<f64, RunnerError> {
        let (Measure::Prompt(n) | Measure::Generation(n)) = what;
        if n == 0 || n > self.engine.n_ctx() {
            return Err(RunnerError::BadRequest(format!("{n} tokens do not fit a context of {}", self.engine.n_ctx())));
        }
        let speed = self.engine.with_context(move |context| {
            let result = match what {
                Measure::Prompt(n) => measure::prompt_speed(context, n),
                Measure::Generation(n) => measure::generation_speed(context, n),
            };
            context.kv().clear().and(result)
        })?;
        speed.map_err(|e| RunnerError::Failed(e.to_string()))
    }
}

fn load_adapters(model: &Model, specs: &[(PathBuf, f32)]) -> Result<Vec<(Adapter, f32)>, LoadError> {
    specs.iter().map(|(path, scale)| Ok((Adapter::load(model, path).map_err(load_error)?, *scale))).collect()
}

fn context_tokens(model: &Model, asked: Option<u32>) -> Result<u32, LoadError> {
    let trained = model.n_ctx_train().max(1);
    match asked {
        None => Ok(trained.min(DEFAULT_CONTEXT)),
        Some(0) => Err(LoadError::Failed("--ctx-size 0: it must be at least 1".into())),
        Some(n) => {
            if n > trained {
                tracing::warn!(
                    asked = n,
                    trained,
                    "the context is longer than the model was trained for; expect nonsense far in"
                );
            }
            Ok(n)
        }
    }
}

fn placement_report(offload: &Offload, total_layers: u32) -> PlacementReport {
    match offload {
        Offload::Cpu => PlacementReport { backend: "cpu".into(), devices: Vec::new(), gpu_layers: 0, total_layers },
        Offload::Devices { devices, layers } => PlacementReport {
            backend: devices.first().map(|device| device.backend.to_lowercase()).unwrap_or_default(),
            devices: devices.iter().map(|device| device.description.clone()).collect(),
            gpu_layers: layers.unwrap_or(total_layers).min(total_layers),
            total_layers,
        },
    }
}

fn load_error(error: LlamaError) -> LoadError {
    match error {
        LlamaError::LoadCancelled(_) => LoadError::Cancelled,
        error => LoadError::Failed(error.to_string()),
    }
}
