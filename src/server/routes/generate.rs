//! `POST /api/generate` in shimmy's dialect, and what starts a generation in any.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::ollama;
use crate::api::dialect::{self, Dialect};
use crate::api::ollama::whole_body;
use crate::api::{ErrorKind, shimmy};
use crate::registry::{Cancel, Lease, NotSettled, Registry, RegistryError};
use crate::runner::{DeltaStream, GenerateSpec, Runner, RunnerError};
use crate::server::error::ApiError;
use crate::server::extract::JsonBody;
use crate::server::ignored::Ignored;
use crate::server::state::AppState;
use crate::server::stream;

pub(in crate::server) async fn by_dialect(
    State(state): State<AppState>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    match dialect::choose(accept, &body) {
        Dialect::Shimmy => in_shimmy(&state, body).await,
        Dialect::Ollama => ollama::generate_from(&state, body).await,
    }
}

async fn in_shimmy(state: &AppState, body: Value) -> Result<Response, ApiError> {
    let request = shimmy::GenerateRequest::from_value(body)?;
    let (streams, ignored) = (request.stream.unwrap_or(false), Ignored::new(&request.ignored));
    let include_usage = request.includes_usage();
    let started = start(state, request.into_spec()?).await?;
    let response = if streams {
        stream::respond(started.deltas, started.lease, shimmy::SseEncoder { include_usage }).await?
    } else {
        let (answer, summary) = stream::collect(started.deltas).await?;
        drop(started.lease);
        // A superset of both dialects' bodies.
        Json(whole_body(&started.model, &answer, &summary, started.load_ms)).into_response()
    };
    Ok(ignored.noted_in(response))
}

/// A generation that runs, or several.
pub(super) struct Started<D = DeltaStream> {
    pub deltas: D,
    pub lease: Lease,
    /// As the client named it.
    pub model: String,
    /// What this request waited for the model to load.
    pub load_ms: f64,
}

/// Why a generation did not start.
#[derive(Debug)]
pub(super) enum NotStarted {
    Model(RegistryError),
    Request(RunnerError),
    /// The server drains, or a task of ours died.
    Server(ApiError),
}

impl From<NotStarted> for ApiError {
    fn from(reason: NotStarted) -> Self {
        match reason {
            NotStarted::Model(error) => error.into(),
            NotStarted::Request(error) => error.into(),
            NotStarted::Server(error) => error,
        }
    }
}

impl From<NotSettled> for NotStarted {
    fn from(reason: NotSettled) -> Self {
        match reason {
            NotSettled::Model(error) => Self::Model(error),
            NotSettled::Request(error) => Self::Request(error),
        }
    }
}

/// Loads the model where need be, renders and tokenises the prompt, and queues it, off the async threads.
pub(super) async fn start(state: &AppState, spec: GenerateSpec) -> Result<Started, NotStarted> {
    let Started { mut deltas, lease, model, load_ms } = start_several(state, vec![spec], 1).await?;
    match deltas.pop() {
        Some(deltas) => Ok(Started { deltas, lease, model, load_ms }),
        None => Err(NotStarted::Server(ApiError::internal())),
    }
}

/// As [`start`], with several answers to each of several prompts for one model, in this order.
pub(super) async fn start_several(
    state: &AppState,
    specs: Vec<GenerateSpec>,
    answers: u32,
) -> Result<Started<Vec<DeltaStream>>, NotStarted> {
    if state.is_draining() {
        let draining = ApiError::new(ErrorKind::Overloaded, "the server is shutting down");
        return Err(NotStarted::Server(draining));
    }
    wanted(state, move |registry, cancel| Ok(begin(registry, cancel, specs, answers)))
        .await
        .map_err(NotStarted::Server)?
}

fn begin(
    registry: &Registry,
    cancel: &Cancel,
    mut specs: Vec<GenerateSpec>,
    answers: u32,
) -> Result<Started<Vec<DeltaStream>>, NotStarted> {
    let asked = Instant::now();
    let Some(model) = specs.first().map(|spec| spec.model.clone()) else {
        return Err(NotStarted::Server(ApiError::internal()));
    };
    let (base, adapters) = registry.split_name(&model).map_err(NotStarted::Model)?;
    let lease = registry.acquire_unless(base, cancel).map_err(NotStarted::Model)?;
    let load_ms = asked.elapsed().as_secs_f64() * 1e3;
    for spec in &mut specs {
        registry.settle_adapters(&lease, adapters.as_deref(), spec)?;
    }
    let deltas = lease.runner().generate_several(&specs, answers, &|| !cancel.is_set()).map_err(NotStarted::Request)?;
    Ok(Started { deltas, lease, model, load_ms })
}

/// As [`with_model`], for a model that is used without adapters of the request's own.
pub(super) async fn with_bare_model<T: Send + 'static>(
    state: &AppState,
    name: String,
    work: impl FnOnce(&dyn Runner) -> Result<T, RunnerError> + Send + 'static,
) -> Result<T, ApiError> {
    wanted(state, move |registry, cancel| {
        without_adapters(registry, &name)?;
        let lease = registry.acquire_unless(&name, cancel)?;
        Ok(work(lease.runner())?)
    })
    .await
}

/// Loads the model where need be and lets `work` have it, off the async threads.
pub(super) async fn with_model<T: Send + 'static>(
    state: &AppState,
    name: String,
    work: impl FnOnce(&dyn Runner) -> Result<T, RunnerError> + Send + 'static,
) -> Result<T, ApiError> {
    wanted(state, move |registry, cancel| {
        let lease = registry.acquire_unless(registry.split_name(&name)?.0, cancel)?;
        Ok(work(lease.runner())?)
    })
    .await
}

/// Vectors are computed with the adapters that a model is loaded with. Blocks.
///
/// # Errors
/// A name that asks for others.
pub(super) fn without_adapters(registry: &Registry, name: &str) -> Result<(), ApiError> {
    match registry.split_name(name)? {
        (base, Some(_)) => {
            let why = format!(
                "bad request: adapters are not chosen for embeddings and rankings by this version; {base:?} has those that it was loaded with"
            );
            Err(ApiError::new(ErrorKind::BadRequest, why))
        }
        (_, None) => Ok(()),
    }
}

/// Tells the registry that nobody wants the answer any more.
struct GivesUp {
    registry: Arc<Registry>,
    cancel: Cancel,
    is_done: bool,
}

impl Drop for GivesUp {
    fn drop(&mut self) {
        if !self.is_done {
            self.registry.cancel(&self.cancel);
        }
    }
}

/// Runs `work`, which acquires a model, off the async threads. A client that leaves does not wait for the model any longer.
pub(super) async fn wanted<T: Send + 'static>(
    state: &AppState,
    work: impl FnOnce(&Arc<Registry>, &Cancel) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let registry = Arc::clone(&state.registry);
    let mut guard = GivesUp { registry: Arc::clone(&registry), cancel: Cancel::default(), is_done: false };
    let cancel = guard.cancel.clone();
    let done = blocking(move || work(&registry, &cancel)).await;
    guard.is_done = true;
    done
}

/// Runs `work` off the async threads.
pub(in crate::server) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a blocking task died");
        Err(ApiError::internal())
    })
}
