//! Choosing the next token from its logits.

use std::ptr::NonNull;

use super::context::Logits;
use super::error::{LlamaError, check};
use super::grammar::Grammar;
use super::penalties::Penalties;
use super::select::select_top;
use super::vocab::{Token, Vocab};

/// How to choose. Values must be in range; [`Sampler::new`] checks.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerConfig {
    /// 0 always takes the most likely token.
    pub temperature: f32,
    /// Keep the k most likely, 0 = all.
    pub top_k: u32,
    /// Keep the most likely whose probabilities sum to this, 1 = all.
    pub top_p: f32,
    /// Drop what is less likely than this share of the most likely, 0 = none.
    pub min_p: f32,
    /// Locally typical sampling, 1 = off.
    pub typical_p: f32,
    /// How many of the latest tokens the penalties look at.
    pub penalty_last_n: u32,
    /// Divides the logits of repeated tokens, 1 = off.
    pub repeat_penalty: f32,
    /// Subtracted once per occurrence, 0 = off.
    pub frequency_penalty: f32,
    /// Subtracted once if it occurred at all, 0 = off.
    pub presence_penalty: f32,
    pub seed: u32,
    /// Never choose a token that ends the generation.
    pub ignore_end: bool,
}

impl Default for SamplerConfig {
    /// Plain sampling at temperature 0.8 from the 40 most likely tokens.
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            penalty_last_n: 64,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
            ignore_end: false,
        }
    }
}

/// Draws tokens and remembers what the penalties need. After an error it is poisoned: end the sequence.
///
/// The order is that of llama.cpp: penalties, top-k, typical, top-p, min-p, temperature, draw. Penalties and top-k are
/// our own, since they need not touch the whole vocabulary; what is left then is small.
#[derive(Debug)]
pub struct Sampler {
    vocab: Vocab,
    temperature: f32,
    top_k: usize,
    penalties: Option<Penalties>,
    /// Tokens that are never chosen.
    banned: Vec<i32>,
    filters: Chain,
    dist: Chain,
    grammar: Option<Grammar>,
    candidates: Vec<llama_sys::llama_token_data>,
    top: Vec<(f32, i32)>,
    poisoned: bool,
}

impl Sampler {
    /// # Errors
    /// [`LlamaError::Parameter`] names the value that is out of range.
    pub fn new(vocab: &Vocab, config: &SamplerConfig) -> Result<Self, LlamaError> {
        validate(config)?;
        let params = llama_sys::shim_sampling {
            top_p: config.top_p,
            min_p: config.min_p,
            typical_p: config.typical_p,
            seed: config.seed,
        };
        let mut raw = llama_sys::shim_samplers::default();
        // SAFETY: fills two owned pointers.
        let status = unsafe { llama_sys::shim_samplers_init(&raw const params, &raw mut raw) };
        check("creating a sampler", status, String::new())?;
        let (Some(filters), Some(dist)) = (NonNull::new(raw.filters), NonNull::new(raw.dist)) else {
            return Err(LlamaError::Poisoned);
        };
        Ok(Self {
            vocab: vocab.clone(),
            temperature: config.temperature,
            top_k: config.top_k as usize,
            penalties: Penalties::new(
                config.repeat_penalty,
                config.frequency_penalty,
                config.presence_penalty,
                config.penalty_last_n as usize,
            ),
            banned: if config.ignore_end {
                vocab.end_tokens().iter().map(|token| token.raw()).collect()
            } else {
                Vec::new()
            },
            filters: Chain(filters),
            dist: Chain(dist),
            grammar: None,
            candidates: Vec::new(),
            top: Vec::new(),
            poisoned: false,
        })
    }

    /// Allows only what the grammar accepts.
    #[must_use]
    pub fn with_grammar(mut self, grammar: Grammar) -> Self {
        self.grammar = Some(grammar);
        self
    }

    /// From the next token on.
    ///
    /// # Errors
    /// [`LlamaError::Parameter`] for a negative or infinite temperature.
    pub fn set_temperature(&mut self, temperature: f32) -> Result<(), LlamaError> {
        self.temperature =
            check_range("temperature", temperature, 0.0, f32::MAX, "must be a finite number of at least 0")?;
        Ok(())
    }

