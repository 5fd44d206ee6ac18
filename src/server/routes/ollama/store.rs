//! Fetching, copying and deleting models.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::api::ollama::{self, CopyRequest, CreateRequest, ModelRequest};
use crate::api::{BadRequest, ErrorKind};
use crate::config::{Kept, is_jinja};
use crate::library::Found;
use crate::library::pull::{ModelName, Source};
use crate::server::error::ApiError;
use crate::server::extract::JsonBody;
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
            let all = [json!({ "status": "pulling manifest" }), ollama::success()];
            return Ok(ignored.noted_in(told(streams, futures_util::stream::iter(all.map(Ok))).await?));
        }
    }
    let follower = state.models.fetch(&source)?;
    let done = futures_util::stream::once(async { Ok(ollama::success()) });
    Ok(ignored.noted_in(told(streams, steps(state, follower).chain(done)).await?))
}

fn is_elsewhere(models: &Models, name: &str) -> Result<bool, ApiError> {
    let Some(status) = models.status(name)? else { return Ok(false) };
    Ok(!models.is_absent(&status) && models.is_called(&status, name) && models.owned(&status).is_err())
}

/// A value a line, up to the first error, which is the last line; or where that is not asked for, the last value alone.
async fn told(
    streams: bool,
    values: impl Stream<Item = Result<Value, ApiError>> + Send + 'static,
) -> Result<Response, ApiError> {
    if streams {
        return Ok(lines(async_stream::stream! {
            let mut values = std::pin::pin!(values);
            while let Some(value) = values.next().await {
                let failed = value.is_err();
                yield value.unwrap_or_else(|error| json!({ "error": error.message }));
                if failed {
                    return;
                }
            }
        }));
    }
    let last = values.try_fold(Value::Null, |_, value| async { Ok(value) }).await?;
    Ok(Json(last).into_response())
}

fn lines(values: impl Stream<Item = Value> + Send + 'static) -> Response {
    let frames = values.map(|value| Ok::<_, Infallible>(Bytes::from(format!("{value}\n"))));
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(frames)).into_response()
}

/// What a client is told of a pull, up to its end. When it leaves, the stream is dropped, and the follower with it.
fn steps(state: AppState, mut follower: Follower) -> impl Stream<Item = Result<Value, ApiError>> + Send {
    async_stream::stream! {
        let mut told = Value::Null;
        loop {
            match next(&state, &mut follower).await {
                Ok(News::Steps(steps)) => for step in &steps {
                    let line = ollama::progress(step);
                    if line != told {
                        yield Ok(line.clone());
                        told = line;
                    }
                },
                Ok(News::End(end)) => {
                    if let Err(error) = ended(end) {
                        yield Err(error);
                    }
                    return;
                }
                Err(error) => {
                    yield Err(error);
                    return;
                }
            }
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
    end.ok_or_else(ApiError::internal)?.map_err(|error| ApiError::from(&*error)).map(drop)
}

/// Makes a model, out of one that is fetched before where it is not here.
pub(in crate::server) async fn create(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let mut request = CreateRequest::from_value(body)?;
    let ignored = Ignored::new(&std::mem::take(&mut request.ignored));
    Kept::check(&request.recipe.parameters, &request.recipe.messages).map_err(BadRequest)?;
    let (models, asked) = (Arc::clone(&state.models), request.clone());
    let ready = blocking(move || {
        let name = models.free_name(&asked.name)?;
        let base = asked.from.as_deref().map(|from| models.base(from)).transpose()?;
        Ok((name, base.flatten()))
    });
    let (name, base) = ready.await?;
    let fetched = match (&base, &request.from) {
        (None, Some(from)) => Some(state.models.fetch(&from.parse().map_err(|error| ApiError::from(&error))?)?),
        _ => None,
    };
    let streams = request.streams;
    Ok(ignored.noted_in(told(streams, made(state, request, name, base, fetched)).await?))
}

fn made(
    state: AppState,
    request: CreateRequest,
    name: ModelName,
    mut base: Option<Arc<Found>>,
    fetched: Option<Follower>,
) -> impl Stream<Item = Result<Value, ApiError>> + Send {
    let status = |text: String| json!({ "status": text });
    async_stream::try_stream! {
        if let Some(follower) = fetched {
            let fetched = follower.fetched();
            let mut steps = std::pin::pin!(steps(state.clone(), follower));
            while let Some(step) = steps.next().await {
                yield step?;
            }
            // The store may have another name for it than the source that was asked for.
            let from = fetched.name().map_or_else(|| request.from.clone().unwrap_or_default(), |name| name.full());
            let models = Arc::clone(&state.models);
            let found = blocking(move || models.base(&from)?.ok_or_else(|| models.not_found(&from)));
            base = Some(found.await?);
        }
        if request.recipe.template.as_ref().is_some_and(|template| !is_jinja(template)) {
            let note = "the template is kept, but answers are made with that of the weights' file: it is not in Jinja";
            yield status(note.into());
        }
        let (teller, mut told) = tokio::sync::mpsc::unbounded_channel();
        let models = Arc::clone(&state.models);
        let making = tokio::task::spawn_blocking(move || models.make(&name, request, base, &mut |step| {
            // A client that has left hears nothing, and the model is made all the same.
            let _ = teller.send(step);
        }));
        while let Some(step) = told.recv().await {
            yield status(step.status());
        }
        making.await.unwrap_or_else(|_| Err(ApiError::internal()))?;
        yield ollama::success();
    }
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
    blocking(move || state.models.delete(&name)).await?;
    Ok(StatusCode::OK)
}

/// Why it cannot be had here.
pub(in crate::server) async fn push() -> ApiError {
    let message =
        "shimmy does not publish models: a registry takes them from `ollama push`, which needs the account's key";
    ApiError::new(ErrorKind::NotServed, message)
}
