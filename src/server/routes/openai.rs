//! OpenAI's paths, below `/v1`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::generate::{Started, blocking, start};
use crate::api::ErrorKind;
use crate::api::openai::{self, ChatEncoder, ChatRequest, Head};
use crate::server::error::ApiError;
use crate::server::extract::JsonBody;
use crate::server::state::AppState;
use crate::server::stream;
use crate::system;

/// Fields of the request that had no effect.
const IGNORED: HeaderName = HeaderName::from_static("x-shimmy-ignored");
/// Longest value of that header.
const IGNORED_BYTES: usize = 1024;

/// An error in OpenAI's words.
pub(in crate::server) struct Refusal(ApiError);

impl<E: Into<ApiError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.0.answer_for("/v1/")
    }
}

pub(in crate::server) async fn chat(
    State(state): State<AppState>,
    body: Result<JsonBody, ApiError>,
) -> Result<Response, Refusal> {
    let JsonBody(body) = body?;
    let request = ChatRequest::from_value(body)?;
    let (streams, include_usage) = (request.streams(), request.includes_usage());
    let ignored = ignored_header(&request.ignored);
    let Started { deltas, lease, model, .. } = start(&state, request.into_spec()?).await.map_err(ApiError::from)?;
    let head = Head::new(model, system::fingerprint());
    let mut response = if streams {
        stream::respond(deltas, lease, ChatEncoder::new(head, include_usage)).await?
    } else {
        let (text, summary) = stream::collect(deltas).await?;
        drop(lease);
        Json(openai::chat_body(&head, &text, &summary)).into_response()
    };
    if let Some(ignored) = ignored {
        response.headers_mut().insert(IGNORED, ignored);
    }
    Ok(response)
}

pub(in crate::server) async fn models(State(state): State<AppState>) -> Json<serde_json::Value> {
    Json(openai::models(&state.registry.list()))
}

pub(in crate::server) async fn model(
    State(state): State<AppState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let Path(id) = id.map_err(|e| ApiError::new(ErrorKind::BadRequest, format!("bad request: {}", e.body_text())))?;
    let registry = Arc::clone(&state.registry);
    let status = blocking(move || registry.status(&id).map_err(ApiError::from)).await?;
    Ok(Json(openai::model(&status)))
}

fn ignored_header(paths: &[String]) -> Option<HeaderValue> {
    if paths.is_empty() {
        return None;
    }
    tracing::debug!(fields = paths.join(", "), "fields that have no effect");
    let mut list = String::new();
    for (index, path) in paths.iter().enumerate() {
        // The client chose the names.
        let name: String = path.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
        if list.len() + name.len() > IGNORED_BYTES {
            list.push_str(&format!(", and {} more", paths.len() - index));
            break;
        }
        list.push_str(if list.is_empty() { "" } else { ", " });
        list.push_str(&name);
    }
    HeaderValue::from_str(&list).ok()
}
