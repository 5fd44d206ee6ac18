//! One generation in progress: its tokens, from sampled tokens to text, and when to stop.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::adapters::AdapterSet;
use super::detokenizer::Detokenizer;
use super::event::{Event, FinishReason, Summary, Timings, TokenLogprob, Usage};
use super::forward::{Forward, Probabilities, TokenId};
use super::handle::Ticket;
use super::image::Images;
use super::request::{Request, random_seed};
use super::stop::StopMatcher;
use super::stream::EventSender;

#[derive(Debug)]
pub(super) struct Sequence {
    /// The prompt and what was generated.
    pub tokens: Vec<TokenId>,
    pub images: Images,
    pub prompt_len: usize,
    /// Tokens of it that are in the cache. What follows them comes next.
    pub computed: usize,
    /// Its id in the cache while it runs.
    pub seq: u32,
    /// Whether it has caught up with its own tokens, and goes on one by one.
    pub decoding: bool,
    /// How far its prompt may go in one pass, where others wait for that point.
    pub cut: usize,
    /// The same request is to give the same text again, see [`Sequence::own_cut`].
    pub repeatable: bool,
    /// What it is computed with besides the model.
    pub adapters: AdapterSet,
    pub deadline: u64,
    /// The step in which it was last part of a pass.
    pub served: u64,
    /// Order of admission, for choosing who has to wait when cells run out.
    pub admitted: u64,
    pub events: EventSender,
    _ticket: Ticket,
    pub clock: Clock,
    cached_tokens: u32,
    seed: u32,
    generated: u32,
    /// Most tokens to generate: what was asked, within what the context holds.
    limit: u32,
    detokenizer: Detokenizer,
    stop: StopMatcher,
    /// Control tokens whose names are part of the text.
    shown_tokens: Vec<TokenId>,
    /// Text of the step under way. Kept to reuse its memory.
    fresh: String,
    shown: String,
    /// Where in the answer's text those tokens begin that are not out yet, in bytes.
    starts: VecDeque<usize>,
    /// Bytes of the answer's text that were made of tokens, and those of it that are out.
    made: usize,
    out: usize,
    /// Of the tokens that are not out yet.
    logprobs: VecDeque<TokenLogprob>,
}

/// When the phases of one generation ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub submitted: Instant,
    pub started: Option<Instant>,
    pub first_token: Option<Instant>,
    pub latest_token: Option<Instant>,
}

/// What a token meant for the sequence.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Continue,
    Finished { reason: FinishReason, stop: Option<String> },
}

impl Sequence {
    /// With its sampler, which has seen the prompt.
    pub fn new<F: Forward>(forward: &F, mut request: Request, deadline: u64) -> Result<(Self, F::Sampler), String> {
        let n_ctx = forward.shape().n_ctx_seq;
        // The penalties reserve memory for as many tokens as they look back.
        let longest = u32::try_from(n_ctx).unwrap_or(u32::MAX);
        request.sampling.repeat_last_n = request.sampling.repeat_last_n.min(longest);
        let seed = request.sampling.seed.unwrap_or_else(random_seed);
        let sampler = forward.sampler(&request.sampling, seed, &request.prompt, request.filter.take())?;
        let room = u32::try_from(n_ctx.saturating_sub(request.prompt.len())).unwrap_or(u32::MAX);
        let sequence = Self {
            prompt_len: request.prompt.len(),
            tokens: request.prompt,
            images: request.images,
            computed: 0,
            seq: 0,
            decoding: false,
            cut: usize::MAX,
            repeatable: request.sampling.seed.is_some(),
            adapters: request.adapters,
            deadline,
            served: 0,
            admitted: 0,
            events: request.events,
            _ticket: request.ticket,
            clock: Clock { submitted: request.submitted, started: None, first_token: None, latest_token: None },
            cached_tokens: 0,
            seed,
            generated: 0,
            limit: request.max_tokens.unwrap_or(u32::MAX).min(room),
            detokenizer: Detokenizer::default(),
            stop: StopMatcher::new(request.stop),
            shown_tokens: request.shown,
            fresh: String::new(),
            shown: String::new(),
            starts: VecDeque::new(),
            made: 0,
            out: 0,
            logprobs: VecDeque::new(),
        };
        Ok((sequence, sampler))
    }

    /// Tokens that are not in the cache yet.
    pub fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// How far its prompt may go in one pass for its own sake. A row alone is computed a little differently from one
    /// among many. When a prompt is cached its last token is computed alone; so that the text is the same then, it is
    /// computed alone the first time, too.
    pub fn own_cut(&self) -> usize {
        let before_last = (self.prompt_len - 1).saturating_sub(self.computed);
        if self.repeatable && before_last > 0 { before_last } else { usize::MAX }
    }

