//! Ollama's paths.

mod blobs;
mod embed;
mod generate;
mod models;
mod store;

use axum::Json;
use serde_json::{Value, json};

pub(in crate::server) use blobs::{add_blob, has_blob};
pub(in crate::server) use embed::{embed, embeddings};
pub(in crate::server) use generate::{chat, generate, generate_from};
pub(in crate::server) use models::{ps, show, tags};
pub(in crate::server) use store::{copy, create, delete, pull, push};

use super::generate::NotStarted;
use crate::api::ErrorKind;
use crate::api::ollama::model_not_found;
use crate::registry::RegistryError;
use crate::server::error::ApiError;

/// Clients ask here whether a server is there, and some look for these words.
pub(in crate::server) async fn is_running() -> &'static str {
    "Ollama is running"
}

/// shimmy's own version. Clients take it apart into three numbers and compare it with the least that they need, which are 0.x
/// all; a made-up number of Ollama's would have to follow its releases for ever. The `ollama` command only warns.
pub(in crate::server) async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") }))
}

/// In Ollama's words. `asked` is the name in the request.
fn model_error(asked: &str, error: RegistryError) -> ApiError {
    match error {
        RegistryError::NotFound { near, .. } => ApiError::new(ErrorKind::ModelNotFound, model_not_found(asked, &near)),
        error => error.into(),
    }
}

fn not_started(asked: &str, reason: NotStarted) -> ApiError {
    match reason {
        NotStarted::Model(error) => model_error(asked, error),
        reason => reason.into(),
    }
}
