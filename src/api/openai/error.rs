//! OpenAI's error envelope.

use serde_json::{Value, json};

use crate::api::ErrorKind;

/// The body of an answer that is an error.
#[must_use]
pub fn error_body(kind: ErrorKind, message: &str) -> Value {
    let (class, code) = match kind {
        ErrorKind::BadRequest => ("invalid_request_error", None),
        ErrorKind::PromptTooLong => ("invalid_request_error", Some("context_length_exceeded")),
        ErrorKind::ModelNotFound => ("invalid_request_error", Some("model_not_found")),
        ErrorKind::NoSuchPath => ("invalid_request_error", Some("unknown_url")),
        ErrorKind::WrongMethod => ("invalid_request_error", Some("method_not_allowed")),
        ErrorKind::BodyTooLarge => ("invalid_request_error", Some("request_too_large")),
        ErrorKind::Overloaded => ("server_error", Some("overloaded")),
        ErrorKind::ModelFailed => ("server_error", Some("model_failed")),
        ErrorKind::NotServed => ("invalid_request_error", Some("not_served")),
        ErrorKind::Internal => ("server_error", None),
    };
    json!({ "error": { "message": message, "type": class, "param": null, "code": code } })
}
