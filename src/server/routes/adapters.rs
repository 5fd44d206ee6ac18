//! `/api/adapters`: LoRA adapters that are loaded and unloaded while their model serves.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::generate::blocking;
use crate::api::shimmy::AdapterRequest;
use crate::registry::AdapterChange;
use crate::server::error::ApiError;
use crate::server::extract::{JsonBody, PathName, QueryOf};
use crate::server::ignored::Ignored;
use crate::server::state::AppState;

#[derive(Debug, Deserialize)]
pub(in crate::server) struct OfModel {
    model: Option<String>,
}

pub(in crate::server) async fn list(
    State(state): State<AppState>,
    QueryOf(of): QueryOf<OfModel>,
) -> Result<Json<Value>, ApiError> {
    let registry = Arc::clone(&state.registry);
    let found = blocking(move || Ok(registry.adapters(of.model.as_deref())?));
    Ok(Json(json!({ "adapters": found.await? })))
}

pub(in crate::server) async fn load(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let AdapterRequest { model, name, path, scale, default, ignored } = AdapterRequest::from_value(body)?;
    let ignored = Ignored::new(&ignored);
    let change = AdapterChange { name, path: path.map(PathBuf::from), scale, default };
    let registry = Arc::clone(&state.registry);
    let status = blocking(move || Ok(registry.load_adapter(&model, change)?)).await?;
    Ok(ignored.noted_in(Json(status).into_response()))
}

pub(in crate::server) async fn unload(
    State(state): State<AppState>,
    PathName(name): PathName,
    QueryOf(of): QueryOf<OfModel>,
) -> Result<Json<Value>, ApiError> {
    let registry = Arc::clone(&state.registry);
    let asked = name.clone();
    let model = blocking(move || Ok(registry.unload_adapter(&asked, of.model.as_deref())?));
    Ok(Json(json!({ "name": name, "model": model.await?, "unloaded": true })))
}