    /// Chooses the next token and remembers it.
    ///
    /// # Errors
    /// [`LlamaError::NanLogits`], or what llama.cpp threw. The sampler is then poisoned.
    pub fn sample(&mut self, logits: Logits<'_>) -> Result<Token, LlamaError> {
        if self.poisoned {
            return Err(LlamaError::Poisoned);
        }
        let result = self.choose(logits.as_slice());
        self.poisoned = result.is_err();
        result
    }

    /// Tells the penalties about a token that was not sampled, e.g. one of the prompt.
    pub fn accept(&mut self, token: Token) {
        if let Some(penalties) = &mut self.penalties {
            penalties.accept(token.raw());
        }
    }

    fn choose(&mut self, logits: &[f32]) -> Result<Token, LlamaError> {
        // Below this, dividing by it leaves nothing that could be told apart.
        let greedy = self.temperature < 1e-6;
        let k = if greedy { 1 } else { self.top_k };
        let sorted = if k > 0 && self.grammar.is_none() {
            self.take_top(logits, k)?;
            true
        } else {
            self.take_all(logits)?;
            false
        };
        let token = if greedy { best(&self.candidates)? } else { self.draw(sorted)? };
        if let Some(grammar) = &mut self.grammar {
            grammar.accept(token)?;
        }
        self.accept(token);
        Ok(token)
    }

    /// Makes the `k` most likely tokens the candidates, in order.
    fn take_top(&mut self, logits: &[f32], k: usize) -> Result<(), LlamaError> {
        let penalised = self.penalties.as_ref().map_or(0, Penalties::len);
        // Whatever happens to these, the best k are among the k best of the others and the penalised.
        let spare = penalised + self.banned.len();
        select_top(logits, k.saturating_add(spare), &mut self.top)?;
        if spare > 0 {
            let banned = |token: i32| self.banned.contains(&token);
            let is_penalised = |token: i32| self.penalties.as_ref().is_some_and(|p| p.contains(token));
            self.top.retain(|(_, token)| !banned(*token) && !is_penalised(*token));
            self.top.truncate(k);
            if let Some(penalties) = &self.penalties {
                self.top.extend(penalties.adjusted(logits).filter(|(_, token)| !banned(*token)));
                self.top.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                self.top.truncate(k);
            }
        }
        self.candidates.clear();
        self.candidates.extend(self.top.iter().map(|(logit, id)| candidate(*id, *logit)));
        Ok(())
    }

    /// Makes the whole vocabulary the candidates, or what the grammar allows of it and top-k leaves.
    fn take_all(&mut self, logits: &[f32]) -> Result<(), LlamaError> {
        // llama.cpp's sorts and draws assume an order, which NaN has not, and a finite sum.
        if logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            return Err(LlamaError::NanLogits);
        }
        self.candidates.clear();
        self.candidates.extend((0i32..).zip(logits).map(|(id, logit)| candidate(id, *logit)));
        for token in &self.banned {
            if let Some(candidate) = usize::try_from(*token).ok().and_then(|index| self.candidates.get_mut(index)) {
                candidate.logit = f32::NEG_INFINITY;
            }
        }
        if let Some(grammar) = &mut self.grammar {
            grammar.apply(&mut array(&mut self.candidates, false))?;
        }
        // Filters take logarithms of probabilities.
        self.candidates.retain(|candidate| candidate.logit > f32::NEG_INFINITY);
        if let Some(penalties) = &self.penalties {
            let adjusted: std::collections::HashMap<i32, f32> =
                penalties.adjusted(logits).map(|(logit, id)| (id, logit)).collect();
            for candidate in &mut self.candidates {
                candidate.logit = adjusted.get(&candidate.id).copied().unwrap_or(candidate.logit);
            }
        }
        if self.top_k > 0 && self.candidates.len() > self.top_k {
            let order = |a: &llama_sys::llama_token_data, b: &llama_sys::llama_token_data| b.logit.total_cmp(&a.logit);
            self.candidates.select_nth_unstable_by(self.top_k - 1, order);
            self.candidates.truncate(self.top_k);
        }
        Ok(())
    }

    /// Filters, applies the temperature and draws.
    fn draw(&mut self, sorted: bool) -> Result<Token, LlamaError> {
        let mut view = array(&mut self.candidates, sorted);
        self.filters.apply(&mut view)?;
        if view.data != self.candidates.as_mut_ptr() || view.size > self.candidates.len() {
            return Err(LlamaError::Poisoned);
        }
        for candidate in &mut self.candidates[..view.size] {
            candidate.logit /= self.temperature;
        }
        self.dist.apply(&mut view)?;
        let chosen = usize::try_from(view.selected).ok().filter(|index| *index < view.size);
        let id = chosen.map(|index| self.candidates[index].id).ok_or(LlamaError::NanLogits)?;
        let token = Token::from_raw(id).ok_or(LlamaError::NanLogits)?;
        if token.index() < self.vocab.n_tokens() { Ok(token) } else { Err(LlamaError::NanLogits) }
    }
}

