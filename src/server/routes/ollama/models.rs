//! Models, as Ollama's clients ask about them.

use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::model_error;
use crate::api::ollama::{self, ModelRequest};
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
fn with_aliases(state: &AppState) -> Vec<(ModelStatus, Option<String>)> {
    let AppState { registry, models, .. } = state;
    let mut all: Vec<_> = models.list_now().into_iter().map(|status| models.with_manifest(status)).collect();
    all.extend(registry.aliases().into_iter().filter_map(|(alias, name)| {
        let (status, manifest) = models.with_manifest(registry.status(&name).ok()?);
        Some((ModelStatus { name: alias, ..status }, manifest))
    }));
    all
}

pub(in crate::server) async fn ps(State(state): State<AppState>) -> Result<Json<Value>, ApiError> {
    let AppState { registry, models, .. } = state;
    blocking(move || {
        let all: Vec<_> = registry.list().into_iter().map(|status| models.with_manifest(status)).collect();
        Ok(Json(ollama::loaded(&all)))
    })
    .await
}

pub(in crate::server) async fn show(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let ModelRequest { name, ignored, .. } = ModelRequest::from_value(body)?;
    let (registry, models) = (Arc::clone(&state.registry), Arc::clone(&state.models));
    let shown = blocking(move || {
        let status = status(&registry, &name)?;
        let header = status.path.as_deref().and_then(|path| gguf::Header::open(Path::new(path)).ok());
        let found = models.found(&status).ok();
        Ok(ollama::show(&status, header.as_ref(), found.as_ref().and_then(|found| found.ollama.as_ref())))
    });
    Ok(Ignored::new(&ignored).noted_in(Json(shown.await?).into_response()))
}

fn status(registry: &Arc<Registry>, name: &str) -> Result<ModelStatus, ApiError> {
    registry.status(name).map_err(|error| model_error(name, error))
}
