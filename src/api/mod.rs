//! The dialects: request types and byte-exact encoders, one folder each. No HTTP server in here.

pub mod anthropic;
mod conversation;
pub mod dialect;
mod forms;
pub mod infill;
pub mod ollama;
pub mod openai;
mod schema;
pub mod shimmy;
pub mod utility;

use crate::runner::{Delta, LoraUse, RunnerError};

/// Turns the deltas of one generation into the frames of one dialect.
pub trait Encoder: Send {
    /// `content-type` of the whole body.
    fn content_type(&self) -> &'static str;

    /// Which of several answers to one request the next steps belong to.
    fn choose(&mut self, _choice: usize) {}

    /// Appends the bytes of one step.
    fn delta(&mut self, delta: &Delta, out: &mut Vec<u8>);

    /// Appends what keeps a connection open on which nothing was said for a while: a comment, in an event stream.
    fn ping(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b": ping\n\n");
    }

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

/// Appends an event of an event stream.
fn push_event(data: &impl serde::Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    push_json(data, out);
    out.extend_from_slice(b"\n\n");
}

/// What is wrong with a request, in words for its author.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad request: {0}")]
pub struct BadRequest(pub String);

/// What kind of failure an answer is. Each dialect has its own word for it, and the server its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    BadRequest,
    /// No API key, or a wrong one.
    NoKey,
    /// A host or an origin that is not allowed.
    Forbidden,
    PromptTooLong,
    ModelNotFound,
    /// An answer that is to be shown, and is not kept.
    NoSuchResponse,
    /// An answer that is to be continued, and is not kept.
    NoPreviousResponse,
    NoSuchPath,
    WrongMethod,
    BodyTooLarge,
    /// Try again later.
    Overloaded,
    /// The model or what runs it failed.
    ModelFailed,
    /// Somebody else's server did not give what was to be fetched.
    NotFetched,
    /// The disk is full, or would be.
    NoSpace,
    /// A request that is understood, for what this version does not do.
    NotServed,
    Internal,
}

/// When a model's file was last written, in seconds since 1970; 0 where there is no file.
fn written(status: &crate::registry::ModelStatus) -> u64 {
    use std::time::UNIX_EPOCH;

    let path = status.path.as_deref().map(std::path::Path::new);
    let written = path.and_then(|path| path.metadata().ok()?.modified().ok());
    written.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |age| age.as_secs())
}

/// Reads a request type out of a body. An error names the field.
fn from_value<T: serde::de::DeserializeOwned>(body: serde_json::Value) -> Result<T, BadRequest> {
    serde_path_to_error::deserialize(body).map_err(|error| wrong_field(&error.path().to_string(), error.inner()))
}

fn wrong_field(path: &str, error: &serde_json::Error) -> BadRequest {
    // It may quote a value, which may be an image.
    const LONGEST: usize = 500;
    let mut error = error.to_string();
    if error.len() > LONGEST {
        error.truncate(error.floor_char_boundary(LONGEST));
        error.push('…');
    }
    BadRequest(if path == "." { error } else { format!("{path}: {error}") })
}

/// As [`from_value`], with the paths of the fields that the type does not have.
fn from_value_noting_ignored<'de, T: serde::de::DeserializeOwned>(
    body: impl serde::Deserializer<'de, Error = serde_json::Error>,
) -> Result<(T, Vec<String>), BadRequest> {
    let mut ignored = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(body, &mut track);
    // An optional field is a step of its own there, with this name.
    let read = serde_ignored::deserialize(tracked, |path| ignored.push(path.to_string().replace(".?", "")));
    match read {
        Ok(value) => Ok((value, ignored)),
        Err(error) => Err(wrong_field(&track.path().to_string(), &error)),
    }
}

/// As [`from_value_noting_ignored`], of a body in which a field that is null or empty asks for nothing.
fn read_body<T: serde::de::DeserializeOwned>(body: &serde_json::Value) -> Result<(T, Vec<String>), BadRequest> {
    let (read, mut ignored) = from_value_noting_ignored(body)?;
    ignored.retain(|field| body.get(field).is_none_or(|value| !is_empty(value)));
    Ok((read, ignored))
}

/// Reads a body as two types that have its fields between them, and lists the paths that neither has.
fn read_two<A: serde::de::DeserializeOwned, B: serde::de::DeserializeOwned>(
    body: &serde_json::Value,
) -> Result<(A, B, Vec<String>), BadRequest> {
    let (one, unknown_to_one) = from_value_noting_ignored::<A>(body)?;
    let (other, unknown_to_other) = from_value_noting_ignored::<B>(body)?;
    // Where one of them does not have a field at all, the other may have most of what is in it.
    let within = |path: &String, list: &[String]| {
        list.iter().any(|other| path.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    };
    let mut ignored: Vec<String> =
        unknown_to_one.iter().filter(|path| within(path, &unknown_to_other)).cloned().collect();
    let deeper = unknown_to_other.into_iter().filter(|path| within(path, &unknown_to_one) && !ignored.contains(path));
    ignored.extend(deeper.collect::<Vec<_>>());
    Ok((one, other, ignored))
}

/// Whether a field's value asks for nothing.
fn is_empty(value: &serde_json::Value) -> bool {
    use serde_json::Value;

    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        // An empty object asks for something in most fields: any JSON, as a schema.
        _ => false,
    }
}

/// A field that is null is a field that is absent, but in fields named `foreign`, which hold somebody else's JSON.
fn drop_nulls(value: &mut serde_json::Value, foreign: &[&str]) {
    use serde_json::Value;

    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            let own = fields.iter_mut().filter(|(name, _)| !foreign.contains(&name.as_str()));
            own.for_each(|(_, field)| drop_nulls(field, foreign));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| drop_nulls(item, foreign)),
        _ => {}
    }
}

/// An id that is drawn at random.
fn random_id(prefix: &str) -> String {
    let id: String = std::iter::repeat_with(fastrand::alphanumeric).take(24).collect();
    format!("{prefix}{id}")
}

/// Clients send any integer; the lower 32 bits tell seeds apart as well.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn seed(seed: i64) -> u32 {
    seed as u32
}

/// More adapters than this in one request are a mistake.
const MAX_ADAPTERS: usize = 16;

/// The field `lora` of a request.
///
/// # Errors
/// Too many, one that is named twice, a scale that no float holds.
fn checked_lora(uses: Vec<LoraUse>) -> Result<Vec<LoraUse>, BadRequest> {
    if uses.len() > MAX_ADAPTERS {
        return Err(BadRequest(format!("lora names {} adapters; at most {MAX_ADAPTERS} are taken", uses.len())));
    }
    for (index, LoraUse { name, scale }) in uses.iter().enumerate() {
        if uses[..index].iter().any(|other| other.name.eq_ignore_ascii_case(name)) {
            return Err(BadRequest(format!("lora names the adapter {name:?} twice")));
        }
        if scale.is_some_and(|scale| !scale.is_finite()) {
            return Err(BadRequest(format!("lora.{index}.scale is too large")));
        }
    }
    Ok(uses)
}

/// `stop` may be one string or several.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum StopList {
    One(String),
    Many(#[schemars(length(max = 64))] Vec<String>),
}

impl StopList {
    pub(crate) fn into_vec(self) -> Result<Vec<String>, BadRequest> {
        let list = match self {
            Self::One(stop) => vec![stop],
            Self::Many(stops) => stops,
        };
        crate::runner::check_stops(&list).map_err(BadRequest)?;
        Ok(list)
    }
}
