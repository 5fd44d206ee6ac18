//! Choosing the next token from its logits.

use std::ptr::NonNull;

use super::context::Logits;
use super::error::{LlamaError, check};
use super::grammar::Grammar;
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
        }
    }
}

/// Draws tokens and remembers what the penalties need. After an error it is poisoned: end the sequence.
#[derive(Debug)]
pub struct Sampler {
    vocab: Vocab,
    temperature: f32,
    penalties: Option<Chain>,
    filters: Chain,
    dist: Chain,
    grammar: Option<Grammar>,
    candidates: Vec<llama_sys::llama_token_data>,
    poisoned: bool,
}

impl Sampler {
    /// # Errors
    /// [`LlamaError::Parameter`] names the value that is out of range.
    pub fn new(vocab: &Vocab, config: &SamplerConfig) -> Result<Self, LlamaError> {
        validate(config)?;
        let params = llama_sys::shim_sampling {
            n_vocab: i32::try_from(vocab.n_tokens()).unwrap_or(i32::MAX),
            top_k: i32::try_from(config.top_k).unwrap_or(i32::MAX),
            top_p: config.top_p,
            min_p: config.min_p,
            typical_p: config.typical_p,
            penalty_last_n: i32::try_from(config.penalty_last_n).unwrap_or(i32::MAX),
            penalty_repeat: config.repeat_penalty,
            penalty_frequency: config.frequency_penalty,
            penalty_presence: config.presence_penalty,
            seed: config.seed,
        };
        let mut raw = llama_sys::shim_samplers::default();
        // SAFETY: fills three owned pointers, the first of which may be null.
        let status = unsafe { llama_sys::shim_samplers_init(&raw const params, &raw mut raw) };
        check("creating a sampler", status, String::new())?;
        let (Some(filters), Some(dist)) = (NonNull::new(raw.filters), NonNull::new(raw.dist)) else {
            return Err(LlamaError::Poisoned);
        };
        Ok(Self {
            vocab: vocab.clone(),
            temperature: config.temperature,
            penalties: NonNull::new(raw.penalties).map(Chain),
            filters: Chain(filters),
            dist: Chain(dist),
            grammar: None,
            candidates: Vec::new(),
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
    ///
    /// # Errors
    /// What llama.cpp threw.
    pub fn accept(&mut self, token: Token) -> Result<(), LlamaError> {
        match &mut self.penalties {
            Some(chain) => chain.accept(token),
            None => Ok(()),
        }
    }

    fn choose(&mut self, logits: &[f32]) -> Result<Token, LlamaError> {
        if self.temperature == 0.0 && self.penalties.is_none() && self.grammar.is_none() {
            return arg_max(logits);
        }
        // llama.cpp's sorts and draws assume an order, which NaN has not, and a finite sum.
        if logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            return Err(LlamaError::NanLogits);
        }
        self.candidates.clear();
        self.candidates.extend((0i32..).zip(logits).map(|(id, logit)| llama_sys::llama_token_data {
            id,
            logit: *logit,
            p: 0.0,
        }));
        if let Some(grammar) = &mut self.grammar {
            let mut array = array(&mut self.candidates);
            grammar.apply(&mut array)?;
        }
        if let Some(penalties) = &mut self.penalties {
            penalties.apply(&mut array(&mut self.candidates))?;
        }
        let token = if self.temperature == 0.0 { best(&self.candidates)? } else { self.draw()? };
        if let Some(grammar) = &mut self.grammar {
            grammar.accept(token)?;
        }
        self.accept(token)?;
        Ok(token)
    }

    /// Filters, applies the temperature and draws.
    fn draw(&mut self) -> Result<Token, LlamaError> {
        let mut view = array(&mut self.candidates);
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

fn array(candidates: &mut [llama_sys::llama_token_data]) -> llama_sys::llama_token_data_array {
    llama_sys::llama_token_data_array {
        data: candidates.as_mut_ptr(),
        size: candidates.len(),
        selected: -1,
        sorted: false,
    }
}

/// The index of the largest logit. Split in lanes, so that the compiler can use vector instructions.
fn arg_max(logits: &[f32]) -> Result<Token, LlamaError> {
    let mut best = f32::NEG_INFINITY;
    for chunk in logits.chunks(256) {
        best = chunk.iter().copied().fold(best, |a, b| if b > a { b } else { a });
    }
    let index = logits.iter().position(|logit| *logit == best).ok_or(LlamaError::NanLogits)?;
    i32::try_from(index).ok().and_then(Token::from_raw).ok_or(LlamaError::NanLogits)
}

fn best(candidates: &[llama_sys::llama_token_data]) -> Result<Token, LlamaError> {
    let best = candidates.iter().filter(|c| c.logit > f32::NEG_INFINITY).max_by(|a, b| a.logit.total_cmp(&b.logit));
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
