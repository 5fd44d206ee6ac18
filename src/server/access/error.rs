//! Why a server does not start with what it was told about access.

use std::path::PathBuf;

use super::key_file::KeyFileError;

/// Each says what was asked for, what was found and what to do.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error(
        "--allow-host {text}: not a host; write example.com, example.com:8080, *.example.com, [::1] or *, without scheme and path"
    )]
    BadHost { text: String },
    #[error(
        "--allow-origin {text}: not an origin; write https://app.example.com, http://localhost:3000, http://localhost:*, \
         https://*.example.com, null or *"
    )]
    BadOrigin { text: String },
    /// The key itself is told to nobody.
    #[error("API key {number} of --api-key or SHIMMY_API_KEY {problem}")]
    BadKey { number: usize, problem: &'static str },
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    #[error(
        "{asked} can be reached from other machines, and there is no API key (none from --api-key or SHIMMY_API_KEY, {}); \
         make one with `shimmy key new NAME`, or bind 127.0.0.1, or let everybody in with --insecure",
        .file.as_ref().map_or_else(|| "no key file".into(), |file| format!("none in {}", file.display()))
    )]
    Unprotected { asked: String, file: Option<PathBuf> },
}
