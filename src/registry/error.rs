//! Why a model cannot be had.

use crate::runner::LoadError;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("model not found: {asked:?} ({})", known_names(.known))]
    NotFound { asked: String, known: Vec<String> },
    #[error("{model} could not be loaded: {error}")]
    Load { model: String, error: LoadError },
}

fn known_names(known: &[String]) -> String {
    const SHOWN: usize = 8;
    match known.len() {
        0 => "none is known; put a .gguf file in a directory of --model-dirs".into(),
        n if n > SHOWN => format!("known: {}, and {} more", known[..SHOWN].join(", "), n - SHOWN),
        _ => format!("known: {}", known.join(", ")),
    }
}
