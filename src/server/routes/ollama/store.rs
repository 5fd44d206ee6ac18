//! Fetching, copying and deleting models.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::api::ollama::{self, CopyRequest, ModelRequest};
use crate::api::{BadRequest, ErrorKind};
use crate::library::pull::{Digest, NotADigest, PullError, Source, Store, Upload};
use crate::server::error::ApiError;
use crate::server::extract::{JsonBody, PathName};
use crate::server::ignored::Ignored;
use crate::server::models::{End, Follower, Models, News};
use crate::server::routes::generate::blocking;
use crate::server::state::AppState;

/// What is asked for by the name of a model that lies elsewhere than in our own folder is there, and needs no fetching.
pub(in crate::server) async fn pull(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let ModelRequest { name, streams, ignored } = ModelRequest::from_value(body)?;
    let source: Source = name.parse().map_err(|error| ApiError::from(&error))?;
    let ignored = Ignored::new(&ignored);
    if let Source::Ollama(_) = &source {
        let (models, name) = (Arc::clone(&state.models), name.clone());
        if !name.starts_with("ollama:") && blocking(move || is_elsewhere(&models, &name)).await? {
            return Ok(ignored.noted_in(already_there(streams)));
        }
    }
    let follower = state.models.fetch(&source)?;
    let response = if streams {
        lines(steps(state, follower))
    } else {
        whole(&state, follower).await?;
        Json(ollama::success()).into_response()
    };
    Ok(ignored.noted_in(response))
}

fn is_elsewhere(models: &Models, name: &str) -> Result<bool, ApiError> {
    let Some(status) = models.status(name)? else { return Ok(false) };
    let ours = |store: &Store| models.found(&status).is_ok_and(|found| store.owned(&found).is_ok());
    Ok(!models.store().is_ok_and(ours))
}

fn already_there(streams: bool) -> Response {
    if !streams {
        return Json(ollama::success()).into_response();
    }
    let all = [json!({ "status": "pulling manifest" }), ollama::success()];
    lines(futures_util::stream::iter(all))
}

/// A value a line.
pub(super) fn lines(values: impl futures_util::Stream<Item = Value> + Send + 'static) -> Response {
    let frames = values.map(|value| Ok::<_, Infallible>(Bytes::from(format!("{value}\n"))));
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(frames)).into_response()
}

/// What a client is told, up to the end. When it leaves, the stream is dropped, and the follower with it.
fn steps(state: AppState, mut follower: Follower) -> impl futures_util::Stream<Item = Value> + Send {
    async_stream::stream! {
        let mut told = Value::Null;
        loop {
            match next(&state, &mut follower).await {
                Ok(News::Steps(steps)) => for step in &steps {
                    let line = ollama::progress(step);
                    if line != told {
                        yield line.clone();
                        told = line;
                    }
                },
                Ok(News::End(end)) => {
                    yield match ended(end) {
                        Ok(()) => ollama::success(),
                        Err(error) => json!({ "error": error.message }),
                    };
                    return;
                }
                Err(error) => {
                    yield json!({ "error": error.message });
                    return;
                }
            }
        }
    }
}

async fn whole(state: &AppState, mut follower: Follower) -> Result<(), ApiError> {
    loop {
        if let News::End(end) = next(state, &mut follower).await? {
            return ended(end);
        }
    }
}

/// A server that shuts down does not wait for what can go on the next time.
async fn next(state: &AppState, follower: &mut Follower) -> Result<News, ApiError> {
    tokio::select! {
        news = follower.next() => Ok(news),
        () = state.drains() => {
            Err(ApiError::new(ErrorKind::Overloaded, "the server is shutting down; the next pull goes on from here"))
        }
    }
}

fn ended(end: End) -> Result<(), ApiError> {
    end.ok_or_else(ApiError::internal)?.map_err(|error| ApiError::from(&*error))
}

pub(in crate::server) async fn copy(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<StatusCode, ApiError> {
    let CopyRequest { source, destination } = CopyRequest::from_value(body)?;
    blocking(move || state.models.copy(&source, &destination)).await?;
    Ok(StatusCode::OK)
}

pub(in crate::server) async fn delete(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<StatusCode, ApiError> {
    let ModelRequest { name, .. } = ModelRequest::from_value(body)?;
    let asked = name.clone();
    blocking(move || state.models.delete(&asked)).await.map_err(|error| match error.kind {
        ErrorKind::ModelNotFound => crate::server::models::not_found(&name),
        _ => error,
    })?;
    Ok(StatusCode::OK)
}

fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|error: NotADigest| BadRequest(error.to_string()).into())
}

pub(in crate::server) async fn has_blob(
    State(state): State<AppState>,
    PathName(name): PathName,
) -> Result<StatusCode, ApiError> {
    let digest = digest(&name)?;
    let has = blocking(move || Ok(state.models.store().is_ok_and(|store| store.has(&digest)))).await?;
    Ok(if has { StatusCode::OK } else { StatusCode::NOT_FOUND })
}

/// Bytes that are written at once.
const WRITE: usize = 1 << 20;

/// Takes a file of any size that the disk has room for.
pub(in crate::server) async fn add_blob(
    State(state): State<AppState>,
    PathName(name): PathName,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let digest = digest(&name)?;
    let store = state.models.store()?.clone();
    let mut body = body.into_data_stream();
    if store.has(&digest) {
        // A client that still writes when the connection ends sees no answer.
        while body.next().await.is_some_and(|part| part.is_ok()) {}
        return Ok(StatusCode::OK);
    }
    let failed = |error: &PullError| match error {
        // It is the client's to know what it sends.
        PullError::WrongDigest { .. } => BadRequest(error.to_string()).into(),
        error => ApiError::from(error),
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let begin = {
        let store = store.clone();
        move || Upload::begin(&store, announced).map_err(|error| failed(&error))
    };
    let mut upload = blocking(begin).await?;
    let mut buffer = Vec::new();
    loop {
        let part = body.next().await.transpose();
        let part = part.map_err(|error| BadRequest(format!("what was sent ended early: {error}")))?;
        let ended = part.is_none();
        buffer.extend_from_slice(&part.unwrap_or_default());
        if buffer.len() < WRITE && !ended {
            continue;
        }
        let bytes = std::mem::take(&mut buffer);
        let write = move || upload.write(&bytes).map(|()| upload).map_err(|error| failed(&error));
        upload = blocking(write).await?;
        if ended {
            break;
        }
    }
    blocking(move || upload.finish(&store, &digest).map_err(|error| failed(&error))).await?;
    Ok(StatusCode::CREATED)
}

/// Why it cannot be had here.
pub(in crate::server) async fn push() -> ApiError {
    let message =
        "shimmy does not publish models: a registry takes them from `ollama push`, which needs the account's key";
    ApiError::new(ErrorKind::NotServed, message)
}
