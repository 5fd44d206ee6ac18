//! What the engine is asked to generate.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::constrain::TokenFilter;

use super::adapters::AdapterSet;
use super::forward::TokenId;
use super::handle::Ticket;
use super::image::Images;
use super::scheduler::Priority;
use super::stream::EventSender;

/// How tokens are chosen. Plain data; ranges are checked when the request is submitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplingParams {
    /// 0 always takes the most likely token.
    pub temperature: f32,
    /// Keep the k most likely; 0 keeps all.
    pub top_k: u32,
    /// Keep the most likely whose probabilities sum to this; 1 keeps all.
    pub top_p: f32,
    /// Drop what is less likely than this share of the most likely; 0 drops none.
    pub min_p: f32,
    /// Locally typical sampling; 1 is off.
    pub typical_p: f32,
    /// How many of the latest tokens the penalties look at.
    pub repeat_last_n: u32,
    /// Divides the logits of repeated tokens; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted once per occurrence; 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted if it occurred at all; 0 is off.
    pub presence_penalty: f32,
    /// The same seed gives the same tokens again; `None` draws one.
    pub seed: Option<u32>,
    /// Never choose a token that ends the generation.
    pub ignore_eos: bool,
    /// Added to the logits of these tokens; -100 bans one, in effect.
    pub logit_bias: Vec<(TokenId, f32)>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            repeat_last_n: 64,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: None,
            ignore_eos: false,
            logit_bias: Vec::new(),
        }
    }
}

impl SamplingParams {
    /// # Errors
    /// Names the first value that is out of range, what it was and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        let ranges = [
            ("temperature", self.temperature, 0.0, 100.0),
            ("top_p", self.top_p, 0.0, 1.0),
            ("min_p", self.min_p, 0.0, 1.0),
            ("typical_p", self.typical_p, 0.0, 1.0),
            ("repeat_penalty", self.repeat_penalty, 0.01, 100.0),
            ("frequency_penalty", self.frequency_penalty, -100.0, 100.0),
            ("presence_penalty", self.presence_penalty, -100.0, 100.0),
        ];
        for (name, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err(format!("{name} is {value}; it must be a number from {min} to {max}"));
            }
        }
        match self.logit_bias.iter().find(|(_, bias)| !(-100.0..=100.0).contains(bias)) {
            Some((token, bias)) => {
                Err(format!("logit_bias of token {token} is {bias}; it must be a number from -100 to 100"))
            }
            None => Ok(()),
        }
    }
}

/// A seed for a request that set none: it need not be secret, only different each time.
#[must_use]
pub fn random_seed() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    // RandomState is keyed by the operating system's randomness, with a new key each time.
    (RandomState::new().hash_one(0u8) >> 32) as u32 & 0x7fff_ffff
}

/// One generation on its way to the engine's thread.
#[derive(Debug)]
pub(super) struct Request {
    pub prompt: Vec<TokenId>,
    pub images: Images,
    pub sampling: SamplingParams,
    pub stop: Vec<String>,
    pub max_tokens: Option<u32>,
    pub priority: Priority,
    pub shown: Vec<TokenId>,
    pub filter: Option<Box<dyn TokenFilter>>,
    pub adapters: AdapterSet,
    /// Tell each token's probability, and that of so many others.
    pub logprobs: Option<usize>,
    pub events: EventSender,
    pub ticket: Ticket,
    pub submitted: Instant,
}
