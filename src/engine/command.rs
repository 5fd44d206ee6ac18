//! What the engine's thread is told.

use std::sync::mpsc::SyncSender;

use super::adapters::AdapterSet;
use super::request::Request;

/// What to measure, with the number of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Measure {
    /// A prompt of this many tokens.
    Prompt(usize),
    /// This many tokens one after the other.
    Generation(usize),
}

#[derive(Debug)]
pub(super) enum Command {
    Generate(Box<Request>),
    /// Measures when nothing else runs, with these adapters, and answers with tokens per second.
    Measure(Measure, AdapterSet, SyncSender<Result<f64, String>>),
    /// No request to come will name this adapter.
    Unloaded(u64),
    /// Something changed that a waiting engine should look at.
    Wake,
}
