//! Forward passes through llama.cpp.

use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::constrain::TokenFilter;
use crate::llama::{
    AbortFlag, Adapter, Batch, Context, ContextParams, Extent, ImageBatch, LlamaError, Logits, MemoryUse, Model, Pos,
    Sampler, SamplerConfig, SeqId, SeqState, Token, Vocab,
};

use super::adapters::AdapterSet;
use super::command::Measure;
use super::drafter::Drafter;
use super::forward::{Forward, ForwardError, Lane, Probabilities, Reuse, Row, Shape, TokenId};
use super::handle::{EngineConfig, EngineHandle};
use super::image::{ImagePass, is_image};
use super::measure;
use super::positions::Positions;
use super::request::SamplingParams;

/// Rows from which on llama.cpp's flash attention on the CPU works in tiles.
const CPU_TILE: usize = 64;
/// Logits to look at in one step from which on it pays to share the work among threads.
const PARALLEL_LOGITS: usize = 1 << 20;
/// A user wants to know what a load waits for from here on.
const NOTICEABLE: Duration = Duration::from_secs(3);

pub(super) struct LlamaForward {
    context: Context,
    batch: Batch,
    /// What the context computes with; `None` where a change of it failed half-way.
    adapters: Option<AdapterSet>,
    vocab: Vocab,
    abort: AbortFlag,
    seqs: Vec<SeqId>,
    /// Of each sequence.
    positions: Vec<Positions>,
    shape: Shape,
    samplers: Option<rayon::ThreadPool>,
}

/// What an engine's contexts take, and whether they can write.
#[derive(Debug, Default)]
pub struct EngineMemory {
    /// See [`Context::keeps_memory`].
    pub kept: bool,
    pub model: Vec<MemoryUse>,
    pub draft: Vec<MemoryUse>,
}

impl EngineHandle {
    /// Creates the context on a thread of its own and waits until it is ready. `draft` guesses ahead. `n_ctx_seq` limits each sequence;
    /// `adapters` are those that most requests are expected to name. What the context takes of the memory comes with the
    /// handle.
    ///
    /// # Errors
    /// What creating the context or attaching the adapters failed with.
    pub fn start_llama(
        model: &Model,
        draft: Option<&Model>,
        adapters: AdapterSet,
        context: ContextParams,
        n_ctx_seq: u32,
        config: EngineConfig,
    ) -> Result<(Self, EngineMemory), LlamaError> {
        let (model, draft) = (model.clone(), draft.cloned());
        let threads = config.threads;
        let (report, memory) = std::sync::mpsc::sync_channel(1);
        let handle = Self::start(
            config,
            move || {
                let forward = LlamaForward::new(&model, &adapters, &context, n_ctx_seq, threads)?;
                let (kept, model) = (forward.context.keeps_memory(), forward.context.memory_use()?);
                let mut memory = EngineMemory { kept, model, draft: Vec::new() };
                let mut drafter = None;
                if let Some(draft) = &draft {
                    let forward = LlamaForward::new(draft, &AdapterSet::default(), &context, n_ctx_seq, threads)?;
                    memory.draft = forward.context.memory_use()?;
                    drafter = Some(Drafter::new(forward).map_err(not_started)?);
                }
                let _ = report.send(memory);
                Ok((forward, drafter))
            },
            not_started,
        )?;
        Ok((handle, memory.recv().unwrap_or_default()))
    }
}

fn not_started(message: String) -> LlamaError {
    LlamaError::Native { call: "starting the engine's thread", status: 0, message, log: String::new() }
}

