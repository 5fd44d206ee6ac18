//! Sequences, batches and sampling: tokens in, events out. One thread owns the context.
//!
//! The engine itself knows no llama.cpp: it runs on a `Forward`, which is llama.cpp or a simulation.

mod adapters;
mod cache;
mod cells;
mod command;
mod control;
mod detokenizer;
mod drafter;
#[cfg(feature = "llama")]
mod embedder;
mod error;
mod event;
#[cfg(test)]
mod event_tests;
mod forward;
mod guesses;
mod handle;
mod image;
#[cfg(feature = "llama")]
mod llama_forward;
mod lookup;
#[cfg(feature = "llama")]
pub mod measure;
mod meter;
mod pace;
mod pass;
mod pass_costs;
mod payoff;
#[cfg(feature = "llama")]
mod positions;
mod prefix_tree;
mod request;
mod run;
mod scheduler;
mod sequence;
#[cfg(test)]
mod simulated_tests;
#[cfg(any(test, feature = "stub"))]
mod simulation;
mod stop;
mod stream;
mod threads;

pub use adapters::{AdapterSet, EngineAdapter};
pub use command::Measure;
pub use control::Control;
pub use detokenizer::Detokenizer;
#[cfg(feature = "llama")]
pub use embedder::Embedder;
pub use error::EngineError;
pub use event::{Event, FinishReason, Summary, Timings, TokenLogprob, Usage};
pub use forward::TokenId;
pub use handle::{EngineConfig, EngineHandle, Job};
pub use image::{ImageRows, is_image};
#[cfg(feature = "llama")]
pub use llama_forward::EngineMemory;
pub use lookup::guess;
pub use meter::describe_metrics;
pub use prefix_tree::{Match, PrefixTree};
pub use request::{SamplingParams, random_seed};
pub use scheduler::{Limits, Plan, Priority, Share, View, Work, deadline, plan};
#[cfg(any(test, feature = "stub"))]
pub use simulation::{Machine, Rule};
pub use stop::StopMatcher;
pub use stream::EventStream;
pub use threads::default_threads;
