//! A response as it is kept, and what is told of it.

use serde_json::{Value, json};

/// A response and the conversation before it, as JSON, so that its size is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    id: String,
    body: String,
    /// All items up to the response, those of earlier turns among them.
    input: String,
}

impl Kept {
    #[must_use]
    pub fn new(id: &str, body: &Value, input: &[Value]) -> Self {
        Self { id: id.into(), body: body.to_string(), input: json!(input).to_string() }
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The response, as it was first told.
    #[must_use]
    pub fn body(&self) -> &str {
        &self.body
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.id.len() + self.body.len() + self.input.len()
    }

    /// All items, the response's own ones last.
    pub(super) fn conversation(&self) -> Vec<Value> {
        let mut items = self.input();
        if let Some(Value::Array(output)) = read(&self.body).get_mut("output").map(Value::take) {
            items.extend(output);
        }
        items
    }

    fn input(&self) -> Vec<Value> {
        match read(&self.input) {
            Value::Array(items) => items,
            _ => Vec::new(),
        }
    }
}

/// We wrote it ourselves.
fn read(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}

/// The items that a response was asked with, on one page; the last one first unless they are wanted `ascending`.
#[must_use]
pub fn input_items_body(kept: &Kept, ascending: bool) -> Value {
    let mut items = kept.input();
    if !ascending {
        items.reverse();
    }
    let id = |item: Option<&Value>| item.map(|item| item["id"].clone());
    json!({ "object": "list", "first_id": id(items.first()), "last_id": id(items.last()), "has_more": false, "data": items })
}

#[must_use]
pub fn deleted_body(id: &str) -> Value {
    json!({ "id": id, "object": "response", "deleted": true })
}