impl LlamaForward {
    fn new(
        model: &Model,
        adapters: &AdapterSet,
        params: &ContextParams,
        n_ctx_seq: u32,
        threads: u32,
    ) -> Result<Self, LlamaError> {
        let mut context = Context::new(model, params)?;
        context.set_adapters(&adapters.weights::<Adapter>())?;
        let reuse = match (params.kv_unified, model.is_recurrent()) {
            (false, _) => Reuse::Nothing,
            (true, true) => Reuse::Whole,
            (true, false) => Reuse::Any,
        };
        let n_seq_max = context.n_seq_max();
        let cells_each = context.n_ctx_seq();
        let shape = Shape {
            n_cells: if params.kv_unified { context.n_ctx() } else { cells_each * n_seq_max as usize },
            n_ctx_seq: cells_each.min(n_ctx_seq as usize),
            n_batch: context.n_batch(),
            n_outputs: context.n_outputs_max(),
            n_seq_max,
            tile: if model.is_on_cpu() { CPU_TILE } else { usize::MAX },
            reuse,
        };
        let seqs = (0..n_seq_max).map(|id| context.seq(id)).collect::<Result<Vec<_>, _>>()?;
        let helpers = threads.saturating_sub(1) as usize;
        // Sampling goes on one thread where this fails.
        let samplers = (helpers > 0)
            .then(|| rayon::ThreadPoolBuilder::new().num_threads(helpers).thread_name(|_| "sample".into()).build().ok())
            .flatten();
        Ok(Self {
            batch: Batch::new(&context),
            adapters: Some(adapters.clone()),
            vocab: model.vocab()?,
            abort: context.abort_flag(),
            context,
            positions: vec![Positions::default(); seqs.len()],
            seqs,
            shape,
            samplers,
        })
    }

    fn seq(&self, seq: u32) -> Result<SeqId, String> {
        self.seqs.get(seq as usize).copied().ok_or_else(|| format!("there is no sequence {seq}"))
    }

    /// Nothing to do, in most passes.
    fn attach(&mut self, adapters: &AdapterSet) -> Result<(), LlamaError> {
        if self.adapters.as_ref() != Some(adapters) {
            self.adapters = None;
            self.context.set_adapters(&adapters.weights::<Adapter>())?;
            self.adapters = Some(adapters.clone());
        }
        Ok(())
    }

    fn fill(&mut self, rows: &[Row]) -> Result<(), LlamaError> {
        self.batch.clear();
        for row in rows {
            let token = token(row.token)?;
            let pos = Pos::new(self.positions[row.seq as usize].at(row.pos))?;
            self.batch.add(token, pos, self.seqs[row.seq as usize], row.output)?;
        }
        Ok(())
    }

    fn fill_image(&mut self, rows: &[Row], pass: ImagePass<'_>) -> Result<(), LlamaError> {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Err(LlamaError::BatchEmpty) };
        let ImagePass { image, rows } = pass;
        let positions = &mut self.positions[first.seq as usize];
        let begin = positions.at(first.pos - rows.start);
        if rows.start == 0 && image.n != image.n_positions {
            positions.add(first.pos, image.n, image.n_positions);
        }
        let places = image.places.get(rows.clone()).unwrap_or_default();
        self.batch.clear();
        self.batch.add_image(&ImageBatch {
            vectors: image.vectors_of(rows.clone()),
            places,
            at: Pos::new(if places.is_empty() { begin + rows.start } else { begin })?,
            seq: self.seqs[first.seq as usize],
            output: last.output,
            whole: image.whole,
        })
    }
}

fn token(id: TokenId) -> Result<Token, LlamaError> {
    Token::new(id).ok_or(LlamaError::NoVocabulary)
}

fn text(error: LlamaError) -> String {
    error.to_string()
}

fn sample_row(
    sampler: &mut Sampler,
    logits: Result<Logits<'_>, LlamaError>,
    wanted: Option<usize>,
) -> Result<(TokenId, Option<Probabilities>), String> {
    let logits = logits.map_err(text)?;
    let token = sampler.sample(logits).map_err(text)?;
    let probabilities = wanted.map(|n| {
        let (sampled, top) = logits.probabilities(token, n)?;
        Ok(Probabilities { sampled, top: top.into_iter().map(|(token, logprob)| (token.index(), logprob)).collect() })
    });
    Ok((token.index(), probabilities.transpose().map_err(text)?))
}

impl Forward for LlamaForward {
    type Sampler = Sampler;
    type Saved = SeqState;

    fn shape(&self) -> Shape {
        self.shape
    }

