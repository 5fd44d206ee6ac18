//! Request bodies with our own error shape.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde_json::Value;

use super::error::ApiError;
use super::state::AppState;
use crate::api::ErrorKind;

/// A JSON object. The content type is not asked for: `curl -d` sends another one.
#[derive(Debug)]
pub(super) struct JsonBody(pub Value);

impl FromRequest<AppState> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Self::Rejection> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| body_error(&rejection, state))?;
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|e| ApiError::new(ErrorKind::BadRequest, format!("bad request: the body is not JSON: {e}")))?;
        if !value.is_object() {
            return Err(ApiError::new(ErrorKind::BadRequest, "bad request: the body must be a JSON object"));
        }
        Ok(Self(value))
    }
}

fn body_error(rejection: &BytesRejection, state: &AppState) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let message = format!("the body is too large; at most {} bytes are taken", state.config.max_body);
        return ApiError::new(ErrorKind::BodyTooLarge, message);
    }
    ApiError::new(ErrorKind::BadRequest, format!("bad request: {}", rejection.body_text()))
}
