//! The engine from outside: start it, submit to it, stop it.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel as commands_channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::constrain::TokenFilter;

use super::adapters::{AdapterSet, EngineAdapter};
use super::command::{Command, Measure};
use super::control::{OnSignal, Signal};
use super::drafter::Drafter;
use super::error::EngineError;
use super::forward::{Forward, Shape, TokenId};
use super::image::{ImageRows, Images};
use super::request::{Request, SamplingParams};
use super::run::Engine;
use super::scheduler::Priority;
use super::stream::{EventStream, channel};

/// How to serve a model.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Name of the model in the metrics.
    pub label: String,
    /// Sequences that run at the same time.
    pub parallel: usize,
    /// Requests that may wait; one more is refused at once.
    pub queue: usize,
    pub threads: u32,
    /// Compute with fewer threads while other programs need the cores.
    pub adaptive_threads: bool,
    /// Each sequence is computed as if it were alone.
    pub deterministic: bool,
    /// Tokens to guess ahead from the text so far; 0 guesses none.
    pub lookup: usize,
    /// Tokens to guess ahead with a drafting model, where there is one.
    pub draft: usize,
    /// Try passes of all sizes before the first request.
    pub warm_up: bool,
}

/// One sequence at a time, on one thread, and nobody may wait.
impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            label: String::new(),
            parallel: 1,
            queue: 0,
            threads: 1,
            adaptive_threads: false,
            deterministic: false,
            lookup: 0,
            draft: 0,
            warm_up: false,
        }
    }
}

/// One generation to queue.
#[derive(Debug, Default)]
pub struct Job {
    pub prompt: Vec<TokenId>,
    /// Of which `prompt` has rows, in their order.
    pub images: Vec<Arc<ImageRows>>,
    /// When somebody began to wait for it, where that was earlier.
    pub begun: Option<Instant>,
    pub sampling: SamplingParams,
    /// Strings that end the generation; they are not part of its text.
    pub stop: Vec<String>,
    /// `None` goes on to the end of the context.
    pub max_tokens: Option<u32>,
    pub priority: Priority,
    /// Control tokens whose names are part of the text.
    pub shown: Vec<TokenId>,
    /// What the text must look like.
    pub filter: Option<Box<dyn TokenFilter>>,
    pub adapters: AdapterSet,
    /// Tell each token's probability, and that of so many others.
    pub logprobs: Option<usize>,
}

/// What the engine's thread shares with the readers of its streams.
pub(super) struct Shared {
    /// Requests that wait or run.
    requests: AtomicUsize,
    /// The pass under way, in the upper half, and how many of its sequences still have their readers.
    pass: AtomicU64,
    abort: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("requests", &self.requests).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new() -> Self {
        Self { requests: AtomicUsize::new(0), pass: AtomicU64::new(0), abort: OnceLock::new() }
    }

    pub(super) fn abort(&self) {
        if let Some(abort) = self.abort.get() {
            abort();
        }
    }

    pub(super) fn begin_pass(&self, pass: NonZeroU32, members: usize) {
        let members = u32::try_from(members).unwrap_or(u32::MAX);
        self.pass.store(u64::from(pass.get()) << 32 | u64::from(members), Ordering::SeqCst);
    }

    pub(super) fn end_pass(&self) {
        self.pass.store(0, Ordering::SeqCst);
    }

    /// One member of a pass wants its result no more. The last one stops it, if it is still under way.
    pub(super) fn left_pass(&self, pass: NonZeroU32) {
        let one_less =
            |now: u64| (now >> 32 == u64::from(pass.get()) && now & u64::from(u32::MAX) > 0).then(|| now - 1);
        let before = self.pass.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        if before.is_ok_and(|before| before & u64::from(u32::MAX) == 1) {
            self.abort();
        }
    }
}

/// A request's place among those that wait or run. Given back when dropped.
#[derive(Debug)]
pub(super) struct Ticket(Arc<Shared>);

