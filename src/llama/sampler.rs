//! Choosing the next token from its logits.

use std::ptr::NonNull;

use crate::constrain::TokenFilter;

use super::error::{LlamaError, check};
use super::logits::Logits;
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
    /// Added to the logits of these tokens. Minus infinity bans one.
    pub bias: Vec<(Token, f32)>,
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
            bias: Vec::new(),
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
    filter: Option<Box<dyn TokenFilter>>,
    bias: Vec<(i32, f32)>,
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
            banned: {
                let ends = if config.ignore_end { vocab.end_tokens() } else { &[] };
                ends.iter().chain(&vocab.suppressed_tokens()).map(|token| token.raw()).collect()
            },
            filters: Chain(filters),
            dist: Chain(dist),
            filter: None,
            bias: config.bias.iter().map(|(token, bias)| (token.raw(), *bias)).collect(),
            candidates: Vec::new(),
            top: Vec::new(),
            poisoned: false,
        })
    }

    /// Chooses only what the filter allows.
    #[must_use]
    pub fn with_filter(mut self, filter: Box<dyn TokenFilter>) -> Self {
        self.filter = Some(filter);
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
        let sorted = if k > 0 && self.bias.is_empty() {
            self.take_top(logits, k)?;
            true
        } else {
            self.take_all(logits)?;
            false
        };
        let mut token = if greedy { best(&self.candidates)? } else { self.draw(sorted)? };
        if let Some(mut filter) = self.filter.take() {
            // What is drawn is nearly always allowed already; to ask for all that is allowed takes much longer. The
            // chances stay the same: a token that is refused is drawn again, from those that are not.
            if !filter.allows(token.index()).map_err(LlamaError::Form)? {
                self.take_allowed(logits, filter.allowed().map_err(LlamaError::Form)?)?;
                token = if greedy { best(&self.candidates)? } else { self.draw(false)? };
            }
            filter.accept(token.index()).map_err(LlamaError::Form)?;
            self.filter = Some(filter);
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

    /// Makes the whole vocabulary the candidates, or what top-k leaves of it.
    fn take_all(&mut self, logits: &[f32]) -> Result<(), LlamaError> {
        // llama.cpp's sorts and draws assume an order, which NaN has not, and a finite sum.
        if logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            return Err(LlamaError::NanLogits);
        }
        self.candidates.clear();
        self.candidates.extend((0i32..).zip(logits).map(|(id, logit)| candidate(id, *logit)));
        self.adjust(logits);
        Ok(())
    }

    /// Makes those the candidates whose bits are set, or what top-k leaves of them.
    fn take_allowed(&mut self, logits: &[f32], bits: &[u32]) -> Result<(), LlamaError> {
        self.candidates.clear();
        for (number, bits) in bits.iter().enumerate() {
            let mut left = *bits;
            while left != 0 {
                let index = number * 32 + left.trailing_zeros() as usize;
                left &= left - 1;
                let Some(logit) = logits.get(index) else { break };
                if logit.is_nan() || *logit == f32::INFINITY {
                    return Err(LlamaError::NanLogits);
                }
                let id = i32::try_from(index).map_err(|_| LlamaError::NanLogits)?;
                self.candidates.push(candidate(id, *logit));
            }
        }
        self.adjust(logits);
        if self.candidates.is_empty() {
            return Err(LlamaError::Form("the form of the answer leaves no token that could come next".into()));
        }
        Ok(())
    }

    /// Applies bans, biases, penalties and top-k to the candidates, which are in the order of their ids.
    fn adjust(&mut self, logits: &[f32]) {
        let at = |candidates: &[llama_sys::llama_token_data], token: i32| {
            candidates.binary_search_by_key(&token, |candidate| candidate.id).ok()
        };
        for token in &self.banned {
            if let Some(index) = at(&self.candidates, *token) {
                self.candidates[index].logit = f32::NEG_INFINITY;
            }
        }
        if let Some(penalties) = &self.penalties {
            for (logit, id) in penalties.adjusted(logits) {
                if let Some(index) = at(&self.candidates, id)
                    && self.candidates[index].logit > f32::NEG_INFINITY
                {
                    self.candidates[index].logit = logit;
                }
            }
        }
        for (token, bias) in &self.bias {
            if let Some(index) = at(&self.candidates, *token) {
                self.candidates[index].logit += bias;
            }
        }
        // Filters take logarithms of probabilities.
        self.candidates.retain(|candidate| candidate.logit > f32::NEG_INFINITY);
        if self.top_k > 0 && self.candidates.len() > self.top_k {
            let order = |a: &llama_sys::llama_token_data, b: &llama_sys::llama_token_data| b.logit.total_cmp(&a.logit);
            self.candidates.select_nth_unstable_by(self.top_k - 1, order);
            self.candidates.truncate(self.top_k);
        }
    }

    /// Filters, applies the temperature and draws.
    fn draw(&mut self, sorted: bool) -> Result<Token, LlamaError> {
        // llama.cpp aborts without candidates.
        if self.candidates.is_empty() {
            return Err(LlamaError::NanLogits);
        }
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
struct Chain(NonNull<llama_sys::llama_sampler>);

// SAFETY: a chain is memory of its own that no thread-local or context points at; `&mut` keeps its use exclusive.
unsafe impl Send for Chain {}

impl Drop for Chain {
    fn drop(&mut self) {
        // SAFETY: owned by us and not used after this.
        unsafe { llama_sys::llama_sampler_free(self.0.as_ptr()) };
    }
}

impl Chain {
    fn apply(&mut self, array: &mut llama_sys::llama_token_data_array) -> Result<(), LlamaError> {
        // SAFETY: the array points at live candidates that nobody else holds.
        check("sampling", unsafe { llama_sys::shim_sampler_apply(self.0.as_ptr(), array) }, String::new())
    }
}
