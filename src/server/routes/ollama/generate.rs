//! `POST /api/chat`, and `POST /api/generate` for Ollama's clients.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::{model_error, not_started};
use crate::api::ollama::{self, ChatRequest, GenerateRequest, Loading};
use crate::registry::{Cancel, KeepAlive, Registry};
use crate::runner::GenerateSpec;
use crate::server::error::ApiError;
use crate::server::extract::JsonBody;
use crate::server::ignored::Ignored;
use crate::server::routes::generate::{Started, start, wanted};
use crate::server::state::AppState;
use crate::server::stream;

pub(in crate::server) async fn chat(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = ChatRequest::from_value(body)?;
    let ignored = Ignored::new(&request.ignored);
    let (streams, keep_alive) = (request.streams(), request.keep_alive());
    if request.only_loads() {
        let done = load(&state, request.model(), keep_alive).await?;
        return Ok(ignored.noted_in(Json(ollama::chat_load_body(request.model(), done)).into_response()));
    }
    let Started { deltas, lease, model, load_ms } = begin(&state, request.into_spec()?, keep_alive).await?;
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
    let (streams, keep_alive) = (request.streams(), request.keep_alive());
    if request.only_loads() {
        let done = load(state, request.model(), keep_alive).await?;
        return Ok(ignored.noted_in(Json(ollama::load_body(request.model(), done)).into_response()));
    }
    let Started { deltas, lease, model, load_ms } = begin(state, request.into_spec()?, keep_alive).await?;
    let response = if streams {
        stream::respond(deltas, lease, ollama::NdjsonEncoder::new(model, load_ms)).await?
    } else {
        let (answer, summary) = stream::collect(deltas).await?;
        drop(lease);
        Json(ollama::whole_body(&model, &answer, &summary, load_ms)).into_response()
    };
    Ok(ignored.noted_in(response))
}

async fn begin(state: &AppState, spec: GenerateSpec, keep_alive: Option<KeepAlive>) -> Result<Started, ApiError> {
    let asked = spec.model.clone();
    let mut started = start(state, spec).await.map_err(|reason| not_started(&asked, reason))?;
    started.lease.keep_alive(keep_alive);
    Ok(started)
}

/// What a request without a prompt asks for.
async fn load(state: &AppState, name: &str, keep_alive: Option<KeepAlive>) -> Result<Loading, ApiError> {
    let name = name.to_owned();
    let work = move |registry: &Arc<Registry>, cancel: &Cancel| {
        if keep_alive == Some(KeepAlive::NOT) {
            registry.unload(&name).map_err(|error| model_error(&name, error))?;
            return Ok(Loading::Unloaded);
        }
        let mut lease = registry.acquire_unless(&name, cancel).map_err(|error| model_error(&name, error))?;
        lease.keep_alive(keep_alive);
        Ok(Loading::Loaded)
    };
    wanted(state, work).await
}
