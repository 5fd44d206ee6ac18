//! Server-sent events.

use bytes::Bytes;
use serde_json::json;

use crate::api::Encoder;
use crate::runner::{Delta, RunnerError};

/// Each event's data is the text as it is; a line break in it becomes a further `data:` line.
#[derive(Debug, Default)]
pub struct SseEncoder;

impl Encoder for SseEncoder {
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    fn delta(&mut self, delta: &Delta) -> Bytes {
        match delta {
            Delta::Content(text) => data_lines(text).into(),
            Delta::Done(_) => Bytes::from_static(b"data: [DONE]\n\n"),
        }
    }

    fn error(&mut self, error: &RunnerError) -> Bytes {
        format!("event: error\ndata: {}\n\n", json!({ "error": error.to_string() })).into()
    }
}

/// Readers drop one space after the colon, so the text's own leading space survives. `\r` ends a line in this
/// format too and cannot be sent as itself.
fn data_lines(text: &str) -> String {
    let mut event = String::with_capacity(text.len() + 16);
    for line in text.replace("\r\n", "\n").split(['\n', '\r']) {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event.push('\n');
    event
}

#[cfg(test)]
mod tests {
    use super::data_lines;

    #[test]
    fn line_breaks_become_data_lines_and_spaces_survive() {
        assert_eq!(data_lines(" Paris"), "data:  Paris\n\n");
        assert_eq!(data_lines("a\nb"), "data: a\ndata: b\n\n");
        assert_eq!(data_lines("\n"), "data: \ndata: \n\n");
        assert_eq!(data_lines("a\r\nb\rc"), "data: a\ndata: b\ndata: c\n\n");
    }
}
