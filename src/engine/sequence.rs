//! One generation in progress: from sampled tokens to text, and when to stop.

use crate::llama::{LlamaError, Sampler, SamplerConfig, Token, Vocab};

use super::detokenizer::Detokenizer;
use super::event::{Event, FinishReason};
use super::request::{Request, SamplingParams, random_seed};
use super::stop::StopMatcher;
use super::stream::EventSender;

#[derive(Debug)]
pub(super) struct Sequence {
    vocab: Vocab,
    pub sampler: Sampler,
    detokenizer: Detokenizer,
    stop: StopMatcher,
    pub events: EventSender,
    pub seed: u32,
    pub generated: u32,
    /// Most tokens to generate: what was asked, within what the context holds.
    limit: u32,
    /// Text of the step under way. Kept to reuse its memory.
    fresh: String,
}

/// What a token meant for the sequence.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Continue,
    Finished { reason: FinishReason, stop: Option<String> },
}

impl Sequence {
    pub fn new(vocab: &Vocab, mut request: Request, room: u32) -> Result<Self, LlamaError> {
        // The penalties reserve memory for as many tokens as they look back.
        request.sampling.repeat_last_n =
            request.sampling.repeat_last_n.min(room.saturating_add(u32::try_from(request.prompt.len()).unwrap_or(0)));
        let seed = request.sampling.seed.unwrap_or_else(random_seed);
        let mut sampler = Sampler::new(vocab, &sampler_config(&request.sampling, seed))?;
        // The penalties look back into the prompt, as llama.cpp's own programs let them.
        let window = request.sampling.repeat_last_n as usize;
        for token in &request.prompt[request.prompt.len().saturating_sub(window)..] {
            sampler.accept(*token)?;
        }
        Ok(Self {
            vocab: vocab.clone(),
            sampler,
            detokenizer: Detokenizer::default(),
            stop: StopMatcher::new(request.stop),
            events: request.events,
            seed,
            generated: 0,
            limit: request.max_tokens.unwrap_or(u32::MAX).min(room),
            fresh: String::new(),
        })
    }

    /// Whether the reader wants nothing at all.
    pub fn is_exhausted(&self) -> bool {
        self.generated >= self.limit
    }

    /// Takes a sampled token in and emits the text that it completes.
    pub fn push(&mut self, token: Token) -> Result<Step, LlamaError> {
        if self.vocab.is_end_of_generation(token)? {
            self.flush();
            return Ok(Step::Finished { reason: FinishReason::Eos, stop: None });
        }
        self.generated += 1;
        self.vocab.append_piece(token, false, self.detokenizer.buffer())?;
        let mut whole = std::mem::take(&mut self.fresh);
        whole.clear();
        self.detokenizer.take(&mut whole);
        let mut shown = String::new();
        let hit = self.stop.push(&whole, &mut shown);
        self.fresh = whole;
        self.emit(shown);
        if hit.is_some() {
            return Ok(Step::Finished { reason: FinishReason::Stop, stop: hit });
        }
        if self.is_exhausted() {
            self.flush();
            return Ok(Step::Finished { reason: FinishReason::Length, stop: None });
        }
        Ok(Step::Continue)
    }

    /// Emits what the stop matcher and an unfinished character held back.
    pub fn flush(&mut self) {
        let (mut whole, mut shown) = (String::new(), String::new());
        self.detokenizer.finish(&mut whole);
        if self.stop.push(&whole, &mut shown).is_none() {
            self.stop.finish(&mut shown);
        }
        self.emit(shown);
    }

    fn emit(&self, text: String) {
        if !text.is_empty() {
            // A reader that left is noticed by is_cancelled before the next step.
            let _ = self.events.send(Event::Token { text });
        }
    }
}

fn sampler_config(params: &SamplingParams, seed: u32) -> SamplerConfig {
    SamplerConfig {
        temperature: params.temperature,
        top_k: params.top_k,
        top_p: params.top_p,
        min_p: params.min_p,
        typical_p: params.typical_p,
        penalty_last_n: params.repeat_last_n,
        repeat_penalty: params.repeat_penalty,
        frequency_penalty: params.frequency_penalty,
        presence_penalty: params.presence_penalty,
        seed,
    }
}