    /// Tokens that may still be generated.
    pub fn room(&self) -> usize {
        (self.limit - self.generated) as usize
    }

    /// It got its place in the cache, where `cached` tokens are already. The second time it was preempted before.
    pub fn start(&mut self, seq: u32, cached: usize, admitted: u64) {
        self.seq = seq;
        self.computed = cached;
        self.decoding = false;
        self.cut = usize::MAX;
        self.admitted = admitted;
        if self.clock.started.is_none() {
            self.clock.started = Some(Instant::now());
            self.cached_tokens = u32::try_from(cached.min(self.prompt_len)).unwrap_or(u32::MAX);
        }
    }

    pub fn cached_tokens(&self) -> u32 {
        self.cached_tokens
    }

    /// Whether the reader wants no more, or nothing at all.
    pub fn is_exhausted(&self) -> bool {
        self.generated >= self.limit
    }

    /// Takes a sampled token in and emits the text that it completes.
    pub fn push<F: Forward>(
        &mut self,
        forward: &F,
        token: TokenId,
        probabilities: Option<Probabilities>,
    ) -> Result<Step, String> {
        if forward.is_end(token) {
            self.flush();
            return Ok(Step::Finished { reason: FinishReason::Eos, stop: None });
        }
        self.tokens.push(token);
        self.generated += 1;
        forward.append_piece(token, self.shown_tokens.contains(&token), self.detokenizer.buffer())?;
        if let Some(probabilities) = probabilities {
            self.logprobs.push_back(in_bytes(forward, token, &probabilities)?);
        }
        self.starts.push_back(self.made);
        self.fresh.clear();
        self.detokenizer.take(&mut self.fresh);
        self.made += self.fresh.len();
        let hit = self.stop.push(&self.fresh, &mut self.shown);
        self.emit();
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
        self.fresh.clear();
        self.detokenizer.finish(&mut self.fresh);
        if self.stop.push(&self.fresh, &mut self.shown).is_none() {
            self.stop.finish(&mut self.shown);
        }
        self.emit();
    }

    /// Text of several tokens, where it was held back, goes out token by token.
    fn emit(&mut self) {
        let mut rest = self.shown.as_str();
        while !rest.is_empty() {
            let tokens = self.starts.iter().take_while(|start| **start <= self.out).count();
            self.starts.drain(..tokens);
            let logprobs = self.logprobs.drain(..tokens.min(self.logprobs.len())).collect();
            let len = self.starts.front().map_or(rest.len(), |next| (next - self.out).min(rest.len()));
            let (text, after) = rest.split_at(len);
            let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
            self.events.send(Event::Token { text: text.into(), tokens, logprobs });
            self.out += len;
            rest = after;
        }
        self.shown.clear();
    }

    pub fn summary(&self, reason: FinishReason, stop: Option<String>) -> Summary {
        Summary {
            reason,
            stop,
            seed: self.seed,
            usage: Usage {
                prompt_tokens: u32::try_from(self.prompt_len).unwrap_or(u32::MAX),
                completion_tokens: self.generated,
                cached_tokens: self.cached_tokens,
                reasoning_tokens: 0,
            },
            timings: self.clock.timings(self.generated),
        }
    }
}

fn in_bytes<F: Forward>(forward: &F, token: TokenId, found: &Probabilities) -> Result<TokenLogprob, String> {
    let piece = |token: TokenId| {
        let mut bytes = Vec::new();
        forward.append_piece(token, false, &mut bytes).map(|()| bytes)
    };
    // A token that ends the text has none itself.
    let top = found.top.iter().map(|(token, logprob)| (piece(*token).unwrap_or_default(), *logprob)).collect();
    Ok(TokenLogprob { bytes: piece(token)?, logprob: found.sampled, top })
}

impl Clock {
    fn timings(&self, generated: u32) -> Timings {
        let now = Instant::now();
        let started = self.started.unwrap_or(now);
        let prefilled = self.first_token.unwrap_or(now);
        let decode = now.saturating_duration_since(prefilled);
        let after_first = f64::from(generated.saturating_sub(1));
        Timings {
            queue_ms: ms(started.saturating_duration_since(self.submitted)),
            prefill_ms: ms(prefilled.saturating_duration_since(started)),
            decode_ms: ms(decode),
            ttft_ms: ms(prefilled.saturating_duration_since(self.submitted)),
            tokens_per_second: if decode.is_zero() { 0.0 } else { after_first / decode.as_secs_f64() },
        }
    }
}

/// Milliseconds, rounded to a microsecond.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
