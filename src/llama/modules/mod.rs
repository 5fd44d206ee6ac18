//! Backends that are files: with the feature `dynamic-backends` each is a module that is loaded at run time, from
//! `SHIMMY_BACKEND_DIR` and from beside the binary.

#[cfg(feature = "dynamic-backends")]
mod search;

use std::path::PathBuf;

use super::error::LlamaError;

/// A directory to look in before the binary's own.
pub const BACKEND_DIR: &str = "SHIMMY_BACKEND_DIR";

/// One file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendModule {
    pub path: PathBuf,
    /// From the file's name: `cpu`, `cuda`, `vulkan`, …
    pub backend: String,
    /// From the file's name, where there are several for one backend: a processor, e.g. `zen4`.
    pub variant: Option<String>,
    pub state: ModuleState,
}

/// What became of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleState {
    Loaded,
    /// Another one of the same backend was loaded; this says which.
    NotNeeded(String),
    /// It cannot be loaded, and why.
    Refused(String),
}

/// What the search came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Modules {
    /// Where it looked; empty where the backends are in the binary.
    pub searched: Vec<PathBuf>,
    pub found: Vec<BackendModule>,
    /// What the backends complained about while they looked for their devices.
    pub log: String,
}

/// Loads the modules of this build.
///
/// # Errors
/// A directory that was named and cannot be read; no module for the CPU.
#[cfg(feature = "dynamic-backends")]
pub(super) fn load() -> Result<Modules, LlamaError> {
    search::load()
}

/// Nothing to load: the backends are in the binary.
#[cfg(not(feature = "dynamic-backends"))]
#[allow(clippy::unnecessary_wraps)] // With modules it can fail.
pub(super) fn load() -> Result<Modules, LlamaError> {
    if std::env::var_os(BACKEND_DIR).is_some() {
        tracing::warn!(
            "{BACKEND_DIR} is set, but this binary has its backends built in; it was built without dynamic-backends"
        );
    }
    Ok(Modules::default())
}
