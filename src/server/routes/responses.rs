//! OpenAI's `/v1/responses`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::generate::{Started, blocking, start};
use crate::api::ErrorKind;
use crate::api::openai::{self, Asked, Keep, Kept, ResponsesEncoder, ResponsesRequest};
use crate::server::error::ApiError;
use crate::server::extract::{JsonBody, PathName};
use crate::server::ignored::Ignored;
use crate::server::state::AppState;
use crate::server::stream;

pub(in crate::server) async fn create(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = ResponsesRequest::from_value(body)?;
    let (streams, keeps, ignored) = (request.streams(), request.keeps(), Ignored::new(&request.ignored));
    let previous = request.previous().map(|id| previous(&state, id)).transpose()?;
    // A long conversation is read again.
    let Asked { spec, mut head, input } =
        blocking(move || request.into_asked(previous.as_deref()).map_err(ApiError::from)).await?;
    let asked = spec.sampling.clone();
    let Started { mut deltas, lease, .. } = start(&state, spec).await?;
    head.sampled_with(&lease.runner().defaults().sampling_for(&asked));
    let keep = keeps.then(|| {
        let store = Arc::clone(&state.responses);
        let keep: Keep = Box::new(move |kept| store.keep(kept));
        (input, keep)
    });
    let mut encoder = ResponsesEncoder::new(head, keep);
    if streams {
        return Ok(ignored.noted_in(stream::respond(deltas, lease, encoder).await?));
    }
    stream::encode(&mut deltas, &mut encoder).await?;
    drop(lease);
    let body = encoder.into_body().ok_or_else(ApiError::internal)?;
    Ok(ignored.noted_in(Json(body).into_response()))
}

pub(in crate::server) async fn get(
    State(state): State<AppState>,
    PathName(id): PathName,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    if asks(query.as_deref(), "stream=true") {
        let message = "bad request: a response that is kept is not streamed again by this version; leave `stream` out";
        return Err(ApiError::new(ErrorKind::BadRequest, message));
    }
    let kept = kept(&state, &id)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], kept.body().to_owned()).into_response())
}

pub(in crate::server) async fn input_items(
    State(state): State<AppState>,
    PathName(id): PathName,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let kept = kept(&state, &id)?;
    Ok(Json(openai::input_items_body(&kept, asks(query.as_deref(), "order=asc"))))
}

pub(in crate::server) async fn delete(
    State(state): State<AppState>,
    PathName(id): PathName,
) -> Result<Json<Value>, ApiError> {
    if state.responses.remove(&id) { Ok(Json(openai::deleted_body(&id))) } else { Err(no_such_response(&id)) }
}

fn asks(query: Option<&str>, parameter: &str) -> bool {
    query.unwrap_or_default().split('&').any(|given| given == parameter)
}

fn kept(state: &AppState, id: &str) -> Result<Arc<Kept>, ApiError> {
    state.responses.get(id).ok_or_else(|| no_such_response(id))
}

fn no_such_response(id: &str) -> ApiError {
    let message = format!("Response with id {id:?} not found; it was not kept, or gave way to newer ones");
    ApiError::new(ErrorKind::NoSuchResponse, message)
}

fn previous(state: &AppState, id: &str) -> Result<Arc<Kept>, ApiError> {
    let message = || {
        format!(
            "Previous response with id {id:?} not found; it was not kept, or gave way to newer ones: send the whole conversation as `input`"
        )
    };
    state.responses.get(id).ok_or_else(|| ApiError::new(ErrorKind::NoPreviousResponse, message()))
}
