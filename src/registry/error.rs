//! Why a model cannot be had.

use bytesize::ByteSize;

use super::pool::NotLent;
use super::residency::{Failure, Growth};
use crate::runner::LoadError;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("model not found: {asked:?}{} ({})", guess(.near), known_names(.known))]
    NotFound {
        asked: String,
        /// Names that are much alike, best first.
        near: Vec<String>,
        known: Vec<String>,
    },
    /// So long that it is not looked for.
    #[error(
        "bad request: the model's name has {bytes} bytes and {pluses} times `+`; at most {} bytes and {} `+` are taken",
        Self::MOST_NAME_BYTES,
        Self::MOST_NAME_PLUSES
    )]
    LongName { bytes: usize, pluses: usize },
    #[error("{model} could not be loaded: {error}")]
    Load { model: String, error: LoadError },
    /// Alone it takes more than models may.
    #[error(
        "{model} needs {} on {device}, and --memory-budget allows {} there; raise it, or take a smaller --ctx-size or --cache-type-k q8_0, which need less",
        ByteSize(*.needed), ByteSize(*.budget)
    )]
    TooLarge { model: String, device: String, needed: u64, budget: u64 },
    /// Beside what is in use.
    #[error(
        "the adapter {adapter} needs {} on {device} beside {model}, and {} is left there for it; unload adapters or models, or raise --memory-budget",
        ByteSize(*.needed), ByteSize(*.left)
    )]
    NoRoomForAdapter { model: String, adapter: String, device: String, needed: u64, left: u64 },
    /// Try again later.
    #[error("{model} is not loaded, and there is no room for it: {why}")]
    Busy { model: String, why: String },
    /// Nobody waits for it any more, or the program ends.
    #[error("waiting for {model} was given up")]
    Cancelled { model: String },
}

impl RegistryError {
    pub(super) const MOST_NAME_BYTES: usize = 4096;
    pub(super) const MOST_NAME_PLUSES: usize = 64;

    pub(super) fn not_grown(model: &str, adapter: &str, why: Growth) -> Self {
        let (model, adapter) = (model.to_owned(), adapter.to_owned());
        match why {
            Growth::NoRoom { device, needed, left } => Self::NoRoomForAdapter { model, adapter, device, needed, left },
            // Only where the program ends.
            Growth::Done | Growth::Wait => Self::Cancelled { model },
        }
    }

    pub(super) fn not_lent(model: &str, why: NotLent) -> Self {
        let model = model.to_owned();
        match why {
            NotLent::Failed(Failure::Load(error)) => Self::Load { model, error },
            NotLent::Failed(Failure::TooLarge { device, needed, budget }) => {
                Self::TooLarge { model, device, needed, budget }
            }
            NotLent::QueueFull => Self::Busy { model, why: "too many requests wait for models already".into() },
            NotLent::TooLate { busy } if busy.is_empty() => {
                Self::Busy { model, why: "it did not load within the time that a request waits".into() }
            }
            NotLent::TooLate { busy } => {
                Self::Busy { model, why: format!("{} did not come to an end in time", busy.join(", ")) }
            }
            NotLent::Cancelled => Self::Cancelled { model },
        }
    }
}

fn guess(near: &[String]) -> String {
    near.first().map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

fn known_names(known: &[String]) -> String {
    const SHOWN: usize = 8;
    match known.len() {
        0 => "none is known; put a .gguf file in a directory of --model-dirs".into(),
        n if n > SHOWN => format!("known: {}, and {} more", known[..SHOWN].join(", "), n - SHOWN),
        _ => format!("known: {}", known.join(", ")),
    }
}
