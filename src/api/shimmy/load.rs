//! `POST /api/models/{name}/load`: what a client may ask for, and how it hears of the progress.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{BadRequest, from_value_noting_ignored, push_json};
use crate::registry::{KeepAlive, ModelStatus, State};

/// The body; it may be missing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct LoadRequest {
    /// How long the model stays when nobody uses it.
    #[serde(default)]
    pub keep_alive: Option<KeepAlive>,
    /// Tell the progress as events.
    #[serde(default)]
    pub stream: bool,
    /// Paths of the fields that are passed over.
    #[serde(skip)]
    pub ignored: Vec<String>,
}

impl LoadRequest {
    /// # Errors
    /// Which field is wrong.
    pub fn from_value(body: Value) -> Result<Self, BadRequest> {
        let (request, ignored) = from_value_noting_ignored::<Self>(body)?;
        Ok(Self { ignored, ..request })
    }
}

/// One step of a load.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LoadEvent {
    /// It waits for room, or has come as far as the fraction says.
    Progress { state: State, progress: f32 },
    /// It is loaded. Nothing follows.
    Done { model: Box<ModelStatus> },
    /// It was not loaded. Nothing follows.
    Error { error: String },
}

/// How events are told apart on the wire; the JSON is the same in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFormat {
    Sse,
    Ndjson,
}

impl EventFormat {
    /// What the client takes: NDJSON where it says so, else server-sent events.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        if accept.is_some_and(|accept| accept.contains("application/x-ndjson")) { Self::Ndjson } else { Self::Sse }
    }

    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Sse => "text/event-stream",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// The bytes of one event.
    #[must_use]
    pub fn frame(self, event: &LoadEvent) -> Vec<u8> {
        let mut out = Vec::new();
        if self == Self::Sse {
            let name = match event {
                LoadEvent::Progress { .. } => "progress",
                LoadEvent::Done { .. } => "done",
                LoadEvent::Error { .. } => "error",
            };
            out.extend_from_slice(format!("event: {name}\ndata: ").as_bytes());
        }
        push_json(event, &mut out);
        out.extend_from_slice(if self == Self::Sse { b"\n\n" } else { b"\n" });
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{EventFormat, LoadEvent, LoadRequest};
    use crate::registry::{KeepAlive, State};

    #[test]
    fn events_are_the_same_in_both_formats() {
        let event = LoadEvent::Progress { state: State::Loading, progress: 0.5 };
        let json = r#"{"event":"progress","state":"loading","progress":0.5}"#;
        assert_eq!(EventFormat::Sse.frame(&event), format!("event: progress\ndata: {json}\n\n").as_bytes());
        assert_eq!(EventFormat::Ndjson.frame(&event), format!("{json}\n").as_bytes());
        assert_eq!(EventFormat::accepted(Some("application/x-ndjson, */*")), EventFormat::Ndjson);
        assert_eq!(EventFormat::accepted(None), EventFormat::Sse);
    }

    #[test]
    fn a_body_is_read_and_what_is_not_understood_is_listed() {
        let request = LoadRequest::from_value(json!({ "keep_alive": 0, "stream": true, "num_ctx": 1 })).expect("valid");
        assert_eq!((request.keep_alive, request.stream), (Some(KeepAlive::NOT), true));
        assert_eq!(request.ignored, ["num_ctx"]);
        let error = LoadRequest::from_value(json!({ "keep_alive": "soon" })).expect_err("no duration");
        assert!(error.0.starts_with("keep_alive: "), "{error}");
    }
}
