//! A model in this process, through llama.cpp.

use std::iter::repeat_n;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::chat::TemplateChoice;
use crate::engine::{AdapterSet, Embedder, EngineAdapter, EngineConfig, EngineHandle, Job, default_threads};
use crate::gguf;
use crate::llama::{Adapter, Backend, LlamaError, Model, ModelParams, Pooling};
use crate::placement::{self, Bytes, Choice, Inventory, Limit, PlacementError, PlacementReport};

use super::adapters::{Adapters, adapter_names};
use super::defaults::GenerateDefaults;
use super::delta::{DeltaStream, parsers_for};
use super::draft::Draft;
use super::error::{LoadError, RunnerError};
use super::layout::Layout;
use super::offload;
use super::plan;
use super::prompt::{Prepared, Prompts};
use super::rank;
use super::sight::Sight;
use super::spec::{EmbedSpec, Embeddings, GenerateSpec, Input, LoadSpec, LoraUse, Prompt, RankSpec, Ranks};
use super::{Measure, Progress, Runner, RunnerInfo, TokenId, Waits};

#[derive(Debug)]
pub struct LocalRunner {
    // Dropped first: the engine's thread ends before the model is let go.
    engine: EngineHandle,
    prompts: Prompts,
    /// For models that were made for it, or to rank: those pool a pair of texts to a score.
    embedder: Option<Embedder>,
    ranks: bool,
    writes: bool,
    defaults: GenerateDefaults,
    adapters: Adapters,
    /// For requests that name no adapters.
    usual: Vec<LoraUse>,
    model: Model,
    info: RunnerInfo,
}

static GPU_LOADS: Mutex<()> = Mutex::new(());

impl LocalRunner {
    /// Loads a model and starts its engine.
    ///
    /// # Errors
    /// See [`super::load`].
    pub fn load(path: &Path, spec: &LoadSpec, limit: Limit<'_>, progress: Progress<'_>) -> Result<Self, LoadError> {
        let start = Instant::now();
        let backend = Backend::init().map_err(|e| PlacementError::Backend(e.to_string()))?;
        let (choice, loading) = place(backend, path, spec, limit)?;
        let params =
            ModelParams { offload: offload::offload(backend, &choice).map_err(load_error)?, ..ModelParams::default() };
        let model = Model::load(backend, path, &params, progress).map_err(load_error)?;
        let vocab = model.vocab().map_err(load_error)?;
        let template = TemplateChoice::new(&model, spec.template.as_deref()).map_err(LoadError::Failed)?;
        let (adapters, usual) = load_adapters(&model, &spec.adapters)?;
        let usual_set = adapters.set(&usual).map_err(|e| LoadError::Failed(e.to_string()))?;

        let draft = Draft::load(backend, spec, &model, &choice, false)?;

        let threads = spec.threads.unwrap_or_else(default_threads);
        let layout = Layout::new(&model, spec)?;
        let sight = see(backend, spec, &model, &choice, threads, layout.n_ctx_seq)?;
        if layout.n_ctx_seq > model.n_ctx_train().max(1) {
            tracing::warn!(
                asked = layout.n_ctx_seq,
                trained = model.n_ctx_train(),
                "a request may be longer than the model was trained for; expect nonsense far in"
            );
        }
        let context = layout.context(threads, spec);
        let pooling = model.pooling();
        let config = engine_config(spec, &layout, threads, pooling.is_none());
        let drafting = draft.as_ref().map(|draft| &draft.model);
        let (engine, memory) =
            EngineHandle::start_llama(&model, drafting, usual_set.clone(), context, layout.n_ctx_seq, config)
                .map_err(load_error)?;
        drop(loading);
        let mut placement = placement::verify(&choice, &offload::actual(&model, memory.model).map_err(load_error)?)?;
        if let Some(draft) = &draft {
            placement.add_draft(&draft.place(memory.draft)?.held());
        }
        let sight = sight.inspect(|(_, bytes)| placement.add_projector(bytes)).map(|(sight, _)| sight);
        log_devices(&placement);
        tracing::info!(
            model = %path.display(),
            %placement,
            why = placement.why,
            context = engine.n_ctx(),
            parallel = layout.parallel,
            threads,
            "model loaded"
        );
        let (ranks, writes) = (pooling == Some(Pooling::Rank), memory.kept && model.is_causal());
        let embedder =
            pooling.is_some().then(|| Embedder::new(&model, usual_set.weights(), layout.embedding(threads, spec)));

        let info = RunnerInfo {
            description: model.description(),
            size_bytes: model.size(),
            parameters: model.n_params(),
            context_tokens: engine.n_ctx(),
            parallel: layout.parallel as usize,
            threads,
            template: template.name().to_owned(),
            adapters: spec.adapters.iter().map(|(path, scale)| (path.display().to_string(), *scale)).collect(),
            draft: draft.map(|draft| draft.path.display().to_string()),
            projector: sight.as_ref().ok().map(|sight| sight.path().display().to_string()),
            placement,
            load_ms: start.elapsed().as_secs_f64() * 1e3,
        };
        let (prompts, defaults) =
            (Prompts::new(vocab, template, sight, [engine.n_ctx(), engine.n_batch()]), spec.defaults.clone());
        Ok(Self { engine, prompts, embedder, ranks, writes, defaults, adapters, usual, model, info })
    }

