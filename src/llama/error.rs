//! What can go wrong between Rust and llama.cpp.

use std::ffi::CStr;
use std::path::PathBuf;

use crate::gguf::GgufError;

use super::batch::Pos;
use super::vocab::Token;

/// Every failure of [`crate::llama`]. Messages carry what llama.cpp itself said, its log included.
#[derive(Debug, thiserror::Error)]
pub enum LlamaError {
    /// A shim call failed: llama.cpp threw, ran out of memory or refused.
    #[error("{call} failed: {message}{}", log_tail(.log))]
    Native { call: &'static str, status: u32, message: String, log: String },
    /// A device cannot hold what it was to.
    #[error("{0}")]
    TooLarge(String),
    /// llama.cpp's backends did not start.
    #[error("{0}")]
    Backends(String),
    /// The file is not one that llama.cpp may be given.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("{}: llama.cpp could not load the model{}", .path.display(), log_tail(.log))]
    ModelLoad { path: PathBuf, log: String },
    #[error("loading {} was cancelled", .0.display())]
    LoadCancelled(PathBuf),
    #[error("{}: the path holds a NUL byte", .0.display())]
    Path(PathBuf),
    #[error("the text holds a NUL byte where llama.cpp takes none")]
    NulInText,
    #[error("the model has no vocabulary, so text can be neither read nor written with it")]
    NoVocabulary,
    #[error("token {token:?} is outside the vocabulary of {n_tokens} tokens")]
    TokenRange { token: Token, n_tokens: u32 },
    #[error("the text is {bytes} bytes long; at most {max} can be tokenised at once")]
    TextTooLong { bytes: usize, max: usize },
    #[error("the batch is full: it holds {capacity} tokens, the context's n_batch")]
    BatchFull { capacity: usize },
    #[error("the batch is empty")]
    BatchEmpty,
    #[error(
        "{tokens} tokens at once, but this model attends in both directions and takes at most n_ubatch = {n_ubatch}"
    )]
    ExceedsUbatch { tokens: usize, n_ubatch: usize },
    #[error("position {0} is negative or beyond what llama.cpp can count")]
    PosRange(i64),
    #[error("position {pos} is beyond those that the model learned: it has {n_positions}")]
    PosUnlearned { pos: usize, n_positions: usize },
    #[error("sequence {id} is outside 0..{n_seq_max}, the context's n_seq_max")]
    SeqRange { id: u32, n_seq_max: u32 },
    #[error("the sequence id or batch was made by another context")]
    ForeignObject,
    #[error("the model has no encoder: use decode")]
    NoEncoder,
    #[error("no KV cells are free for this batch")]
    NoCells,
    #[error("the model was laid out only; load it to decode")]
    Simulated,
    #[error("decoding was aborted")]
    Aborted,
    #[error("llama.cpp could not decode the batch (code {code}){}", log_tail(.log))]
    Decode { code: i32, log: String },
    #[error("{outputs} rows ask for outputs, but this context was made for at most {n_outputs_max}")]
    TooManyOutputs { outputs: usize, n_outputs_max: usize },
    #[error("row {row} of the last batch asked for no output")]
    NoOutput { row: usize },
    #[error(
        "this model's memory cannot drop part of a sequence, from position {from:?} on: clear it and prefill again"
    )]
    PartialRemove { from: Pos },
    #[error("part of a sequence can only be shared where all sequences have one pool of cells")]
    NotUnified,
    #[error("this model's positions cannot be shifted")]
    CannotShift,
    #[error("the sampler failed before and must not be used again; end the sequence")]
    Poisoned,
    #[error("the logits are not finite numbers: the model's weights or the backend are broken")]
    NanLogits,
    /// What the text must look like cannot be kept to.
    #[error("{0}")]
    Form(String),
    #[error("{name} = {value}: {expected}")]
    Parameter { name: &'static str, value: String, expected: &'static str },
    #[error("the saved state is refused: {0}")]
    State(&'static str),
    #[error("shares for {asked} devices, but llama.cpp takes at most {most}")]
    TooManyDevices { asked: usize, most: usize },
    #[error("the tensor pattern {0:?} holds a NUL byte")]
    TensorPattern(String),
    #[error("{}: the projector takes no images", .0.display())]
    SeesNothing(PathBuf),
    #[error("{}: the projector makes rows of {width} numbers, and the model reads rows of {expected}; it belongs to another model", .path.display())]
    ForeignProjector { path: PathBuf, width: usize, expected: usize },
    #[error("the model's vocabulary lacks the tokens that its projector puts around images")]
    NoImageMarks,
    #[error("an image has a batch of its own, and rows as wide as the model's embeddings")]
    ImageShape,
    #[error("the adapter belongs to another model")]
    ForeignAdapter,
}

/// Turns a shim status into a result, with the shim's message and the log lines captured during the call.
pub(super) fn check(call: &'static str, status: i32, log: String) -> Result<(), LlamaError> {
    if status.unsigned_abs() == llama_sys::SHIM_OK { Ok(()) } else { Err(failure(call, status, log)) }
}

/// What a call that failed said.
pub(super) fn failure(call: &'static str, status: i32, log: String) -> LlamaError {
    let (status, message) = (status.unsigned_abs(), last_error());
    if status == llama_sys::SHIM_TOO_LARGE {
        LlamaError::TooLarge(message)
    } else {
        LlamaError::Native { call, status, message, log }
    }
}

pub(super) fn last_error() -> String {
    // SAFETY: the shim returns a NUL-terminated buffer of this thread that the next shim call overwrites;
    // it is copied before that.
    unsafe { CStr::from_ptr(llama_sys::shim_last_error()) }.to_string_lossy().into_owned()
}

fn log_tail(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(" ({})", log.trim().replace('\n', "; ")) }
}
