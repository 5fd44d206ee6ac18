//! What `/v1/models` lists.

use std::path::Path;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use crate::registry::ModelStatus;

/// All models.
#[must_use]
pub fn models(found: &[ModelStatus]) -> Value {
    json!({ "object": "list", "data": found.iter().map(model).collect::<Vec<_>>() })
}

/// One of them. `created` is when its file was last written; 0 where there is none.
#[must_use]
pub fn model(status: &ModelStatus) -> Value {
    let written = status.path.as_deref().and_then(|path| Path::new(path).metadata().ok()?.modified().ok());
    let created = written.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |age| age.as_secs());
    json!({ "id": status.name, "object": "model", "created": created, "owned_by": "local" })
}
