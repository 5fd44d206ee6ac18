//! `POST /api/chat`, and `POST /api/generate` for Ollama's clients.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::{model_error, not_started};
use crate::api::ollama::{self, ChatRequest, GenerateRequest, Loading};
use crate::runner::GenerateSpec;
use crate::server::error::ApiError;
use crate::server::extract::JsonBody;
use crate::server::ignored::Ignored;
use crate::server::routes::generate::{Started, blocking, start};
use crate::server::state::AppState;
use crate::server::stream;

pub(in crate::server) async fn chat(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = ChatRequest::from_value(body)?;
    let ignored = Ignored::new(&request.ignored);
    let (streams, unloads) = (request.streams(), request.unloads());
    if request.only_loads() {
        let done = load(&state, request.model(), unloads).await?;
        return Ok(ignored.noted_in(Json(ollama::chat_load_body(request.model(), done)).into_response()));
    }
    let Started { deltas, lease, model, load_ms } = begin(&state, request.into_spec()?, unloads).await?;
    let response = if streams {
        stream::respond(deltas, lease, ollama::ChatEncoder::new(model, load_ms)).await?
    } else {
        let (answer, summary) = stream::collect(deltas).await?;
        drop(lease);
        Json(ollama::chat_body(&model, &answer, &summary, load_ms)).into_response()
    };
    Ok(ignored.noted_in(response))
}

pub(in crate::server) async fn generate(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    generate_from(&state, body).await
}

/// Also for the path that another dialect shares.
pub(in crate::server) async fn generate_from(state: &AppState, body: Value) -> Result<Response, ApiError> {
    let request = GenerateRequest::from_value(body)?;
    let ignored = Ignored::new(&request.ignored);
    let (streams, unloads) = (request.streams(), request.unloads());
    if request.only_loads() {
        let done = load(state, request.model(), unloads).await?;
        return Ok(ignored.noted_in(Json(ollama::load_body(request.model(), done)).into_response()));
    }
    let Started { deltas, lease, model, load_ms } = begin(state, request.into_spec()?, unloads).await?;
    let response = if streams {
        stream::respond(deltas, lease, ollama::NdjsonEncoder::new(model, load_ms)).await?
    } else {
        let (answer, summary) = stream::collect(deltas).await?;
        drop(lease);
        Json(ollama::whole_body(&model, &answer, &summary, load_ms)).into_response()
    };
    Ok(ignored.noted_in(response))
}

async fn begin(state: &AppState, spec: GenerateSpec, unloads: bool) -> Result<Started, ApiError> {
    let asked = spec.model.clone();
    let mut started = start(state, spec).await.map_err(|reason| not_started(&asked, reason))?;
    if unloads {
        started.lease = started.lease.unloading_from(&state.registry);
    }
    Ok(started)
}

/// What a request without a prompt asks for.
async fn load(state: &AppState, name: &str, unloads: bool) -> Result<Loading, ApiError> {
    let (name, registry) = (name.to_owned(), Arc::clone(&state.registry));
    let work = move || {
        if unloads {
            registry.unload(&name).map_err(|error| model_error(&name, error))?;
            return Ok(Loading::Unloaded);
        }
        registry.acquire(&name).map_err(|error| model_error(&name, error))?;
        Ok(Loading::Loaded)
    };
    blocking(work).await
}
