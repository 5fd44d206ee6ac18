//! What `/v1/models` lists.

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
    json!({ "id": status.name, "object": "model", "created": crate::api::written(status), "owned_by": "local" })
}
