//! The engine from outside: start it, submit to it, stop it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::llama::{Adapter, Context, ContextParams, LlamaError, Model, Token};

use super::command::{Command, Job};
use super::error::EngineError;
use super::request::{Request, SamplingParams};
use super::run::Engine;
use super::stream::{EventStream, channel};

/// How to run a model.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    pub context: ContextParams,
    /// Requests that may wait; one more is refused at once.
    pub queue: usize,
}

/// Sends requests to the engine's thread. Dropping it ends what runs and waits for the thread.
#[derive(Debug)]
pub struct EngineHandle {
    commands: Option<SyncSender<Command>>,
    thread: Option<JoinHandle<()>>,
    waiting: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    abort: crate::llama::AbortFlag,
    queue: usize,
    n_ctx: usize,
}

impl EngineHandle {
    /// Creates the context on a thread of its own and waits until it is ready.
    ///
    /// # Errors
    /// What creating the context or attaching the adapters failed with.
    pub fn start(model: &Model, adapters: Vec<(Adapter, f32)>, config: &EngineConfig) -> Result<Self, LlamaError> {
        let (commands, receiver) = sync_channel(config.queue);
        let (ready, readiness) = sync_channel(1);
        let waiting = Arc::new(AtomicUsize::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let (model, params) = (model.clone(), config.context.clone());
        let (thread_waiting, thread_stopping) = (Arc::clone(&waiting), Arc::clone(&stopping));
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || {
                let engine = Context::new(&model, &params).and_then(|mut context| {
                    context.set_adapters(&adapters)?;
                    let facts = (context.n_ctx(), context.abort_flag());
                    Ok((Engine::new(context, thread_waiting, thread_stopping)?, facts))
                });
                match engine {
                    Ok((engine, facts)) => {
                        if ready.send(Ok(facts)).is_ok() {
                            engine.run(&receiver);
                        }
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            })
            .map_err(|e| LlamaError::Native {
                call: "starting the engine's thread",
                status: 0,
                message: e.to_string(),
                log: String::new(),
            })?;
        let (n_ctx, abort) = readiness.recv().unwrap_or(Err(LlamaError::Aborted))?;
        Ok(Self {
            commands: Some(commands),
            thread: Some(thread),
            waiting,
            stopping,
            abort,
            queue: config.queue,
            n_ctx,
        })
    }

    /// Tokens that one sequence can hold, prompt and answer together.
    #[must_use]
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Queues a generation.
    ///
    /// # Errors
    /// [`EngineError::Overloaded`] at once where the queue is full; a prompt that is empty or can never fit;
    /// parameters out of range.
    pub fn submit(
        &self,
        prompt: Vec<Token>,
        sampling: SamplingParams,
        stop: Vec<String>,
        max_tokens: Option<u32>,
    ) -> Result<EventStream, EngineError> {
        sampling.validate().map_err(EngineError::Parameter)?;
        if prompt.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        if prompt.len() >= self.n_ctx {
            return Err(EngineError::PromptTooLong { prompt_tokens: prompt.len(), context_tokens: self.n_ctx });
        }
        // Each token gives at most one event, and the flush at the end, the summary or error two more.
        let (events, stream) = channel(self.n_ctx - prompt.len() + 3);
        self.send(Command::Generate(Request {
            prompt,
            sampling,
            stop,
            max_tokens,
            events,
            submitted: Instant::now(),
        }))?;
        Ok(stream)
    }

    /// Runs `job` on the engine's thread, between two requests, and waits for its result.
    ///
    /// # Errors
    /// As [`EngineHandle::submit`].
    pub fn with_context<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Context) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let (done, result) = sync_channel(1);
        self.send(Command::Run(Job(Box::new(move |context| {
            let _ = done.send(job(context));
        }))))?;
        result.recv().map_err(|_| EngineError::Stopped)
    }

    fn send(&self, command: Command) -> Result<(), EngineError> {
        let commands = self.commands.as_ref().ok_or(EngineError::Stopped)?;
        self.waiting.fetch_add(1, Ordering::AcqRel);
        commands.try_send(command).map_err(|error| {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            match error {
                TrySendError::Full(_) => EngineError::Overloaded { waiting: self.queue },
                TrySendError::Disconnected(_) => EngineError::Stopped,
            }
        })
    }

    /// Requests that wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.abort.abort();
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}
