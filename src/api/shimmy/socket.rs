//! Frames of `/ws/generate`.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::engine::Summary;

/// What a client may send while a generation runs.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct ControlFrame {
    /// Ends the generation at once.
    #[serde(default)]
    pub stop: bool,
    /// From the next token on.
    pub temperature: Option<f32>,
}

impl ControlFrame {
    /// # Errors
    /// What is wrong with the frame, for the client to read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| format!("bad request: {e}"))?;
        if value.get("model").is_some() {
            return Err(
                "bad request: a generation is running; wait for its final frame or send {\"stop\": true}".into()
            );
        }
        let frame: Self = serde_json::from_value(value).map_err(|e| format!("bad request: {e}"))?;
        match frame.temperature {
            Some(t) if !(0.0..=100.0).contains(&t) => {
                Err(format!("bad request: temperature is {t}; it must be a number from 0 to 100"))
            }
            None if !frame.stop => Err("bad request: a control frame holds `stop` or `temperature`".into()),
            _ => Ok(frame),
        }
    }
}

/// The last frame of a generation.
#[must_use]
pub fn final_frame(model: &str, summary: &Summary) -> String {
    json!({
        "done": true,
        "model": model,
        "done_reason": crate::api::ollama::done_reason(summary.reason),
        "seed": summary.seed,
        "usage": summary.usage,
        "timings": summary.timings,
    })
    .to_string()
}

#[must_use]
pub fn error_frame(reason: &str) -> String {
    json!({ "error": reason }).to_string()
}
