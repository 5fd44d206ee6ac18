//! Models, as Ollama's clients ask about them.

use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::model_error;
use crate::api::ErrorKind;
use crate::api::ollama::{self, CopyRequest, ModelRequest};
use crate::gguf;
use crate::registry::{ModelStatus, Registry};
use crate::server::error::ApiError;
use crate::server::extract::JsonBody;
use crate::server::ignored::Ignored;
use crate::server::routes::generate::blocking;
use crate::server::state::AppState;

pub(in crate::server) async fn tags(State(state): State<AppState>) -> Result<Json<Value>, ApiError> {
    // Looks at each file.
    blocking(move || Ok(Json(ollama::tags(&with_aliases(&state))))).await
}

/// Models under all of their names.
fn with_aliases(state: &AppState) -> Vec<ModelStatus> {
    let (registry, mut models) = (&state.registry, state.models.list_now());
    let aliased = registry.aliases().into_iter().filter_map(|(alias, name)| {
        let status = registry.status(&name).ok()?;
        Some(ModelStatus { name: alias, ..status })
    });
    models.extend(aliased);
    models
}

pub(in crate::server) async fn ps(State(state): State<AppState>) -> Result<Json<Value>, ApiError> {
    blocking(move || Ok(Json(ollama::loaded(&state.registry.list())))).await
}

pub(in crate::server) async fn show(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let ModelRequest { name, ignored, .. } = ModelRequest::from_value(body)?;
    let registry = Arc::clone(&state.registry);
    let shown = blocking(move || {
        let status = status(&registry, &name)?;
        let header = status.path.as_deref().and_then(|path| gguf::Header::open(Path::new(path)).ok());
        Ok(ollama::show(&status, header.as_ref()))
    });
    Ok(Ignored::new(&ignored).noted_in(Json(shown.await?).into_response()))
}

/// A model that is there needs no fetching; another one cannot be fetched.
pub(in crate::server) async fn pull(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let ModelRequest { name, streams, ignored } = ModelRequest::from_value(body)?;
    if state.registry.status(&name).is_err() {
        let message = format!(
            "model '{name}' is not here, and this version cannot fetch models; put its .gguf file in a directory of \
             --model-dirs and start the server again"
        );
        return Err(ApiError::new(ErrorKind::NotServed, message));
    }
    let lines: String = ollama::pulled(streams).into_iter().map(|value| format!("{value}\n")).collect();
    let content_type = if streams { "application/x-ndjson" } else { "application/json" };
    Ok(Ignored::new(&ignored).noted_in(([(header::CONTENT_TYPE, content_type)], lines).into_response()))
}

/// Another name for a model, until the server ends.
pub(in crate::server) async fn copy(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<StatusCode, ApiError> {
    let CopyRequest { source, destination } = CopyRequest::from_value(body)?;
    let registry = &state.registry;
    let status = status(registry, &source)?;
    // An alias goes first where a name is looked up, so the model of this name would be out of reach.
    if registry.has_model(&destination) {
        let message = format!("'{destination}' is a model of its own; choose a name that is free");
        return Err(ApiError::new(ErrorKind::BadRequest, message));
    }
    registry.add_alias(&destination, &status.name);
    Ok(StatusCode::OK)
}

/// Only names that `/api/copy` made, and other aliases, are deleted. The files are not ours: they were found in directories of the
/// user's and in the stores of other programs, which would be left with a manifest that names no file.
pub(in crate::server) async fn delete(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<StatusCode, ApiError> {
    let ModelRequest { name, .. } = ModelRequest::from_value(body)?;
    if state.registry.remove_alias(&name) {
        return Ok(StatusCode::OK);
    }
    let status = status(&state.registry, &name)?;
    let file = status.path.map_or_else(|| "it has no file".into(), |path| format!("delete {path} yourself"));
    let message = format!("model '{name}' stays: this version deletes copies only, not models; {file}");
    Err(ApiError::new(ErrorKind::NotServed, message))
}

/// What Ollama does and this version does not.
pub(in crate::server) async fn not_served(uri: Uri) -> ApiError {
    let message = format!(
        "{} is not served by this version: models are .gguf files in the directories of --model-dirs, and /api/copy gives \
         one another name",
        uri.path()
    );
    ApiError::new(ErrorKind::NotServed, message)
}

/// There are no blobs, so that whoever asks for one learns that it would have to be sent.
pub(in crate::server) async fn no_blob(method: Method, uri: Uri) -> Result<StatusCode, ApiError> {
    if method == Method::HEAD { Ok(StatusCode::NOT_FOUND) } else { Err(not_served(uri).await) }
}

fn status(registry: &Arc<Registry>, name: &str) -> Result<ModelStatus, ApiError> {
    registry.status(name).map_err(|error| model_error(name, error))
}
