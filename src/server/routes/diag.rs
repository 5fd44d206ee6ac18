//! `GET /diag`: what to attach to a bug report.

use axum::Json;
use serde_json::Value;

use super::generate::blocking;
use crate::server::error::ApiError;
use crate::system;

pub(in crate::server) async fn diag() -> Result<Json<Value>, ApiError> {
    // Asking a GPU driver can take a while.
    blocking(|| Ok(Json(system::diagnostics()))).await
}
