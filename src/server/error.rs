//! From our errors to a status and a body. The only place that knows HTTP status codes.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::api::{BadRequest, ErrorKind, anthropic, openai};
use crate::registry::RegistryError;
use crate::runner::RunnerError;

/// An error that has not yet been answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub kind: ErrorKind,
    pub message: String,
}

/// Seconds after which a refused client may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

impl ApiError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    fn status(&self) -> StatusCode {
        match self.kind {
            ErrorKind::BadRequest | ErrorKind::PromptTooLong | ErrorKind::NoPreviousResponse => StatusCode::BAD_REQUEST,
            ErrorKind::ModelNotFound | ErrorKind::NoSuchResponse | ErrorKind::NoSuchPath => StatusCode::NOT_FOUND,
            ErrorKind::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::ModelFailed => StatusCode::BAD_GATEWAY,
            ErrorKind::NotServed => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn answer(&self, body: serde_json::Value) -> Response {
        let mut response = (self.status(), Json(body)).into_response();
        if self.kind == ErrorKind::Overloaded {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }

    /// The clients of OpenAI and Anthropic repeat what failed in a server; a model that does not load would be loaded again.
    fn not_repeated(&self, mut response: Response) -> Response {
        if self.kind == ErrorKind::ModelFailed {
            response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }

    /// In the words of the dialect that a path belongs to.
    fn answer_for(&self, path: &str) -> Response {
        if path.starts_with("/v1/") {
            self.not_repeated(self.answer(openai::error_body(self.kind, &self.message)))
        } else {
            self.answer(json!({ "error": self.message }))
        }
    }

    fn answer_for_anthropic(&self, request_id: &str) -> Response {
        let mut response = self.answer(anthropic::error_body(self.kind, &self.message, Some(request_id)));
        if self.kind == ErrorKind::Overloaded {
            // Its clients know a status that HTTP does not.
            *response.status_mut() = StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        }
        self.not_repeated(response)
    }

    /// A task of ours died. Its panic is in the log.
    pub fn internal() -> Self {
        Self::new(ErrorKind::Internal, "internal error; the server's log has the reason")
    }
}

impl From<BadRequest> for ApiError {
    fn from(error: BadRequest) -> Self {
        Self::new(ErrorKind::BadRequest, error.to_string())
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        let kind = match &error {
            RegistryError::NotFound { .. } => ErrorKind::ModelNotFound,
            RegistryError::Load { .. } => ErrorKind::ModelFailed,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<RunnerError> for ApiError {
    fn from(error: RunnerError) -> Self {
        let kind = match &error {
            RunnerError::BadRequest(_) => ErrorKind::BadRequest,
            RunnerError::PromptTooLong { .. } => ErrorKind::PromptTooLong,
            RunnerError::Overloaded(_) => ErrorKind::Overloaded,
            RunnerError::Failed(_) => ErrorKind::ModelFailed,
        };
        Self::new(kind, error.to_string())
    }
}

impl IntoResponse for ApiError {
    /// In shimmy's own words; [`in_dialect`] finds the right ones.
    fn into_response(self) -> Response {
        let mut response = self.answer(json!({ "error": self.message }));
        response.extensions_mut().insert(self);
        response
    }
}

/// Says an error in the words of the dialect that the path belongs to, whichever handler or layer it comes from.
pub(super) async fn in_dialect(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    if anthropic::answers(&path, request.headers().contains_key(anthropic::VERSION_HEADER)) {
        return in_anthropics(next.run(request).await);
    }
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<ApiError>() {
        Some(error) => error.answer_for(&path),
        None => response,
    }
}

/// As [`in_dialect`]; there, each answer has an id.
fn in_anthropics(mut response: Response) -> Response {
    let id = anthropic::request_id();
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = error.answer_for_anthropic(&id);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("request-id", id);
    }
    response
}
