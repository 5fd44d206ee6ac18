//! Anthropic's error envelope.

use serde_json::{Value, json};

use crate::api::{ErrorKind, random_id};

/// The id of a request, for the header `request-id` and for the body of an error.
#[must_use]
pub fn request_id() -> String {
    random_id("req_")
}

/// The body of an answer that is an error. An event in mid-stream has no `request_id`; its answer's header does.
#[must_use]
pub fn error_body(kind: ErrorKind, message: &str, request_id: Option<&str>) -> Value {
    let class = match kind {
        ErrorKind::BadRequest
        | ErrorKind::PromptTooLong
        | ErrorKind::NoPreviousResponse
        | ErrorKind::WrongMethod
        | ErrorKind::NotServed => "invalid_request_error",
        ErrorKind::NoKey => "authentication_error",
        ErrorKind::Forbidden => "permission_error",
        ErrorKind::ModelNotFound | ErrorKind::NoSuchResponse | ErrorKind::NoSuchPath => "not_found_error",
        ErrorKind::BodyTooLarge => "request_too_large",
        ErrorKind::Overloaded => "overloaded_error",
        ErrorKind::ModelFailed | ErrorKind::NotFetched | ErrorKind::NoSpace | ErrorKind::Internal => "api_error",
    };
    // The class says as much.
    let message = message.strip_prefix("bad request: ").unwrap_or(message);
    let mut body = json!({ "type": "error", "error": { "type": class, "message": message } });
    if let Some(id) = request_id {
        body["request_id"] = id.into();
    }
    body
}