fn candidate(id: i32, logit: f32) -> llama_sys::llama_token_data {
    llama_sys::llama_token_data { id, logit, p: 0.0 }
}

fn array(candidates: &mut [llama_sys::llama_token_data], sorted: bool) -> llama_sys::llama_token_data_array {
    llama_sys::llama_token_data_array { data: candidates.as_mut_ptr(), size: candidates.len(), selected: -1, sorted }
}

fn best(candidates: &[llama_sys::llama_token_data]) -> Result<Token, LlamaError> {
    let possible = candidates.iter().filter(|c| c.logit > f32::NEG_INFINITY);
    // Of equal ones the first, as in a sorted list.
    let best = possible.reduce(|best, c| if c.logit > best.logit { c } else { best });
    best.and_then(|candidate| Token::from_raw(candidate.id)).ok_or(LlamaError::NanLogits)
}

fn validate(c: &SamplerConfig) -> Result<(), LlamaError> {
    check_range("temperature", c.temperature, 0.0, f32::MAX, "must be a finite number of at least 0")?;
    check_range("top_p", c.top_p, 0.0, 1.0, "must be between 0 and 1")?;
    check_range("min_p", c.min_p, 0.0, 1.0, "must be between 0 and 1")?;
    check_range("typical_p", c.typical_p, 0.0, 1.0, "must be between 0 and 1")?;
    check_range("repeat_penalty", c.repeat_penalty, f32::MIN_POSITIVE, f32::MAX, "must be a finite number above 0")?;
    check_range("frequency_penalty", c.frequency_penalty, f32::MIN, f32::MAX, "must be finite")?;
    check_range("presence_penalty", c.presence_penalty, f32::MIN, f32::MAX, "must be finite")?;
    Ok(())
}

fn check_range(name: &'static str, value: f32, min: f32, max: f32, expected: &'static str) -> Result<f32, LlamaError> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(LlamaError::Parameter { name, value: value.to_string(), expected })
    }
}

/// An owned `llama_sampler` chain.
#[derive(Debug)]
pub(super) struct Chain(NonNull<llama_sys::llama_sampler>);

// SAFETY: a chain is memory of its own that no thread-local or context points at; `&mut` keeps its use exclusive.
unsafe impl Send for Chain {}

impl Drop for Chain {
    fn drop(&mut self) {
        // SAFETY: owned by us and not used after this.
        unsafe { llama_sys::llama_sampler_free(self.0.as_ptr()) };
    }
}

impl Chain {
    pub(super) fn from_raw(raw: NonNull<llama_sys::llama_sampler>) -> Self {
        Self(raw)
    }

    pub(super) fn apply(&mut self, array: &mut llama_sys::llama_token_data_array) -> Result<(), LlamaError> {
        // SAFETY: the array points at live candidates that nobody else holds.
        check("sampling", unsafe { llama_sys::shim_sampler_apply(self.0.as_ptr(), array) }, String::new())
    }

    pub(super) fn accept(&mut self, token: Token) -> Result<(), LlamaError> {
        // SAFETY: an owned sampler; the token comes from its vocabulary.
        check(
            "accepting a token",
            unsafe { llama_sys::shim_sampler_accept(self.0.as_ptr(), token.raw()) },
            String::new(),
        )
    }
}