    fn sampler(
        &self,
        params: &SamplingParams,
        seed: u32,
        prompt: &[TokenId],
        filter: Option<Box<dyn TokenFilter>>,
    ) -> Result<Sampler, String> {
        let bias = params.logit_bias.iter().map(|(id, bias)| Ok((token(*id)?, *bias))).collect::<Result<_, _>>();
        let config = SamplerConfig {
            temperature: params.temperature,
            top_k: params.top_k,
            top_p: params.top_p,
            min_p: params.min_p,
            typical_p: params.typical_p,
            penalty_last_n: params.repeat_last_n,
            repeat_penalty: params.repeat_penalty,
            frequency_penalty: params.frequency_penalty,
            presence_penalty: params.presence_penalty,
            // llama.cpp takes the largest number for "draw one".
            seed: seed.min(u32::MAX - 1),
            // A form that is complete allows nothing but the end.
            ignore_end: params.ignore_eos && filter.is_none(),
            bias: bias.map_err(text)?,
        };
        let mut sampler = Sampler::new(&self.vocab, &config).map_err(text)?;
        if let Some(filter) = filter {
            sampler = sampler.with_filter(filter);
        }
        // The penalties look back into the prompt, as llama.cpp's own programs let them.
        let last = &prompt[prompt.len().saturating_sub(params.repeat_last_n as usize)..];
        for id in last.iter().filter(|id| !is_image(**id)) {
            sampler.accept(token(*id).map_err(text)?);
        }
        Ok(sampler)
    }

    fn set_temperature(&self, sampler: &mut Sampler, temperature: f32) -> Result<(), String> {
        sampler.set_temperature(temperature).map_err(text)
    }

    fn decode(
        &mut self,
        rows: &[Row],
        image: Option<ImagePass<'_>>,
        adapters: &AdapterSet,
    ) -> Result<(), ForwardError> {
        let failed = |error: LlamaError| ForwardError::Failed(error.to_string());
        self.attach(adapters).map_err(failed)?;
        match image {
            Some(image) => self.fill_image(rows, image).map_err(failed)?,
            None => self.fill(rows).map_err(failed)?,
        }
        self.context.decode(&mut self.batch).map_err(|error| match error {
            LlamaError::NoCells => ForwardError::NoCells,
            LlamaError::Aborted => ForwardError::Aborted,
            error => failed(error),
        })
    }

    fn let_go(&mut self) {
        if self.adapters.as_ref().is_none_or(AdapterSet::is_stale)
            && let Err(error) = self.attach(&AdapterSet::default())
        {
            tracing::error!(%error, "an unloaded adapter stays in memory");
        }
    }

    fn sample(&mut self, lanes: &mut [Lane<Sampler>]) {
        let wanted: usize = lanes.iter().filter(|lane| lane.row.is_some()).map(|lane| 1 + lane.guesses.len()).sum();
        let logits = wanted * self.vocab.n_tokens() as usize;
        if let Some(pool) = self.samplers.as_ref().filter(|_| wanted > 1 && logits >= PARALLEL_LOGITS) {
            // The context itself must stay on this thread; its rows of logits may be read from any.
            let rows: Vec<_> = (0..self.batch.len()).map(|row| self.context.logits(row).ok()).collect();
            let work = |lane: &mut Lane<Sampler>| {
                lane.sample(|sampler, row, wanted| {
                    let logits = rows.get(row).copied().flatten();
                    sample_row(sampler, logits.ok_or(LlamaError::NoOutput { row }), wanted)
                });
            };
            // This thread takes its part, too.
            let own = lanes.len().div_ceil(pool.current_num_threads() + 1);
            let (mine, theirs) = lanes.split_at_mut(own);
            pool.in_place_scope(|scope| {
                scope.spawn(|_| theirs.par_iter_mut().for_each(work));
                mine.iter_mut().for_each(work);
            });
            return;
        }
        for lane in lanes {
            lane.sample(|sampler, row, wanted| sample_row(sampler, self.context.logits(row), wanted));
        }
    }

    fn append_piece(&self, id: TokenId, shown: bool, out: &mut Vec<u8>) -> Result<(), String> {
        token(id).and_then(|token| self.vocab.append_piece(token, shown, out)).map_err(text)
    }

    fn is_end(&self, id: TokenId) -> bool {
        token(id).and_then(|token| self.vocab.is_end_of_generation(token)).unwrap_or(true)
    }

