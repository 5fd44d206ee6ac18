//! Reads and checks the header of a GGUF file, in Rust and before llama.cpp sees it.
//!
//! llama.cpp aborts the process on some damaged or hostile files. Whatever it would abort on is refused here.

mod error;
mod header;
mod read;
mod shards;
mod types;
mod validate;
mod validate_adapter;
mod validate_projector;
pub mod writer;

#[cfg(test)]
mod tests;

pub use error::GgufError;
pub use header::{Header, TensorInfo, Value};
pub use shards::shards;
pub use types::TensorType;
pub(crate) use validate::{POOLING_NONE, POOLING_RANK};
pub use validate::{check_tensors, validate_model, validate_outline};
pub use validate_adapter::validate_adapter;
pub use validate_projector::validate_projector;
