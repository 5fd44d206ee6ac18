//! What the engine needs of a model: forward passes over one context, its cache, and sampling. llama.cpp stands
//! behind it ([`super::llama_forward`]), or a simulation ([`super::simulation`]).

use std::time::Duration;

use crate::constrain::TokenFilter;

use super::adapters::AdapterSet;
use super::command::Measure;
use super::image::ImagePass;
use super::request::SamplingParams;

/// An entry of the model's vocabulary. In prompts also a row of an image, see [`super::is_image`].
pub type TokenId = u32;

/// One token of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub token: TokenId,
    pub pos: usize,
    pub seq: u32,
    /// Whether its logits are wanted.
    pub output: bool,
}

/// What part of a sequence can be kept or shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// Any beginning of it.
    Any,
    /// The whole of it, or what a [`Forward::save`] kept: the memory is a state that moves on with each token.
    Whole,
    /// Nothing: sequences must not influence each other in any way.
    Nothing,
}

/// Fixed facts about a [`Forward`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// KV cells in total.
    pub n_cells: usize,
    /// Tokens that one sequence may have.
    pub n_ctx_seq: usize,
    /// Rows in one pass.
    pub n_batch: usize,
    /// Rows of one pass that may ask for logits.
    pub n_outputs: usize,
    pub n_seq_max: u32,
    /// See [`super::scheduler::Limits::tile`].
    pub tile: usize,
    pub reuse: Reuse,
}

/// Why a pass did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ForwardError {
    /// The cache has not enough free cells. Nothing changed.
    NoCells,
    /// The abort hook stopped it.
    #[cfg_attr(not(feature = "llama"), expect(dead_code, reason = "a simulation is never stopped"))]
    Aborted,
    Failed(String),
}

/// A sequence's sampler, and what it has to do after a pass.
#[derive(Debug)]
pub(super) struct Lane<S> {
    pub sampler: S,
    /// Row of the pass to sample from. Guesses follow in the rows behind it.
    pub row: Option<usize>,
    /// Tokens that were put into the pass without having been sampled.
    pub guesses: Vec<TokenId>,
    /// What the drafting model guessed when the sequence had `drafted_at` tokens.
    pub draft: Vec<TokenId>,
    pub drafted_at: usize,
    /// What was sampled: one token, and one more for each guess that proved right.
    pub sampled: Vec<TokenId>,
    pub failure: Option<String>,
    /// Others than the sampled token whose probabilities are wanted.
    pub logprobs: Option<usize>,
    /// One for each of `sampled`, where they are wanted.
    pub probabilities: Vec<Probabilities>,
}

/// Natural logarithms of how likely the model took tokens to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Probabilities {
    pub sampled: f32,
    /// The most likely ones, the first of them first.
    pub top: Vec<(TokenId, f32)>,
}

impl<S> Lane<S> {
    pub fn new(sampler: S) -> Self {
        Self {
            sampler,
            row: None,
            guesses: Vec::new(),
            draft: Vec::new(),
            drafted_at: 0,
            sampled: Vec::new(),
            failure: None,
            logprobs: None,
            probabilities: Vec::new(),
        }
    }

    /// Samples row after row for as long as each result is the guess that the next row was computed with. `sample_row`
    /// gets the sampler, the row, and how many probabilities are wanted.
    pub fn sample(
        &mut self,
        mut sample_row: impl FnMut(&mut S, usize, Option<usize>) -> Result<(TokenId, Option<Probabilities>), String>,
    ) {
        let Some(first) = self.row.take() else { return };
        for index in 0..=self.guesses.len() {
            match sample_row(&mut self.sampler, first + index, self.logprobs) {
                Ok((token, probabilities)) => {
                    self.probabilities.extend(probabilities);
                    self.sampled.push(token);
                    if self.guesses.get(index) != Some(&token) {
                        return;
                    }
                }
                Err(failure) => {
                    self.failure = Some(failure);
                    return;
                }
            }
        }
    }
}

/// See the module. It stays on the engine's thread.
pub(super) trait Forward {
    /// Chooses a sequence's tokens.
    type Sampler: Send;
    /// What [`Forward::save`] keeps.
    type Saved;

    fn shape(&self) -> Shape;

    /// A sampler for a sequence that begins with `prompt`.
    ///
    /// # Errors
    /// What is wrong with the parameters.
    fn sampler(
        &self,
        params: &SamplingParams,
        seed: u32,
        prompt: &[TokenId],
        filter: Option<Box<dyn TokenFilter>>,
    ) -> Result<Self::Sampler, String>;

    fn set_temperature(&self, sampler: &mut Self::Sampler, temperature: f32) -> Result<(), String>;

    /// Runs the rows through the model with these adapters. Those of an image are in a pass of their own.
    fn decode(&mut self, rows: &[Row], image: Option<ImagePass<'_>>, adapters: &AdapterSet)
    -> Result<(), ForwardError>;

    /// Keeps no adapter that was unloaded.
    fn let_go(&mut self);

    /// Samples for each lane that has a row of the latest pass.
    fn sample(&mut self, lanes: &mut [Lane<Self::Sampler>]);

    /// Appends the token's bytes, those of a control token's name only if it is to be `shown`.
    fn append_piece(&self, token: TokenId, shown: bool, out: &mut Vec<u8>) -> Result<(), String>;

    /// Whether the token ends a generation.
    fn is_end(&self, token: TokenId) -> bool;

    /// `to`, which holds nothing, shares the first `len` positions of `from`. They end in no image.
    fn fork(&mut self, from: u32, to: u32, len: usize) -> Result<(), String>;

    /// Whether the first `len` positions of a sequence that went on are still whole, so that they can be shared.
    fn is_whole(&mut self, _seq: u32, _len: usize) -> bool {
        true
    }

    /// The sequence forgets its positions from `len` on. `false` where this memory cannot; it then holds what it held. An
    /// image is forgotten as a whole.
    fn truncate(&mut self, seq: u32, len: usize) -> Result<bool, String>;

    /// Keeps what the memory cannot go back to by itself, for [`Forward::restore`].
    fn save(&mut self, seq: u32) -> Option<Self::Saved>;

    /// Puts the sequence, which shares the attention cells already, to where `saved` was kept.
    fn restore(&mut self, seq: u32, saved: &Self::Saved) -> Result<(), String>;

    /// Computing threads for the next passes.
    fn set_threads(&mut self, threads: u32);

    /// Stops a pass that is under way, from any thread.
    fn aborter(&self) -> Box<dyn Fn() + Send + Sync>;

    /// Takes an abort back that no pass has seen.
    fn clear_abort(&mut self);

    /// How long passes of so many rows take. Empty where more rows are cheaper each, always. Also makes ready what a device
    /// would otherwise make at the first pass of each kind.
    fn pass_costs(&mut self) -> Vec<(usize, Duration)> {
        Vec::new()
    }

    /// How long the latest pass took, where its time is not the clock's.
    fn pass_time(&self) -> Option<Duration> {
        None
    }

    /// Tokens per second with an empty cache, which is empty again afterwards.
    ///
    /// # Errors
    /// What the model failed with.
    fn measure(&mut self, what: Measure, adapters: &AdapterSet) -> Result<f64, String>;
}
