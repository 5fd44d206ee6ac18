//! Sequences, batches and sampling: tokens in, events out. One thread owns the context.
//!
//! The types that cross to the runner ([`Event`], [`EventStream`], [`SamplingParams`], [`EngineError`]) need no
//! llama.cpp; the thread behind them does.

mod control;
mod detokenizer;
mod error;
mod event;
mod request;
mod stop;
mod stream;

#[cfg(feature = "llama")]
mod command;
#[cfg(feature = "llama")]
mod handle;
#[cfg(feature = "llama")]
pub mod measure;
#[cfg(feature = "llama")]
mod run;
#[cfg(feature = "llama")]
mod sequence;
#[cfg(feature = "llama")]
mod threads;

pub use control::Control;
pub use detokenizer::Detokenizer;
pub use error::EngineError;
pub use event::{Event, FinishReason, Summary, Timings, Usage};
pub use request::{SamplingParams, random_seed};
pub use stop::StopMatcher;
pub use stream::{EventSender, EventStream, channel};

#[cfg(feature = "llama")]
pub use handle::{EngineConfig, EngineHandle};
#[cfg(feature = "llama")]
pub use request::Request;
#[cfg(feature = "llama")]
pub use threads::default_threads;
