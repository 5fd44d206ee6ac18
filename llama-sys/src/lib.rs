//! Raw bindings to llama.cpp.
//!
//! Functions named `shim_*` are ours (see `shim/shim.h`): they never throw, return a `shim_status`, and leave
//! the message in `shim_last_error`. The few plain `llama_*` functions neither throw nor abort when the rules
//! of `shimmy::llama` are kept. Everything that llama.cpp can throw from is left out on purpose.
#![allow(non_camel_case_types, non_upper_case_globals, missing_docs, unsafe_op_in_unsafe_fn)]
#![allow(clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

/// The revision that was compiled, e.g. `b10200 (5f55650a78f9)`.
pub const REVISION: &str = env!("LLAMA_REVISION");

/// A symbol that modules of the same ggml define (Linux).
pub const MODULE_STAMP: &str = env!("LLAMA_MODULE_STAMP");

/// CMake's cache of the build that was linked, for tests that ask which options were set.
pub const CMAKE_CACHE: &str = env!("LLAMA_CMAKE_CACHE");
