//! What is wrong with a file, where, and what to do.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    #[error("{}: no such file", .0.display())]
    NotFound(PathBuf),
    #[error("{}: {error}", .path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error("{}: not a GGUF file: it begins with {start:?} and not with \"GGUF\"", .path.display())]
    NotGguf { path: PathBuf, start: String },
    #[error("{}: GGUF version {version} is not supported, only 2 and 3 are; convert the model again", .path.display())]
    Version { path: PathBuf, version: u32 },
    #[error("{}: truncated: {expected} bytes are needed, the file has {found}; download it again", .path.display())]
    Truncated { path: PathBuf, expected: u64, found: u64 },
    #[error("{}: {what}", .path.display())]
    Invalid { path: PathBuf, what: String },
}
