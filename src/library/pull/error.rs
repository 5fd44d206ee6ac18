//! Why a model could not be fetched, and what to do.

use std::path::PathBuf;

use super::digest::Digest;

#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("{asked:?} cannot be fetched: {why}")]
    BadSource { asked: String, why: String },
    #[error("{0}")]
    NotAllowed(String),
    #[error("{what} not found: {advice}")]
    NotFound { what: String, advice: String },
    #[error("{what} is not given out ({status}): {advice}")]
    Denied { what: String, status: u16, advice: String },
    #[error("{repo} has no {asked}; there are: {}", .there.join(", "))]
    NoSuchQuantization { repo: String, asked: String, there: Vec<String> },
    #[error("{url}: {reason}")]
    Server { url: String, reason: String },
    #[error("{what}: the digest is {found}, {expected} was expected; what was fetched is thrown away, fetch it again")]
    WrongDigest { what: String, expected: Digest, found: Digest },
    #[error("{what} is not a model: {reason}")]
    NotGguf { what: String, reason: String },
    #[error(
        "{}: {} bytes are needed and {free} are free; make room, or set another folder, and fetch again",
        .dir.display(), .needed
    )]
    NoSpace { dir: PathBuf, needed: u64, free: u64 },
    #[error("{}: {error}", .path.display())]
    Disk { path: PathBuf, error: std::io::Error },
    #[error("{0}")]
    Store(#[from] super::store::StoreError),
}
