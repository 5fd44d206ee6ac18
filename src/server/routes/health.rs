//! `GET /health`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

use crate::registry::State as ModelState;
use crate::server::access::Caller;
use crate::server::state::AppState;

/// 503 while nothing can be served: no model is known, each has failed to load, or the server drains. Who has no key where
/// one is needed learns that and no more.
pub(in crate::server) async fn health(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
) -> (StatusCode, Json<Value>) {
    let models = state.registry.list();
    let named = |wanted: ModelState| -> Vec<&str> {
        models.iter().filter(|model| model.state == wanted).map(|model| model.name.as_str()).collect()
    };
    let placement: Map<String, Value> =
        models.iter().filter_map(|model| Some((model.name.clone(), json!(model.info.as_ref()?.placement)))).collect();
    let status = if state.is_draining() {
        "draining"
    } else if models.is_empty() {
        "no models"
    } else if models.iter().all(|model| model.state == ModelState::Failed) {
        "failed"
    } else {
        "ok"
    };
    let code = if status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if !caller.is_known() {
        return (code, Json(json!({ "status": status })));
    }
    let body = json!({
        "status": status,
        "version": env!("CARGO_PKG_VERSION"),
        "models": {
            "known": models.len(),
            "loaded": named(ModelState::Loaded),
            "loading": named(ModelState::Loading),
            "failed": named(ModelState::Failed),
        },
        "placement": placement,
        "uptime_seconds": state.started.elapsed().as_secs(),
    });
    (code, Json(body))
}
