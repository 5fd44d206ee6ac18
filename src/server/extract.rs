//! Request bodies and path parameters with our own error shape.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ApiError;
use super::state::AppState;
use crate::api::ErrorKind;

/// What a body begins with that was compressed on its way.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// A JSON object. The content type is not asked for: `curl -d` sends another one.
#[derive(Debug)]
pub(super) struct JsonBody(pub Value);

impl JsonBody {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        if bytes.starts_with(GZIP) {
            return Err(ApiError::new(ErrorKind::BadRequest, "bad request: the body is compressed; send it as it is"));
        }
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|e| ApiError::new(ErrorKind::BadRequest, format!("bad request: the body is not JSON: {e}")))?;
        if !value.is_object() {
            return Err(ApiError::new(ErrorKind::BadRequest, "bad request: the body must be a JSON object"));
        }
        Ok(Self(value))
    }
}

impl FromRequest<AppState> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Self::Rejection> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| body_error(&rejection, state))?;
        Self::parse(&bytes)
    }
}

/// A body that may be missing.
impl OptionalFromRequest<AppState> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Option<Self>, Self::Rejection> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| body_error(&rejection, state))?;
        if bytes.is_empty() { Ok(None) } else { Self::parse(&bytes).map(Some) }
    }
}

/// The one parameter of a path.
#[derive(Debug)]
pub(super) struct PathName(pub String);

impl FromRequestParts<AppState> for PathName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        let Path(name) = Path::from_request_parts(parts, state)
            .await
            .map_err(|e| ApiError::new(ErrorKind::BadRequest, format!("bad request: {}", e.body_text())))?;
        Ok(Self(name))
    }
}

/// The parameters behind a path's question mark.
pub(super) struct QueryOf<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for QueryOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        let Query(parameters) = Query::from_request_parts(parts, state)
            .await
            .map_err(|e| ApiError::new(ErrorKind::BadRequest, format!("bad request: {}", e.body_text())))?;
        Ok(Self(parameters))
    }
}

fn body_error(rejection: &BytesRejection, state: &AppState) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let message = format!("the body is too large; at most {} bytes are taken", state.config.max_body);
        return ApiError::new(ErrorKind::BodyTooLarge, message);
    }
    ApiError::new(ErrorKind::BadRequest, format!("bad request: {}", rejection.body_text()))
}