    /// llama.cpp takes cells of a sequence that lie behind its sliding window for others, oldest positions first.
    fn is_whole(&mut self, seq: u32, len: usize) -> bool {
        let window = self.context.model().n_swa();
        if window == 0 {
            return true;
        }
        let Ok(id) = self.seq(seq) else { return false };
        let end = self.positions[seq as usize].at(len);
        match self.context.kv().seq_range(id) {
            Ok(Some((first, _))) => first == 0 || first + window <= end,
            _ => false,
        }
    }

    fn fork(&mut self, from: u32, to: u32, len: usize) -> Result<(), String> {
        let (source, target) = (self.seq(from)?, self.seq(to)?);
        let mut positions = self.positions[from as usize].clone();
        if positions.is_inside(len) {
            return Err(format!("{len} tokens end in an image"));
        }
        self.context.kv().seq_cp(source, target, Pos::new(positions.at(len)).map_err(text)?).map_err(text)?;
        positions.truncate(len);
        self.positions[to as usize] = positions;
        Ok(())
    }

    fn truncate(&mut self, seq: u32, len: usize) -> Result<bool, String> {
        let id = self.seq(seq)?;
        if len > 0 && (self.positions[seq as usize].is_inside(len) || !self.is_whole(seq, len)) {
            return Ok(false);
        }
        let positions = &mut self.positions[seq as usize];
        match self.context.kv().seq_rm(id, Pos::new(positions.at(len)).map_err(text)?) {
            Ok(()) => {
                positions.truncate(len);
                Ok(true)
            }
            Err(LlamaError::PartialRemove { .. }) => Ok(false),
            Err(error) => Err(text(error)),
        }
    }

    fn save(&mut self, seq: u32) -> Option<SeqState> {
        let seq = self.seq(seq).ok()?;
        SeqState::save(&mut self.context, seq, Extent::Partial)
            .inspect_err(|error| tracing::warn!(%error, "the state of a prompt could not be kept"))
            .ok()
    }

    fn restore(&mut self, seq: u32, saved: &SeqState) -> Result<(), String> {
        let seq = self.seq(seq)?;
        saved.restore(&mut self.context, seq).map_err(text)
    }

    fn set_threads(&mut self, threads: u32) {
        if let Err(error) = self.context.set_threads(threads, threads) {
            tracing::warn!(%error, threads, "the number of computing threads stays as it was");
        }
    }

    fn aborter(&self) -> Box<dyn Fn() + Send + Sync> {
        let abort = self.abort.clone();
        Box::new(move || abort.abort())
    }

    fn clear_abort(&mut self) {
        self.abort.clear();
    }

    fn pass_costs(&mut self) -> Vec<(usize, Duration)> {
        if self.context.model().is_on_cpu() {
            return Vec::new();
        }
        let begun = Instant::now();
        let most = self.shape.n_batch.min(self.shape.n_ctx_seq);
        let sizes = [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128, 256, 512].into_iter().filter(|rows| *rows <= most);
        let sizes: Vec<usize> = sizes.collect();
        let costs = match measure::pass_times(&mut self.context, &sizes, self.shape.n_outputs) {
            Ok(times) => times,
            Err(error) => {
                tracing::warn!(%error, "passes could not be tried");
                let _ = self.context.kv().clear();
                return Vec::new();
            }
        };
        let took = begun.elapsed();
        if took > NOTICEABLE {
            tracing::info!(
                seconds = took.as_secs(),
                "the driver compiled its programs for passes of all sizes; the next start finds them"
            );
        }
        let told: Vec<_> =
            costs.iter().map(|(rows, took)| format!("{rows}: {:.1}", took.as_secs_f64() * 1e3)).collect();
        tracing::debug!(seconds = took.as_secs_f32(), ms_by_rows = told.join(", "), "passes of all sizes were tried");
        costs
    }

    fn measure(&mut self, what: Measure, adapters: &AdapterSet) -> Result<f64, String> {
        self.abort.clear();
        self.attach(adapters).map_err(text)?;
        let speed = match what {
            Measure::Prompt(n) => measure::prompt_speed(&mut self.context, n),
            Measure::Generation(n) => measure::generation_speed(&mut self.context, n),
        };
        self.context.kv().clear().and(speed).map_err(text)
    }
}
