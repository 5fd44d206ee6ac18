//! `POST /api/embed` and `/api/embeddings`.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::model_error;
use crate::api::ErrorKind;
use crate::api::ollama::{self, EmbedRequest, EmbeddingsRequest};
use crate::registry::{Cancel, KeepAlive, Registry};
use crate::runner::{EmbedSpec, Embeddings};
use crate::server::error::ApiError;
use crate::server::extract::JsonBody;
use crate::server::ignored::Ignored;
use crate::server::routes::generate::{wanted, without_adapters};
use crate::server::state::AppState;

pub(in crate::server) async fn embed(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = EmbedRequest::from_value(body)?;
    let ignored = Ignored::new(&request.ignored);
    let model = request.spec.model.clone();
    let asked = Instant::now();
    let (found, load_ms) = compute(&state, request.spec, request.keep_alive).await?;
    let total_ms = asked.elapsed().as_secs_f64() * 1e3;
    Ok(ignored.noted_in(Json(ollama::embed_body(&model, &found, total_ms, load_ms)).into_response()))
}

pub(in crate::server) async fn embeddings(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let EmbeddingsRequest(request) = EmbeddingsRequest::from_value(body)?;
    let ignored = Ignored::new(&request.ignored);
    let (found, _) = compute(&state, request.spec, request.keep_alive).await?;
    Ok(ignored.noted_in(Json(ollama::embeddings_body(&found)).into_response()))
}

/// The vectors, and the milliseconds that loading took.
async fn compute(
    state: &AppState,
    spec: EmbedSpec,
    keep_alive: Option<KeepAlive>,
) -> Result<(Embeddings, f64), ApiError> {
    if state.is_draining() {
        return Err(ApiError::new(ErrorKind::Overloaded, "the server is shutting down"));
    }
    let work = move |registry: &Arc<Registry>, cancel: &Cancel| {
        without_adapters(registry, &spec.model)?;
        let asked = Instant::now();
        let lease = registry.acquire_unless(&spec.model, cancel);
        let mut lease = lease.map_err(|error| model_error(&spec.model, error))?;
        lease.keep_alive(keep_alive);
        let load_ms = asked.elapsed().as_secs_f64() * 1e3;
        let found = if spec.inputs.is_empty() { Embeddings::default() } else { lease.runner().embed(&spec)? };
        Ok((found, load_ms))
    };
    wanted(state, work).await
}
