//! Anthropic's paths, below `/v1/messages`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::generate::{Started, start, with_model};
use crate::api::anthropic::{Head, MessagesEncoder, MessagesRequest, message_body};
use crate::server::error::ApiError;
use crate::server::extract::JsonBody;
use crate::server::ignored::Ignored;
use crate::server::state::AppState;
use crate::server::stream;

pub(in crate::server) async fn messages(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = MessagesRequest::from_value(body)?;
    let (streams, ignored) = (request.streams(), Ignored::new(&request.ignored));
    let spec = request.into_spec()?;
    let stop_sequences = spec.stop.clone();
    let Started { deltas, lease, model, .. } = start(&state, spec).await?;
    let head = Head::new(model, stop_sequences);
    let response = if streams {
        let encoder = MessagesEncoder::new(head, deltas.prompt_tokens());
        stream::respond(deltas, lease, encoder).await?
    } else {
        let (answer, summary) = stream::collect(deltas).await?;
        drop(lease);
        Json(message_body(&head, &answer, &summary)).into_response()
    };
    Ok(ignored.noted_in(response))
}

pub(in crate::server) async fn count_tokens(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = MessagesRequest::from_value(body)?;
    let ignored = Ignored::new(&request.ignored);
    let spec = request.into_counted();
    let prompt = with_model(&state, spec.model.clone(), move |runner| runner.prompt(&spec)).await?;
    Ok(ignored.noted_in(Json(json!({ "input_tokens": prompt.tokens.len() })).into_response()))
}
