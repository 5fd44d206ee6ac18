//! `/api/generate` serves two kinds of clients; this is the one rule that tells them apart.

use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Shimmy,
    Ollama,
}

/// Fields that only Ollama's clients send.
const OLLAMA_FIELDS: &[&str] = &["options", "keep_alive", "format", "template", "context", "images", "think"];

/// A field that only Ollama has decides. Else `Accept` does: an event stream means shimmy, NDJSON or JSON (what
/// Ollama's clients send) means Ollama, and anything else, or none, means shimmy.
#[must_use]
pub fn choose(accept: Option<&str>, body: &Value) -> Dialect {
    if OLLAMA_FIELDS.iter().any(|field| body.get(field).is_some()) {
        return Dialect::Ollama;
    }
    let types: Vec<String> = accept
        .unwrap_or_default()
        .split(',')
        .map(|part| part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .collect();
    let has = |wanted: &str| types.iter().any(|found| found == wanted);
    if has("text/event-stream") {
        Dialect::Shimmy
    } else if has("application/x-ndjson") || has("application/json") {
        Dialect::Ollama
    } else {
        Dialect::Shimmy
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Dialect, choose};

    #[test]
    fn accept_decides_unless_a_field_does() {
        let plain = json!({"model": "m", "prompt": "p"});
        for (accept, dialect) in [
            (None, Dialect::Shimmy),
            (Some("*/*"), Dialect::Shimmy),
            (Some("text/event-stream"), Dialect::Shimmy),
            (Some("text/event-stream, application/json"), Dialect::Shimmy),
            (Some("application/x-ndjson"), Dialect::Ollama),
            (Some("application/json"), Dialect::Ollama),
            (Some("Application/JSON; charset=utf-8"), Dialect::Ollama),
            (Some("text/html"), Dialect::Shimmy),
        ] {
            assert_eq!(choose(accept, &plain), dialect, "{accept:?}");
        }
        for field in super::OLLAMA_FIELDS {
            let body = json!({"model": "m", "prompt": "p", *field: {}});
            assert_eq!(choose(Some("text/event-stream"), &body), Dialect::Ollama, "{field}");
        }
    }
}
