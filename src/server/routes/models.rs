//! `/api/models`: what there is, loading and unloading.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::generate::blocking;
use crate::server::error::ApiError;
use crate::server::state::AppState;

pub(in crate::server) async fn list(State(state): State<AppState>) -> Json<Value> {
    Json(json!({ "models": state.registry.list() }))
}

pub(in crate::server) async fn load(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let registry = Arc::clone(&state.registry);
    let status = blocking(move || {
        registry.acquire(&name)?;
        registry.status(&name).map_err(ApiError::from)
    });
    Ok(Json(json!(status.await?)))
}

pub(in crate::server) async fn unload(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let registry = Arc::clone(&state.registry);
    let status = blocking(move || {
        registry.unload(&name)?;
        registry.status(&name).map_err(ApiError::from)
    });
    Ok(Json(json!(status.await?)))
}