    fn must_write(&self) -> Result<(), RunnerError> {
        if self.writes {
            return Ok(());
        }
        let made_for = match (&self.embedder, self.ranks) {
            (_, true) => "it was made for /v1/rerank",
            (Some(_), false) => "it was made for /v1/embeddings",
            (None, false) => "its file names no way to sum one up, either",
        };
        Err(RunnerError::BadRequest(format!("this model writes no texts; {made_for}")))
    }

    /// What a request is computed with.
    fn adapters_for(&self, lora: Option<&[LoraUse]>) -> Result<AdapterSet, RunnerError> {
        match lora {
            Some(named) => self.adapters.set(named),
            None => {
                let loaded = self.usual.iter().filter(|usual| self.adapters.path_of(&usual.name).is_some());
                self.adapters.set(&loaded.cloned().collect::<Vec<_>>())
            }
        }
    }
}

/// The model's projector, or why it has none.
fn see(
    backend: Backend,
    spec: &LoadSpec,
    model: &Model,
    choice: &Choice,
    threads: u32,
    n_ctx: u32,
) -> Result<Result<(Sight, Bytes), String>, LoadError> {
    let Some(projector) = &spec.projector else {
        return Ok(Err("no projector (mmproj) that could be used lies beside it, or the settings want none".into()));
    };
    match Sight::load(backend, &projector.path, model, choice, threads, n_ctx, &spec.label) {
        Ok(found) => Ok(Ok(found)),
        Err(error) if projector.found => {
            tracing::warn!(%error, "the model takes no images, as its projector cannot be used");
            Ok(Err(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// `writes`: it answers with texts, which come out of the engine.
fn engine_config(spec: &LoadSpec, layout: &Layout, threads: u32, writes: bool) -> EngineConfig {
    EngineConfig {
        label: spec.label.clone(),
        parallel: layout.parallel as usize,
        queue: spec.serve.queue,
        threads,
        // A number that was asked for is kept.
        adaptive_threads: spec.threads.is_none() && !spec.serve.deterministic,
        deterministic: spec.serve.deterministic,
        lookup: spec.serve.lookup,
        draft: spec.serve.draft_tokens,
        // For one stream alone there is nothing to choose.
        warm_up: layout.parallel > 1 && writes,
    }
}

fn log_devices(placement: &PlacementReport) {
    for device in &placement.devices {
        tracing::debug!(
            device = device.name,
            layers = device.layers,
            weights_mb = device.weights_bytes >> 20,
            context_mb = device.context_bytes >> 20,
            compute_mb = device.compute_bytes >> 20,
            "placed"
        );
    }
}

/// Chooses where the model goes. While it loads onto a GPU no other one does: both would count on the memory that is free
/// before either.
fn place(
    backend: Backend,
    path: &Path,
    spec: &LoadSpec,
    limit: Limit<'_>,
) -> Result<(Choice, Option<MutexGuard<'static, ()>>), LoadError> {
    let look = || Inventory::of(backend).map_err(|e| PlacementError::Backend(e.to_string()));
    let choice = placement::choose(&look()?, &spec.placement)?;
    if choice.devices.is_empty() {
        return Ok((choice, None));
    }
    let loading = GPU_LOADS.lock().unwrap_or_else(PoisonError::into_inner);
    let inventory = look()?;
    let mut choice = placement::choose(&inventory, &spec.placement)?;
    plan::settle(backend, path, &inventory, &mut choice, spec, limit)?;
    Ok((choice, Some(loading)))
}

impl Runner for LocalRunner {
    fn generate_several(
        &self,
        specs: &[GenerateSpec],
        answers: u32,
        waits: Waits<'_>,
    ) -> Result<Vec<DeltaStream>, RunnerError> {
        self.must_write()?;
        self.engine.can_hold(specs.len().saturating_mul(answers as usize))?;
        let begun = Instant::now();
        // Images take long, and a full queue is no news after that.
        self.engine.has_room(specs.len().saturating_mul(answers as usize))?;
        let (mut jobs, mut parsers) = (Vec::new(), Vec::new());
        for spec in specs {
            let spec = self.defaults.apply(spec);
            let adapters = self.adapters_for(spec.lora.as_deref())?;
            self.prompts.check_tokens(spec.sampling.logit_bias.iter().map(|(token, _)| *token))?;
            let Prepared { tokens, images, stops, shown, parser, form } = self.prompts.prepare(&spec, waits)?;
            self.engine.fits(&tokens)?;
            for (answer, prompt) in (0..answers).zip(repeat_n(tokens, answers as usize)) {
                jobs.push(Job {
                    prompt,
                    begun: (!images.is_empty()).then_some(begun),
                    images: images.clone(),
                    sampling: spec.sampling.params_of(answer),
                    stop: stops.clone(),
                    shown: shown.clone(),
                    max_tokens: spec.max_tokens,
                    priority: spec.priority,
                    filter: form.as_ref().map(|form| self.prompts.filter(form)).transpose()?,
                    adapters: adapters.clone(),
                    logprobs: spec.logprobs.map(|n| n as usize),
                });
            }
            parsers.extend(parsers_for(parser, answers)?);
        }
        Ok(DeltaStream::several(self.engine.submit_all(jobs)?, parsers))
    }

    fn prompt(&self, spec: &GenerateSpec) -> Result<Prompt, RunnerError> {
        self.prompts.show(&self.defaults.apply(spec))
    }

    fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<TokenId>, RunnerError> {
        self.prompts.tokenize(text, add_special, parse_special)
    }

    fn pieces(&self, tokens: &[TokenId]) -> Result<Vec<Vec<u8>>, RunnerError> {
        self.prompts.pieces(tokens)
    }

    fn embed(&self, spec: &EmbedSpec) -> Result<Embeddings, RunnerError> {
        if self.ranks {
            let why = "this model ranks texts and gives no vectors of them; ask it at /v1/rerank";
            return Err(RunnerError::BadRequest(why.into()));
        }
        let embedder = self.embedder.as_ref().ok_or_else(|| {
            RunnerError::BadRequest("this model was not made for embeddings: its file names no way to pool them".into())
        })?;
        if let Some(n) = spec.dimensions.filter(|n| !(1..=embedder.dimensions()).contains(n)) {
            let most = embedder.dimensions();
            return Err(RunnerError::BadRequest(format!("dimensions is {n}; this model's vectors have {most}")));
        }
        let mut texts = Vec::with_capacity(spec.inputs.len());
        for input in &spec.inputs {
            let mut tokens = match input {
                Input::Raw(text) => self.prompts.tokenize(text, true, false)?,
                Input::Tokens(tokens) => {
                    self.prompts.check_tokens(tokens.iter().copied())?;
                    tokens.clone()
                }
                Input::Messages(_) | Input::Infill(_) => {
                    return Err(RunnerError::BadRequest("texts are embedded, not conversations".into()));
                }
            };
            if spec.truncate {
                self.prompts.truncate(&mut tokens, embedder.longest());
            }
            texts.push(tokens);
        }
        let prompt_tokens = texts.iter().map(Vec::len).sum();
        let mut vectors = embedder.embed(texts)?;
        for vector in &mut vectors {
            vector.truncate(spec.dimensions.unwrap_or(usize::MAX));
            normalise(vector);
        }
        Ok(Embeddings { vectors, prompt_tokens })
    }

    fn rank(&self, spec: &RankSpec) -> Result<Ranks, RunnerError> {
        let ranker = self.embedder.as_ref().filter(|_| self.ranks).ok_or_else(rank::refusal)?;
        let template = self.model.meta("tokenizer.chat_template.rerank");
        let pairs = self.prompts.pairs(&spec.query, &spec.documents, template.as_deref(), ranker.longest())?;
        let prompt_tokens = pairs.iter().map(Vec::len).sum();
        let score = |found: Vec<f32>| {
            let first = found.first().copied().filter(|score| score.is_finite());
            first.ok_or_else(|| RunnerError::Failed("the model gives a score that is no number".into()))
        };
        let scores = ranker.embed(pairs)?.into_iter().map(score).collect::<Result<_, _>>()?;
        Ok(Ranks { scores, prompt_tokens })
    }

    fn info(&self) -> &RunnerInfo {
        &self.info
    }

    fn defaults(&self) -> &GenerateDefaults {
        &self.defaults
    }

    fn measure(&self, what: Measure) -> Result<f64, RunnerError> {
        self.must_write()?;
        let (Measure::Prompt(n) | Measure::Generation(n)) = what;
        if n == 0 || n > self.engine.n_ctx() {
            return Err(RunnerError::BadRequest(format!("{n} tokens do not fit a context of {}", self.engine.n_ctx())));
        }
        Ok(self.engine.measure(what, self.adapters_for(None)?)?)
    }

    fn load_adapter(&self, name: &str, path: &Path, again: bool) -> Result<(), LoadError> {
        let load = || load_adapter(&self.model, path);
        self.adapters.load_into(&self.engine, name, path, again, load)
    }

    fn unload_adapter(&self, name: &str) -> bool {
        self.adapters.unload(&self.engine, name)
    }

    fn adapter(&self, name: &str) -> Option<PathBuf> {
        self.adapters.path_of(name)
    }

    fn adapter_need(&self, path: &Path) -> Result<Bytes, LoadError> {
        let header = Adapter::check(&self.model, path).map_err(|error| LoadError::Failed(error.to_string()))?;
        adapter_need(&self.model, &header)
    }

    fn adapters_held(&self) -> Bytes {
        self.adapters.held()
    }
}

/// Scales a vector to the length 1.
fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
}

fn adapter_need(model: &Model, header: &gguf::Header) -> Result<Bytes, LoadError> {
    Ok(placement::adapter_bytes(header, &model.layer_devices().map_err(load_error)?))
}

fn load_adapter(model: &Model, path: &Path) -> Result<(EngineAdapter, Bytes), LoadError> {
    let adapter = Adapter::load(model, path).map_err(load_error)?;
    let need = adapter_need(model, adapter.header())?;
    Ok((EngineAdapter::new(adapter), need))
}

fn load_adapters(model: &Model, files: &[(PathBuf, f32)]) -> Result<(Adapters, Vec<LoraUse>), LoadError> {
    let (adapters, mut usual) = (Adapters::default(), Vec::new());
    let names = adapter_names(&files.iter().map(|(path, _)| path.as_path()).collect::<Vec<_>>());
    for (name, (path, scale)) in names.into_iter().zip(files) {
        adapters.load(&name, path, false, || load_adapter(model, path))?;
        usual.push(LoraUse { name, scale: Some(*scale) });
    }
    Ok((adapters, usual))
}

pub(super) fn load_error(error: LlamaError) -> LoadError {
    match error {
        LlamaError::LoadCancelled(_) => LoadError::Cancelled,
        LlamaError::TooLarge(why) => PlacementError::TooLarge(why).into(),
        error => LoadError::Failed(error.to_string()),
    }
}
