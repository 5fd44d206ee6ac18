//! The engine: takes commands, admits, plans a pass, decodes, samples, emits. One step is one forward pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};

use super::adapters::AdapterSet;
use super::cache::Cache;
use super::command::{Command, Measure};
use super::drafter::Drafter;
use super::error::EngineError;
use super::event::{Event, FinishReason};
use super::forward::{Forward, Lane, Reuse, Row};
use super::guesses::DraftStep;
use super::handle::{EngineConfig, Shared};
use super::meter::Meter;
use super::pace::Pace;
use super::pass_costs::PassCosts;
use super::payoff::Payoff;
use super::scheduler::{Limits, Plan, View, Work, deadline, plan};
use super::sequence::Sequence;
use super::threads::{Governor, LoadMeter};

/// How much longer than undisturbed the time between two tokens may get while prompts are computed beside.
const STRETCH: f64 = 2.0;

/// Cells that are too few to look at twice.
const FEW_CELLS: usize = 512;

type Measurement = (Measure, AdapterSet, std::sync::mpsc::SyncSender<Result<f64, String>>);

pub(super) struct Engine<F: Forward> {
    pub(super) forward: F,
    pub(super) drafter: Option<Drafter<F>>,
    pub(super) draft_step: Option<DraftStep>,
    pub(super) payoff: Payoff,
    pub(super) config: EngineConfig,
    pub(super) cache: Cache<F::Saved>,
    /// Sequences that wait for a place, with what they need to go on.
    pub(super) waiting: Vec<(Sequence, Lane<F::Sampler>)>,
    /// Sequences with a place in the cache. `lanes` has their samplers, in the same order.
    pub(super) running: Vec<Sequence>,
    pub(super) lanes: Vec<Lane<F::Sampler>>,
    pub(super) measurements: Vec<Measurement>,
    /// An adapter was unloaded that somebody may still be computed with.
    unloading: bool,
    pub(super) shared: Arc<Shared>,
    stopping: Arc<AtomicBool>,
    pub(super) pace: Pace,
    pub(super) costs: PassCosts,
    threads: Option<(Governor, LoadMeter)>,
    pub(super) meter: Meter,
    /// Passes so far.
    pub(super) steps: u64,
    pub(super) admissions: u64,
    /// Prompt tokens computed so far: the clock of deadlines.
    pub(super) prompt_clock: u64,
    /// The latest pass in which nobody decoded.
    pub(super) prompts_turn: u64,
    pub(super) views: Vec<View>,
    pub(super) plan: Plan,
    pub(super) rows: Vec<Row>,
}

/// What a step left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Everything has ended, for good.
    Stopped,
    /// There may be more to do at once.
    Busy,
    /// Nothing can go on before a command comes.
    Idle,
}

impl<F: Forward> Engine<F> {
    pub fn new(
        mut forward: F,
        mut drafter: Option<Drafter<F>>,
        mut config: EngineConfig,
        shared: Arc<Shared>,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        let shape = forward.shape();
        config.parallel = config.parallel.clamp(1, shape.n_seq_max as usize);
        if shape.reuse != Reuse::Any || config.deterministic {
            // A wrong guess has to be taken back, and a right one changes the shape of the pass.
            (config.lookup, drafter) = (0, None);
        }
        let meter = Meter::new(&config.label);
        meter.cells_total.set(as_f64(shape.n_cells));
        meter.threads.set(f64::from(config.threads));
        let threads = LoadMeter::new()
            .filter(|_| config.adaptive_threads && config.threads > 1)
            .map(|load| (Governor::new(config.threads, load.cores()), load));
        let costs = PassCosts::new(if config.warm_up { forward.pass_costs() } else { Vec::new() });
        Self {
            costs,
            cache: Cache::new(shape),
            forward,
            drafter,
            draft_step: None,
            payoff: Payoff::default(),
            config,
            waiting: Vec::new(),
            running: Vec::new(),
            lanes: Vec::new(),
            measurements: Vec::new(),
            unloading: false,
            shared,
            stopping,
            pace: Pace::new(STRETCH),
            threads,
            meter,
            steps: 0,
            admissions: 0,
            prompt_clock: 0,
            prompts_turn: 0,
            views: Vec::new(),
            plan: Plan::default(),
            rows: Vec::new(),
        }
    }

