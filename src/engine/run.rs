//! The engine thread's loop: takes commands, prefills, decodes, samples, emits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::llama::{Batch, Context, LlamaError, Pos, SeqId, Token, Vocab};

use super::command::Command;
use super::error::EngineError;
use super::event::{Event, FinishReason, Summary, Timings, Usage};
use super::request::Request;
use super::sequence::{Sequence, Step};
use super::stream::EventSender;

pub(super) struct Engine {
    context: Context,
    batch: Batch,
    vocab: Vocab,
    seq: SeqId,
    waiting: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
}

/// When the phases of one generation ended.
struct Clock {
    submitted: Instant,
    started: Instant,
    prefilled: Option<Instant>,
}

impl Engine {
    pub fn new(context: Context, waiting: Arc<AtomicUsize>, stopping: Arc<AtomicBool>) -> Result<Self, LlamaError> {
        let vocab = context.model().vocab()?;
        let batch = Batch::new(&context);
        let seq = context.seq(0)?;
        Ok(Self { context, batch, vocab, seq, waiting, stopping })
    }

    /// Serves until every sender is gone.
    pub fn run(mut self, commands: &Receiver<Command>) {
        while let Ok(command) = commands.recv() {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            match command {
                Command::Generate(request) => self.generate(request),
                Command::Run(job) => job.0(&mut self.context),
            }
        }
    }

    fn generate(&mut self, request: Request) {
        let clock = Clock { submitted: request.submitted, started: Instant::now(), prefilled: None };
        let prompt_tokens = u32::try_from(request.prompt.len()).unwrap_or(u32::MAX);
        let room = u32::try_from(self.context.n_ctx().saturating_sub(request.prompt.len())).unwrap_or(u32::MAX);
        let abort = self.context.abort_flag();
        // The previous request's reader may have cancelled after its last decode.
        abort.clear();
        let events = request.events.clone();
        events.control().on_cancel(Some(Box::new(move || abort.abort())));
        let prompt = request.prompt.clone();
        let event = match Sequence::new(&self.vocab, request, room) {
            Ok(mut sequence) => self.drive(&mut sequence, &prompt, clock, prompt_tokens),
            Err(error) => Event::Error(EngineError::Failed(error.to_string())),
        };
        events.control().on_cancel(None);
        // A reader that has left needs no last word.
        let _ = events.send(event);
        if let Err(error) = self.context.kv().clear() {
            tracing::error!(%error, "the KV cache could not be cleared");
        }
    }

    /// Runs the sequence to its end and says how it ended.
    fn drive(&mut self, sequence: &mut Sequence, prompt: &[Token], mut clock: Clock, prompt_tokens: u32) -> Event {
        let outcome = self.prefill(&sequence.events, prompt).and_then(|()| {
            clock.prefilled = Some(Instant::now());
            self.decode(sequence, prompt.len())
        });
        let (reason, stop) = match outcome {
            Ok(Step::Finished { reason, stop }) => (reason, stop),
            Ok(Step::Continue) | Err(LlamaError::Aborted) => (FinishReason::Cancelled, None),
            Err(error) => return Event::Error(EngineError::Failed(error.to_string())),
        };
        if reason == FinishReason::Cancelled {
            if self.stopping.load(Ordering::Acquire) {
                return Event::Error(EngineError::Stopped);
            }
            sequence.flush();
        }
        Event::Done(Summary {
            reason,
            stop,
            seed: sequence.seed,
            usage: Usage { prompt_tokens, completion_tokens: sequence.generated, cached_tokens: 0 },
            timings: clock.timings(sequence.generated),
        })
    }

    fn is_cancelled(&self, events: &EventSender) -> bool {
        events.is_cancelled() || self.stopping.load(Ordering::Acquire)
    }

    /// Fills the KV cache with the prompt, one logical batch at a time.
    fn prefill(&mut self, events: &EventSender, prompt: &[Token]) -> Result<(), LlamaError> {
        let capacity = self.batch.capacity();
        for (index, chunk) in prompt.chunks(capacity).enumerate() {
            if self.is_cancelled(events) {
                return Err(LlamaError::Aborted);
            }
            self.batch.clear();
            let start = index * capacity;
            for (offset, token) in chunk.iter().enumerate() {
                let at = start + offset;
                self.batch.add(*token, Pos::new(at)?, self.seq, at + 1 == prompt.len())?;
            }
            self.context.decode(&mut self.batch)?;
        }
        Ok(())
    }

    /// Samples and decodes token by token until the sequence ends. `Step::Continue` means it was cancelled.
    fn decode(&mut self, sequence: &mut Sequence, prompt_len: usize) -> Result<Step, LlamaError> {
        if sequence.is_exhausted() {
            return Ok(Step::Finished { reason: FinishReason::Length, stop: None });
        }
        let mut position = prompt_len;
        loop {
            if self.is_cancelled(&sequence.events) {
                return Ok(Step::Continue);
            }
            if let Some(temperature) = sequence.events.control().take_temperature() {
                sequence.sampler.set_temperature(temperature)?;
            }
            let row = self.batch.len() - 1;
            let token = sequence.sampler.sample(self.context.logits(row)?)?;
            match sequence.push(token)? {
                Step::Continue => {}
                finished @ Step::Finished { .. } => return Ok(finished),
            }
            self.batch.clear();
            self.batch.add(token, Pos::new(position)?, self.seq, true)?;
            position += 1;
            self.context.decode(&mut self.batch)?;
        }
    }
}

impl Clock {
    fn timings(&self, generated: u32) -> Timings {
        let now = Instant::now();
        let prefilled = self.prefilled.unwrap_or(now);
        let decode = now - prefilled;
        let after_first = f64::from(generated.saturating_sub(1));
        Timings {
            queue_ms: ms(self.started - self.submitted),
            prefill_ms: ms(prefilled - self.started),
            decode_ms: ms(decode),
            ttft_ms: ms(prefilled - self.submitted),
            tokens_per_second: if decode.is_zero() { 0.0 } else { after_first / decode.as_secs_f64() },
        }
    }
}

/// Milliseconds, rounded to a microsecond.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
