//! Ollama's dialect, as far as `/api/generate` goes.

mod generate;
mod response;

pub use generate::GenerateRequest;
pub use response::{NdjsonEncoder, done_reason, load_body, whole_body};
