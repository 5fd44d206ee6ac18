//! What `/v1/models` lists for Anthropic's clients.

use serde_json::{Value, json};

use crate::registry::ModelStatus;

/// All models, on one page.
#[must_use]
pub fn models(found: &[ModelStatus]) -> Value {
    let id = |status: Option<&ModelStatus>| status.map(|status| status.name.clone());
    json!({
        "data": found.iter().map(model).collect::<Vec<_>>(),
        "has_more": false,
        "first_id": id(found.first()),
        "last_id": id(found.last()),
    })
}

/// One of them. `created_at` is when its file was last written; the beginning of 1970 where there is none.
#[must_use]
pub fn model(status: &ModelStatus) -> Value {
    let seconds = i64::try_from(crate::api::written(status)).unwrap_or_default();
    let created = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    json!({
        "type": "model",
        "id": status.name,
        "display_name": status.name,
        "created_at": created.to_string(),
        "lifecycle": "active",
    })
}
