//! The dialects: request types and byte-exact encoders, one folder each. No HTTP server in here.

pub mod dialect;
pub mod ollama;
pub mod shimmy;

use crate::runner::{Delta, RunnerError};

/// Turns the deltas of one generation into the frames of one dialect.
pub trait Encoder: Send {
    /// `content-type` of the whole body.
    fn content_type(&self) -> &'static str;

    /// Appends the bytes of one step.
    fn delta(&mut self, delta: &Delta, out: &mut Vec<u8>);

    /// Appends the last bytes, after a failure in mid-stream.
    fn error(&mut self, error: &RunnerError, out: &mut Vec<u8>);
}

/// Appends a value as JSON.
fn push_json(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    // Our own types have no maps with odd keys, and memory does not fail to be written to.
    if let Err(error) = serde_json::to_writer(out, value) {
        tracing::error!(%error, "an answer could not be written");
    }
}

/// What is wrong with a request, in words for its author.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad request: {0}")]
pub struct BadRequest(pub String);

/// Reads a request type out of a body. An error names the field.
fn from_value<T: serde::de::DeserializeOwned>(body: serde_json::Value) -> Result<T, BadRequest> {
    serde_path_to_error::deserialize(body).map_err(|error| match error.path().to_string().as_str() {
        "." => BadRequest(error.inner().to_string()),
        path => BadRequest(format!("{path}: {}", error.inner())),
    })
}

/// `stop` may be one string or several.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(untagged)]
pub enum StopList {
    One(String),
    Many(Vec<String>),
}

/// More stop strings than this are a mistake.
const MAX_STOPS: usize = 64;

impl StopList {
    pub(crate) fn into_vec(self) -> Result<Vec<String>, BadRequest> {
        let list = match self {
            Self::One(stop) => vec![stop],
            Self::Many(stops) => stops,
        };
        if list.len() > MAX_STOPS {
            return Err(BadRequest(format!("{} stop strings; at most {MAX_STOPS} are allowed", list.len())));
        }
        Ok(list)
    }
}