impl Ticket {
    /// So many at once; none where there would be more than `most` of them then.
    pub(super) fn take(shared: &Arc<Shared>, wanted: usize, most: usize) -> Option<Vec<Self>> {
        let more = |n: usize| n.checked_add(wanted).filter(|all| *all <= most);
        shared.requests.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some((0..wanted).map(|_| Self(Arc::clone(shared))).collect())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Sends requests to the engine's thread. Dropping it ends what runs and waits for the thread.
#[derive(Debug)]
pub struct EngineHandle {
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    stopping: Arc<AtomicBool>,
    parallel: usize,
    queue: usize,
    n_ctx: usize,
    n_batch: usize,
}

impl EngineHandle {
    /// Runs `make` on a thread of its own, waits for its result and serves with it.
    ///
    /// # Errors
    /// What `make` failed with, or why there is no thread.
    pub(super) fn start<F: Forward, E: Send + 'static>(
        config: EngineConfig,
        make: impl FnOnce() -> Result<(F, Option<Drafter<F>>), E> + Send + 'static,
        no_thread: impl FnOnce(String) -> E,
    ) -> Result<Self, E> {
        let (commands, receiver) = commands_channel();
        let (ready, readiness) = sync_channel(1);
        let shared = Arc::new(Shared::new());
        let stopping = Arc::new(AtomicBool::new(false));
        let (thread_shared, thread_stopping) = (Arc::clone(&shared), Arc::clone(&stopping));
        let (parallel, queue) = (config.parallel, config.queue);
        let spawned = std::thread::Builder::new().name("engine".into()).spawn(move || match make() {
            Ok((forward, drafter)) => {
                let _ = thread_shared.abort.set(forward.aborter());
                let Shape { n_ctx_seq, n_batch, .. } = forward.shape();
                let engine = Engine::new(forward, drafter, config, thread_shared, thread_stopping);
                if ready.send(Ok((n_ctx_seq, n_batch))).is_ok() {
                    engine.run(&receiver);
                }
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        });
        let thread = match spawned {
            Ok(thread) => thread,
            Err(error) => return Err(no_thread(error.to_string())),
        };
        let (n_ctx, n_batch) = match readiness.recv() {
            Ok(result) => result?,
            Err(_) => return Err(no_thread("it died while it started; its panic is in the log".into())),
        };
        Ok(Self { commands: Some(commands), thread: Some(thread), shared, stopping, parallel, queue, n_ctx, n_batch })
    }

    /// Tokens that one sequence can hold, prompt and answer together.
    #[must_use]
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Rows that one pass has at most.
    #[must_use]
    pub fn n_batch(&self) -> usize {
        self.n_batch
    }

    /// Queues a generation.
    ///
    /// # Errors
    /// [`EngineError::Overloaded`] at once where the queue is full; a prompt that is empty or can never fit;
    /// parameters out of range.
    pub fn submit(&self, job: Job) -> Result<EventStream, EngineError> {
        self.submit_all(vec![job])?.pop().ok_or(EngineError::Stopped)
    }

    /// As [`EngineHandle::submit`], all of them or none.
    ///
    /// # Errors
    /// Those too, and [`EngineHandle::can_hold`]'s.
    pub fn submit_all(&self, jobs: Vec<Job>) -> Result<Vec<EventStream>, EngineError> {
        self.can_hold(jobs.len())?;
        jobs.iter().try_for_each(|job| self.check(job))?;
        let tickets = Ticket::take(&self.shared, jobs.len(), self.most()).ok_or_else(|| self.overloaded())?;
        jobs.into_iter().zip(tickets).map(|(job, ticket)| self.enqueue(job, ticket)).collect()
    }

    /// Whether so many generations can be queued together when nothing else is.
    ///
    /// # Errors
    /// [`EngineError::TooMany`].
    pub fn can_hold(&self, asked: usize) -> Result<(), EngineError> {
        let most = self.most();
        if asked <= most { Ok(()) } else { Err(EngineError::TooMany { asked, most }) }
    }

    /// Whether so many generations could be queued right now.
    ///
    /// # Errors
    /// [`EngineError::Overloaded`].
    pub fn has_room(&self, asked: usize) -> Result<(), EngineError> {
        let all = self.requests().saturating_add(asked);
        if all <= self.most() { Ok(()) } else { Err(self.overloaded()) }
    }

    fn overloaded(&self) -> EngineError {
        EngineError::Overloaded { running: self.parallel, waiting: self.queue }
    }

    /// Requests that wait or run.
    fn most(&self) -> usize {
        self.parallel.saturating_add(self.queue)
    }

    fn check(&self, job: &Job) -> Result<(), EngineError> {
        job.sampling.validate().map_err(EngineError::Parameter)?;
        if let Some(image) = job.images.iter().find(|image| image.whole && image.n > self.n_batch) {
            return Err(EngineError::ImageTooLarge { rows: image.n, most: self.n_batch });
        }
        self.fits(&job.prompt)
    }

    /// Whether a prompt leaves room for an answer.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`], [`EngineError::PromptTooLong`].
    pub fn fits(&self, prompt: &[TokenId]) -> Result<(), EngineError> {
        if prompt.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        if prompt.len() >= self.n_ctx {
            return Err(EngineError::PromptTooLong { prompt_tokens: prompt.len(), context_tokens: self.n_ctx });
        }
        Ok(())
    }

    fn enqueue(&self, job: Job, ticket: Ticket) -> Result<EventStream, EngineError> {
        let images = Images::of(&job.prompt, job.images).map_err(EngineError::Failed)?;
        let (events, stream) = channel(Some(self.on_signal()?), job.prompt.len());
        let request = Request {
            prompt: job.prompt,
            images,
            sampling: job.sampling,
            stop: job.stop,
            max_tokens: job.max_tokens,
            priority: job.priority,
            shown: job.shown,
            filter: job.filter,
            adapters: job.adapters,
            logprobs: job.logprobs,
            events,
            ticket,
            submitted: job.begun.unwrap_or_else(Instant::now),
        };
        self.send(Command::Generate(Box::new(request)))?;
        Ok(stream)
    }

    fn on_signal(&self) -> Result<OnSignal, EngineError> {
        let commands = self.commands.clone().ok_or(EngineError::Stopped)?;
        let shared = Arc::clone(&self.shared);
        Ok(Arc::new(move |signal| {
            if let Signal::Cancelled { pass: Some(pass) } = signal {
                shared.left_pass(pass);
            }
            // An engine that has ended needs no waking.
            let _ = commands.send(Command::Wake);
        }))
    }

    /// Lets go of an adapter once the last generation with it has ended. What the cache holds of it is forgotten at once.
    pub fn unload_adapter(&self, adapter: &EngineAdapter) {
        adapter.set_unloaded();
        // An engine that has ended holds none.
        let _ = self.send(Command::Unloaded(adapter.id()));
    }

    /// Measures speed when nothing else runs, and waits for the result in tokens per second.
    ///
    /// # Errors
    /// [`EngineError::Stopped`], or what the model failed with.
    pub fn measure(&self, what: Measure, adapters: AdapterSet) -> Result<f64, EngineError> {
        let (done, result) = sync_channel(1);
        self.send(Command::Measure(what, adapters, done))?;
        result.recv().map_err(|_| EngineError::Stopped)?.map_err(EngineError::Failed)
    }

    fn send(&self, command: Command) -> Result<(), EngineError> {
        let commands = self.commands.as_ref().ok_or(EngineError::Stopped)?;
        commands.send(command).map_err(|_| EngineError::Stopped)
    }

    /// Requests that wait or run.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Acquire)
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.shared.abort();
        // Streams that are still held elsewhere keep a sender alive, so the engine is told, not only left.
        if let Some(commands) = self.commands.take() {
            let _ = commands.send(Command::Wake);
        }
        if let Some(thread) = self.thread.take() {
            // A panic there was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}
