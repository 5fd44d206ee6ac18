//! How far fetching a model is, in Ollama's words.

use serde_json::{Value, json};

use crate::library::pull::Event;

/// A line of `/api/pull`.
#[must_use]
pub fn progress(event: &Event) -> Value {
    match event {
        // Ollama's clients draw a bar for each digest.
        Event::Fetching { digest: Some(digest), total, completed, .. } => json!({
            "status": format!("pulling {}", digest.short()),
            "digest": digest,
            "total": total,
            "completed": completed,
        }),
        other => json!(other),
    }
}

/// The last line.
#[must_use]
pub fn success() -> Value {
    json!({ "status": "success" })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::progress;
    use crate::library::pull::{Digest, Event};

    #[test]
    fn files_are_told_apart_by_their_digests() {
        let digest = Digest::of(b"");
        let fetching = |digest| Event::Fetching { what: "M-Q4_0.gguf".into(), digest, total: 10, completed: 4 };
        let expected =
            json!({ "status": "pulling e3b0c44298fc", "digest": digest.to_string(), "total": 10, "completed": 4 });
        assert_eq!(progress(&fetching(Some(digest))), expected);
        assert_eq!(progress(&fetching(None)), json!({ "status": "pulling M-Q4_0.gguf", "total": 10, "completed": 4 }));
        assert_eq!(progress(&Event::Manifest), json!({ "status": "pulling manifest" }));
    }
}
