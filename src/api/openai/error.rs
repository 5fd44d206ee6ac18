//! OpenAI's error envelope.

use serde_json::{Value, json};

use crate::api::ErrorKind;

/// The body of an answer that is an error.
#[must_use]
pub fn error_body(kind: ErrorKind, message: &str) -> Value {
    // The type says it already.
    let message = message.strip_prefix("bad request: ").unwrap_or(message);
    let (class, code) = match kind {
        ErrorKind::BadRequest | ErrorKind::NoSuchResponse => ("invalid_request_error", None),
        ErrorKind::NoKey => ("invalid_request_error", Some("invalid_api_key")),
        ErrorKind::Forbidden => ("permission_error", Some("forbidden")),
        ErrorKind::NoPreviousResponse => ("invalid_request_error", Some("previous_response_not_found")),
        ErrorKind::PromptTooLong => ("invalid_request_error", Some("context_length_exceeded")),
        ErrorKind::ModelNotFound => ("invalid_request_error", Some("model_not_found")),
        ErrorKind::NoSuchPath => ("invalid_request_error", Some("unknown_url")),
        ErrorKind::WrongMethod => ("invalid_request_error", Some("method_not_allowed")),
        ErrorKind::BodyTooLarge => ("invalid_request_error", Some("request_too_large")),
        ErrorKind::Overloaded => ("server_error", Some("overloaded")),
        ErrorKind::ModelFailed => ("server_error", Some("model_failed")),
        ErrorKind::NotFetched => ("server_error", Some("not_fetched")),
        ErrorKind::NoSpace => ("server_error", Some("no_space")),
        ErrorKind::NotServed => ("invalid_request_error", Some("not_served")),
        ErrorKind::Internal => ("server_error", None),
    };
    let param = (kind == ErrorKind::NoPreviousResponse).then_some("previous_response_id");
    json!({ "error": { "message": message, "type": class, "param": param, "code": code } })
}
