//! Why a model does not run where it was asked to. Never a quiet run on the CPU.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum PlacementError {
    #[error(
        "--gpu-backend {asked}: this binary was built without it (it has {}); build with `cargo build --release --features llama-{asked}`, or choose --gpu-backend auto",
        .compiled.join(", ")
    )]
    NotCompiledIn { asked: String, compiled: Vec<String> },
    /// This binary loads its backends at run time, and has none of this name.
    #[error(
        "--gpu-backend {asked}: {reason}; this binary loads its backends as modules: put one that was built with `--features dynamic-backends,llama-{asked}` beside it or into SHIMMY_BACKEND_DIR, or choose --gpu-backend auto"
    )]
    NoModule { asked: String, reason: String },
    #[error(
        "--gpu-backend {asked}: compiled in, but it finds no device: {reason}; check the driver with `shimmy gpu-info`, or choose --gpu-backend cpu"
    )]
    NoDevice { asked: String, reason: String },
    #[error("--device {asked}: there is no such device; there are {}", list(.known))]
    UnknownDevice { asked: String, known: Vec<String> },
    /// Two of the options exclude each other.
    #[error("{0}")]
    Contradiction(String),
    /// `--gpu-layers auto` found no room for a single one.
    #[error(
        "--gpu-layers auto: not one layer fits {devices} with this context; `shimmy plan` shows what is needed, a smaller --ctx-size or --cache-type-k q8_0 needs less, and --gpu-backend cpu needs no GPU"
    )]
    NothingFits { devices: String },
    #[error("{0}")]
    TooLarge(String),
    #[error(
        "{device} has {free_mb} MB free, and the model needs {needed_mb} MB there; `shimmy plan` shows what fits, `--gpu-layers auto` puts as many layers there as do, and a smaller --ctx-size or --cache-type-k q8_0 needs less"
    )]
    TooLittleMemory { device: String, needed_mb: u64, free_mb: u64 },
    /// llama.cpp put the model elsewhere than it was told.
    #[error(
        "the model was to run on {planned}, but llama.cpp placed it on {found}; this is a mistake in shimmy or in llama.cpp: run with RUST_LOG=debug, and report it with the log, or choose --gpu-backend cpu"
    )]
    Differs { planned: String, found: String },
    #[error("{0}")]
    Backend(String),
}

fn list(known: &[String]) -> String {
    if known.is_empty() { "none".into() } else { known.join(", ") }
}