    /// Serves until every sender is gone and all that ran has ended.
    pub fn run(mut self, commands: &Receiver<Command>) {
        let mut outcome = Outcome::Idle;
        loop {
            if outcome == Outcome::Idle {
                self.gauge(true);
                match commands.recv() {
                    Ok(command) => self.take(command),
                    Err(_) => return self.end_all(),
                }
            }
            loop {
                match commands.try_recv() {
                    Ok(command) => self.take(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return self.end_all(),
                }
            }
            outcome = self.step();
            if outcome == Outcome::Stopped {
                return;
            }
        }
    }

    pub(super) fn take(&mut self, command: Command) {
        match command {
            Command::Wake => {}
            Command::Measure(what, adapters, reply) => self.measurements.push((what, adapters, reply)),
            Command::Unloaded(adapter) => {
                self.unloading = true;
                if let Err(error) = self.cache.forget_adapter(&mut self.forward, adapter) {
                    tracing::error!(error, "what was computed with an unloaded adapter could not be removed");
                }
            }
            Command::Generate(request) => {
                self.meter.requests.increment(1);
                let due = deadline(self.prompt_clock, request.prompt.len(), request.priority);
                let events = request.events.clone();
                let logprobs = request.logprobs;
                // It was on its way here when its adapter was unloaded.
                self.unloading |= request.adapters.is_stale();
                match Sequence::new(&self.forward, *request, due) {
                    Ok((sequence, sampler)) => {
                        self.waiting.push((sequence, Lane { logprobs, ..Lane::new(sampler) }));
                    }
                    Err(failure) => {
                        self.meter.failed.increment(1);
                        events.send(Event::Error(EngineError::Failed(failure)));
                    }
                }
            }
        }
    }

    /// One pass, and all that surrounds it.
    pub(super) fn step(&mut self) -> Outcome {
        if self.is_stopping() {
            self.end_all();
            return Outcome::Stopped;
        }
        self.reap();
        self.let_adapters_go();
        if self.running.is_empty() && !self.measurements.is_empty() {
            self.measure();
        }
        if self.measurements.is_empty() {
            self.admit();
        }
        self.draft();
        if !self.make_plan() {
            let paused = |sequence: &Sequence| sequence.events.control().should_pause();
            let nothing_to_do = match self.running.is_empty() {
                true => self.waiting.iter().all(|(sequence, _)| paused(sequence)),
                false => self.running.iter().all(paused),
            };
            return if nothing_to_do { Outcome::Idle } else { Outcome::Busy };
        }
        self.pass();
        self.adapt_threads();
        self.gauge(false);
        Outcome::Busy
    }

    /// Frees what belongs to readers that have left.
    fn reap(&mut self) {
        let mut index = 0;
        while index < self.waiting.len() {
            if self.waiting[index].0.events.is_cancelled() {
                let (mut sequence, _) = self.waiting.swap_remove(index);
                self.meter.cancelled.increment(1);
                sequence.flush();
                sequence.events.send(Event::Done(sequence.summary(FinishReason::Cancelled, None)));
            } else {
                index += 1;
            }
        }
        for index in (0..self.running.len()).rev() {
            if self.running[index].events.is_cancelled() {
                self.running[index].flush();
                self.finish(index, FinishReason::Cancelled, None);
            }
        }
    }

    /// An adapter that was unloaded goes when nobody is computed with it any more.
    fn let_adapters_go(&mut self) {
        let waiting = self.waiting.iter().map(|(sequence, _)| sequence);
        if self.unloading && !self.running.iter().chain(waiting).any(|sequence| sequence.adapters.is_stale()) {
            self.forward.let_go();
            self.unloading = false;
        }
    }

    /// Gives waiting sequences their place, the most urgent first.
    fn admit(&mut self) {
        for sequence in &mut self.running {
            sequence.cut = usize::MAX;
        }
        self.waiting.sort_by_key(|(sequence, _)| sequence.deadline);
        let mut index = 0;
        while index < self.waiting.len() {
            let sequence = &self.waiting[index].0;
            if sequence.events.control().should_pause() {
                index += 1;
                continue;
            }
            if self.running.len() >= self.config.parallel {
                if self.set_aside() {
                    continue;
                }
                return;
            }
            let found = self.cache.find(&sequence.tokens, &sequence.adapters);
            // Somebody computes more of this prompt right now: it will be there soon, for nothing.
            if let Some(coming) = found.coming
                && let Some(leader) = self.running.iter_mut().find(|running| running.seq == coming.seq)
                && !leader.decoding
                && !leader.events.control().should_pause()
            {
                leader.cut = leader.cut.min(coming.len.saturating_sub(leader.computed));
                index += 1;
                continue;
            }
            if !self.fits(sequence.tokens.len(), found.ready) {
                if self.set_aside() {
                    continue;
                }
                return;
            }
            let Sequence { tokens, adapters, repeatable, .. } = sequence;
            match self.cache.admit(&mut self.forward, tokens, adapters, found, *repeatable) {
                Ok(Some(place)) => {
                    let (mut sequence, lane) = self.waiting.remove(index);
                    self.admissions += 1;
                    let first_time = sequence.clock.started.is_none();
                    sequence.start(place.seq, place.cached, self.admissions);
                    if first_time {
                        self.meter.queued.record(sequence.clock.submitted.elapsed());
                        self.meter.prompt_tokens.increment(sequence.prompt_len as u64);
                        self.meter.cached_tokens.increment(u64::from(sequence.cached_tokens()));
                    }
                    self.running.push(sequence);
                    self.lanes.push(lane);
                }
                Ok(None) => return,
                Err(failure) => {
                    let (sequence, _) = self.waiting.remove(index);
                    self.meter.failed.increment(1);
                    sequence.events.send(Event::Error(EngineError::Failed(failure)));
                }
            }
        }
    }

    /// Takes a sequence with its lane from those that run; the last one gets its index.
    fn take_out(&mut self, index: usize) -> (Sequence, Lane<F::Sampler>) {
        (self.running.swap_remove(index), self.lanes.swap_remove(index))
    }

    /// Gives the place of a reader that is behind to somebody who waits; it goes on when it has caught up.
    fn set_aside(&mut self) -> bool {
        let behind = self.running.iter().position(|sequence| sequence.events.control().should_pause());
        let Some(index) = behind else { return false };
        let (sequence, lane) = self.take_out(index);
        if let Err(error) = self.cache.retire(&mut self.forward, sequence.seq, &sequence.tokens) {
            tracing::error!(error, "a sequence that was set aside could not be kept");
        }
        self.meter.preempted.increment(1);
        self.waiting.push((sequence, lane));
        true
    }

    /// Whether a prompt's cells, and some for those that run to go on, are free or can be.
    fn fits(&self, tokens: usize, ready: Option<super::prefix_tree::Match>) -> bool {
        if self.running.is_empty() {
            return true;
        }
        let shape = self.forward.shape();
        if shape.reuse == Reuse::Nothing {
            // Each has cells of its own.
            return true;
        }
        let shared = ready.filter(|found| self.cache.is_running(found.seq)).map_or(0, |found| found.len);
        let margin = 16 * (self.running.len() + 1);
        self.cache.running_cells() + tokens - shared + margin <= shape.n_cells
    }

    /// Chooses the next pass and makes room for it. `false` where there is nothing to compute.
    fn make_plan(&mut self) -> bool {
        let mut guessing = true;
        loop {
            self.look(guessing);
            let shape = self.forward.shape();
            let decoding = self.views.iter().filter(|view| matches!(view.work, Work::Decode { .. })).count();
            let prefilling = self.running.iter().filter(|sequence| !sequence.decoding).count();
            let (n_batch, prefill) = if self.costs.is_known() && !self.config.deterministic {
                let more = self.views.iter().map(View::beside).sum();
                let rows = self.costs.rows(decoding, more).min(shape.n_batch);
                (rows, rows.saturating_sub(decoding))
            } else {
                let whole = self.config.deterministic || self.tiles_pay();
                let rows = if whole { shape.n_batch } else { shape.n_batch.min(shape.tile - 1) };
                (rows, self.pace.budget(decoding, prefilling))
            };
            let limits = Limits {
                n_batch,
                n_image: shape.n_batch,
                n_outputs: shape.n_outputs,
                prefill,
                tile: shape.tile,
                prompts_turn: self.prompts_turn,
                exclusive: self.config.deterministic,
            };
            plan(&self.views, limits, &mut self.plan);
            if self.plan.shares.is_empty() {
                return false;
            }
            let wanted = self.plan.shares.iter().map(|share| share.tokens).sum();
            match self.cache.make_room(&mut self.forward, wanted) {
                Ok(true) => return true,
                // Guesses are worth nobody's place.
                Ok(false) if guessing => guessing = false,
                Ok(false) => {
                    if !self.preempt() {
                        // Only where our book of the cells is wrong.
                        self.fail_all("the KV cache has no cells left, and nobody to take them from");
                        return false;
                    }
                }
                Err(failure) => {
                    self.fail_all(&failure);
                    return false;
                }
            }
        }
    }

    /// Whether a large pass is worth it. Its attention takes all cells of a tile where one row needs one of them, and
    /// the cells of sequences that decode together lie mixed.
    fn tiles_pay(&self) -> bool {
        let longest = self.running.iter().filter(|sequence| !sequence.decoding).map(|sequence| sequence.tokens.len());
        self.cache.used_cells() <= FEW_CELLS.max(2 * longest.max().unwrap_or(0))
    }

    /// Takes the cells of whoever was admitted last; it goes on later. `false` where only one is left.
    pub(super) fn preempt(&mut self) -> bool {
        if self.running.len() < 2 {
            return false;
        }
        // A reader that is behind anyway loses the least.
        let youngest = (0..self.running.len()).max_by_key(|index| {
            let sequence = &self.running[*index];
            (sequence.events.control().should_pause(), sequence.admitted)
        });
        let Some(index) = youngest else { return false };
        let (sequence, lane) = self.take_out(index);
        tracing::debug!(tokens = sequence.tokens.len(), "out of KV cells: a sequence is preempted");
        self.meter.preempted.increment(1);
        let released = self.cache.release(&mut self.forward, sequence.seq);
        self.waiting.push((sequence, lane));
        released.is_ok()
    }

    /// Ends a running sequence with a summary. What it computed stays for others.
    pub(super) fn finish(&mut self, index: usize, reason: FinishReason, stop: Option<String>) {
        let (sequence, _) = self.take_out(index);
        if reason == FinishReason::Cancelled {
            self.meter.cancelled.increment(1);
        }
        // What nobody can ask for is not kept.
        let kept = match sequence.adapters.is_stale() {
            true => self.cache.release(&mut self.forward, sequence.seq),
            false => self.cache.retire(&mut self.forward, sequence.seq, &sequence.tokens),
        };
        if let Err(error) = kept {
            tracing::error!(error, "a finished sequence could not be kept");
        }
        sequence.events.send(Event::Done(sequence.summary(reason, stop)));
    }

    /// Ends a running sequence with an error.
    pub(super) fn fail(&mut self, index: usize, error: EngineError) {
        let (sequence, _) = self.take_out(index);
        self.meter.failed.increment(1);
        if let Err(error) = self.cache.release(&mut self.forward, sequence.seq) {
            tracing::error!(error, "a failed sequence could not be removed");
        }
        sequence.events.send(Event::Error(error));
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn fail_all(&mut self, failure: &str) {
        while !self.running.is_empty() {
            self.fail(self.running.len() - 1, EngineError::Failed(failure.to_owned()));
        }
    }

    /// The engine ends: nobody is left without a last word.
    fn end_all(&mut self) {
        while !self.running.is_empty() {
            self.fail(self.running.len() - 1, EngineError::Stopped);
        }
        for (sequence, _) in self.waiting.drain(..) {
            self.meter.failed.increment(1);
            sequence.events.send(Event::Error(EngineError::Stopped));
        }
        self.measurements.clear();
        self.gauge(true);
    }

    fn measure(&mut self) {
        for (what, adapters, reply) in std::mem::take(&mut self.measurements) {
            let forgotten = self.cache.forget_idle(&mut self.forward);
            let result = forgotten.and_then(|()| self.forward.measure(what, &adapters));
            let _ = reply.send(result);
        }
    }

    fn adapt_threads(&mut self) {
        let Some((governor, load)) = &mut self.threads else { return };
        if let Some(threads) = load.foreign().and_then(|foreign| governor.look(foreign)) {
            tracing::debug!(threads, "the number of computing threads follows the machine's load");
            self.meter.threads.set(f64::from(threads));
            self.forward.set_threads(threads);
            if let Some(drafter) = &mut self.drafter {
                drafter.forward.set_threads(threads);
            }
        }
    }

    /// Sets the gauges, at most ten times a second unless `now`.
    fn gauge(&mut self, now: bool) {
        const INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);
        if !now && self.meter.gauged.is_some_and(|at| at.elapsed() < INTERVAL) {
            return;
        }
        let count = |wanted: fn(&Sequence) -> bool| as_f64(self.running.iter().filter(|s| wanted(s)).count());
        let running = self.cache.running_cells();
        self.meter.gauged = Some(std::time::Instant::now());
        self.meter.waiting.set(as_f64(self.waiting.len()));
        self.meter.decoding.set(count(|sequence| sequence.decoding));
        self.meter.prefilling.set(count(|sequence| !sequence.decoding));
        self.meter.paused.set(count(|sequence| sequence.events.control().should_pause()));
        self.meter.cells_running.set(as_f64(running));
        self.meter.cells_cached.set(as_f64(self.cache.used_cells().saturating_sub(running)));
    }
}

pub(super) fn as_f64(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}
