//! From our errors to a status and a body. The only place that knows HTTP status codes.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::api::{BadRequest, ErrorKind, anthropic, openai};
use crate::library::pull::{PullError, StoreError};
use crate::registry::{AdapterError, RegistryError};
use crate::runner::RunnerError;

/// An error that has not yet been answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub kind: ErrorKind,
    pub message: String,
}

/// Seconds after which a refused client may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// How a client that sent no key should send one.
const BEARER: HeaderValue = HeaderValue::from_static("Bearer");

impl ApiError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The answer to a request that goes no further.
    pub fn answer_to(&self, request: &Request) -> Response {
        match Envelope::of_request(request) {
            Envelope::Anthropic => {
                let id = anthropic::request_id();
                with_request_id(self.answer(Envelope::Anthropic, Some(&id)), &id)
            }
            envelope => self.answer(envelope, None),
        }
    }

    /// `request_id` is for Anthropic's clients.
    fn answer(&self, envelope: Envelope, request_id: Option<&str>) -> Response {
        let body = match envelope {
            Envelope::Plain => json!({ "error": self.message }),
            Envelope::OpenAi => openai::error_body(self.kind, &self.message),
            Envelope::Anthropic => anthropic::error_body(self.kind, &self.message, request_id),
        };
        let mut response = (envelope.status(self.kind), Json(body)).into_response();
        match self.kind {
            ErrorKind::Overloaded => {
                response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            ErrorKind::NoKey => {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, BEARER);
            }
            // The clients of OpenAI and Anthropic repeat what failed in a server; a model that does not load would be loaded again.
            ErrorKind::ModelFailed if envelope != Envelope::Plain => {
                response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
            }
            _ => {}
        }
        response
    }

    /// A task of ours died. Its panic is in the log.
    pub fn internal() -> Self {
        Self::new(ErrorKind::Internal, "internal error; the server's log has the reason")
    }
}

/// Whose words an error is said in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Envelope {
    /// shimmy's, Ollama's and llama.cpp's: `{"error": "…"}`.
    Plain,
    OpenAi,
    Anthropic,
}

impl Envelope {
    /// `has_version` is whether the client sent Anthropic's header.
    pub fn of(path: &str, has_version: bool) -> Self {
        if anthropic::answers(path, has_version) {
            Self::Anthropic
        } else if path.starts_with("/v1/") {
            Self::OpenAi
        } else {
            Self::Plain
        }
    }

    fn of_request(request: &Request) -> Self {
        Self::of(request.uri().path(), request.headers().contains_key(anthropic::VERSION_HEADER))
    }

    pub fn status(self, kind: ErrorKind) -> StatusCode {
        match kind {
            ErrorKind::BadRequest | ErrorKind::PromptTooLong | ErrorKind::NoPreviousResponse => StatusCode::BAD_REQUEST,
            ErrorKind::NoKey => StatusCode::UNAUTHORIZED,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::ModelNotFound | ErrorKind::NoSuchResponse | ErrorKind::NoSuchPath => StatusCode::NOT_FOUND,
            ErrorKind::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            // Anthropic's clients know a status that HTTP does not.
            ErrorKind::Overloaded if self == Self::Anthropic => {
                StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
            }
            ErrorKind::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::ModelFailed | ErrorKind::NotFetched => StatusCode::BAD_GATEWAY,
            ErrorKind::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            ErrorKind::NotServed => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
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
            RegistryError::LongName { .. } => ErrorKind::BadRequest,
            RegistryError::Load { .. } | RegistryError::TooLarge { .. } | RegistryError::NoRoomForAdapter { .. } => {
                ErrorKind::ModelFailed
            }
            RegistryError::Busy { .. } | RegistryError::Cancelled { .. } => ErrorKind::Overloaded,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<&PullError> for ApiError {
    fn from(error: &PullError) -> Self {
        let kind = match error {
            PullError::BadSource { .. } => ErrorKind::BadRequest,
            PullError::NotAllowed(_) => ErrorKind::Forbidden,
            PullError::NotFound { .. } | PullError::NoSuchQuantization { .. } => ErrorKind::ModelNotFound,
            PullError::Denied { .. }
            | PullError::Server { .. }
            | PullError::WrongDigest { .. }
            | PullError::NotGguf { .. } => ErrorKind::NotFetched,
            PullError::NoSpace { .. } => ErrorKind::NoSpace,
            PullError::Disk { .. } => ErrorKind::Internal,
            PullError::Store(error) => return error.into(),
        };
        Self::new(kind, error.to_string())
    }
}

impl From<&StoreError> for ApiError {
    fn from(error: &StoreError) -> Self {
        let kind = match error {
            StoreError::NoSuchModel { .. } => ErrorKind::ModelNotFound,
            StoreError::Ambiguous { .. } | StoreError::NoSuchBlob(_) => ErrorKind::BadRequest,
            StoreError::NotOurs { .. } => ErrorKind::Forbidden,
            StoreError::Io { error, .. } if error.kind() == std::io::ErrorKind::StorageFull => ErrorKind::NoSpace,
            StoreError::Io { .. } | StoreError::Damaged { .. } => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<AdapterError> for ApiError {
    fn from(error: AdapterError) -> Self {
        match error {
            AdapterError::Model(error) => error.into(),
            AdapterError::Unknown(why) => Self::new(ErrorKind::ModelNotFound, why),
            AdapterError::Refused(why) => Self::new(ErrorKind::BadRequest, format!("bad request: {why}")),
        }
    }
}

impl From<RunnerError> for ApiError {
    fn from(error: RunnerError) -> Self {
        let kind = match &error {
            RunnerError::BadRequest(_) => ErrorKind::BadRequest,
            RunnerError::PromptTooLong { .. } => ErrorKind::PromptTooLong,
            // Nobody reads that one.
            RunnerError::Overloaded(_) | RunnerError::Abandoned => ErrorKind::Overloaded,
            RunnerError::Failed(_) => ErrorKind::ModelFailed,
        };
        Self::new(kind, error.to_string())
    }
}

impl IntoResponse for ApiError {
    /// In shimmy's own words; [`in_dialect`] finds the right ones.
    fn into_response(self) -> Response {
        let mut response = self.answer(Envelope::Plain, None);
        response.extensions_mut().insert(self);
        response
    }
}

/// Says an error in the words of the dialect that the path belongs to, whichever handler or layer it comes from.
pub(super) async fn in_dialect(request: Request, next: Next) -> Response {
    let envelope = Envelope::of_request(&request);
    if envelope == Envelope::Anthropic {
        return in_anthropics(next.run(request).await);
    }
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<ApiError>() {
        Some(error) => error.answer(envelope, None),
        None => response,
    }
}

/// As [`in_dialect`]; there, each answer has an id.
fn in_anthropics(mut response: Response) -> Response {
    let id = anthropic::request_id();
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = error.answer(Envelope::Anthropic, Some(&id));
    }
    with_request_id(response, &id)
}

fn with_request_id(mut response: Response, id: &str) -> Response {
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert("request-id", id);
    }
    response
}
