//! `/api/models`: what there is, loading and unloading.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::generate::{blocking, wanted};
use crate::api::shimmy::{EventFormat, LoadEvent, LoadRequest};
use crate::registry::{self, KeepAlive, ModelStatus};
use crate::server::error::ApiError;
use crate::server::extract::{JsonBody, PathName};
use crate::server::ignored::Ignored;
use crate::server::state::AppState;

/// Between two looks at how far a load is.
const TICK: Duration = Duration::from_millis(100);

pub(in crate::server) async fn list(State(state): State<AppState>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "models": state.models.list().await? })))
}

pub(in crate::server) async fn load(
    State(state): State<AppState>,
    PathName(name): PathName,
    headers: HeaderMap,
    body: Option<JsonBody>,
) -> Result<Response, ApiError> {
    let request = body.map_or_else(|| Ok(LoadRequest::default()), |JsonBody(body)| LoadRequest::from_value(body))?;
    let ignored = Ignored::new(&request.ignored);
    let response = if request.stream {
        // A name that nobody knows still has its own status.
        let (registry, asked) = (Arc::clone(&state.registry), name.clone());
        blocking(move || registry.status(&asked).map_err(ApiError::from)).await?;
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        events(state, name, request.keep_alive, EventFormat::accepted(accept))
    } else {
        Json(acquire(&state, name, request.keep_alive).await?).into_response()
    };
    Ok(ignored.noted_in(response))
}

async fn acquire(state: &AppState, name: String, keep_alive: Option<KeepAlive>) -> Result<ModelStatus, ApiError> {
    wanted(state, move |registry, cancel| {
        let mut lease = registry.acquire_unless(&name, cancel)?;
        lease.keep_alive(keep_alive);
        let name = lease.name().to_owned();
        // What is told is how the model is left.
        drop(lease);
        registry.status(&name).map_err(ApiError::from)
    })
    .await
}

/// The load as events, from whoever's request it comes. A client that leaves does not wait for it any longer.
fn events(state: AppState, name: String, keep_alive: Option<KeepAlive>, format: EventFormat) -> Response {
    let frames = async_stream::stream! {
        let loading = acquire(&state, name.clone(), keep_alive);
        tokio::pin!(loading);
        let mut told = None;
        let last = loop {
            tokio::select! {
                done = &mut loading => break match done {
                    Ok(model) => LoadEvent::Done { model: Box::new(model) },
                    Err(error) => LoadEvent::Error { error: error.message },
                },
                () = tokio::time::sleep(TICK) => {}
            }
            let event = state.registry.status(&name).ok().and_then(progress);
            if let Some(event) = event.filter(|event| told.as_ref() != Some(event)) {
                yield Ok::<_, Infallible>(Bytes::from(format.frame(&event)));
                told = Some(event);
            }
        };
        yield Ok(Bytes::from(format.frame(&last)));
    };
    ([(header::CONTENT_TYPE, format.content_type()), (header::CACHE_CONTROL, "no-cache")], Body::from_stream(frames))
        .into_response()
}

fn progress(status: ModelStatus) -> Option<LoadEvent> {
    let waits = matches!(status.state, registry::State::Queued | registry::State::Loading | registry::State::Unloading);
    waits.then(|| LoadEvent::Progress { state: status.state, progress: status.progress.unwrap_or(0.0) })
}

pub(in crate::server) async fn unload(
    State(state): State<AppState>,
    PathName(name): PathName,
) -> Result<Json<Value>, ApiError> {
    let registry = Arc::clone(&state.registry);
    let status = blocking(move || {
        registry.unload(&name)?;
        registry.status(&name).map_err(ApiError::from)
    });
    Ok(Json(json!(status.await?)))
}
