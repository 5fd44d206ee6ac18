//! What a generation tells its reader.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::error::EngineError;

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its turn.
    Eos,
    /// A stop string was reached.
    Stop,
    /// `max_tokens` or the end of the context.
    Length,
    /// The client asked, or left.
    Cancelled,
}

/// Token counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    /// Of the prompt's tokens, those that needed no computing.
    pub cached_tokens: u32,
    /// Of the completion's tokens, those of thoughts. The engine does not know them from others; the runner counts them.
    #[serde(default)]
    pub reasoning_tokens: u32,
}

/// Where the time went, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timings {
    pub queue_ms: f64,
    pub prefill_ms: f64,
    pub decode_ms: f64,
    /// From submission to the first token.
    pub ttft_ms: f64,
    /// Generated tokens by decode time, the first one (which prefill pays for) left out.
    pub tokens_per_second: f64,
}

/// The last event of a generation that did not fail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub reason: FinishReason,
    /// The stop string that was reached.
    pub stop: Option<String>,
    /// Gives the same tokens again with the same request.
    pub seed: u32,
    pub usage: Usage,
    pub timings: Timings,
}

/// How likely a token was, among all that the model knows, before anything is sorted out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// What it stands for; not always whole characters.
    pub bytes: Vec<u8>,
    pub logprob: f32,
    /// The most likely ones in its place, the first of them first.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// One step of a generation, as it crosses to the runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Text that is ready to show. Always whole characters, never part of a stop string.
    Token {
        text: SmolStr,
        /// How many tokens begin with this text; those that show nothing by themselves count with what comes next. None
        /// where it is the rest of one.
        tokens: u32,
        /// Of the tokens that the text is made of, where they were asked for.
        logprobs: Vec<TokenLogprob>,
    },
    Done(Summary),
    Error(EngineError),
}
