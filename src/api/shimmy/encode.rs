//! Server-sent events.

use serde_json::json;

use crate::api::{Encoder, push_json};
use crate::runner::{Delta, RunnerError};

/// Each event's data is the text as it is; a line break in it becomes a further `data:` line.
#[derive(Debug, Default)]
pub struct SseEncoder {
    /// Tell usage and timings in an event of their own before the end.
    pub include_usage: bool,
}

impl Encoder for SseEncoder {
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    fn delta(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        match delta {
            Delta::Content(text) => push_data(text, out),
            // Its answer is all text.
            Delta::Reasoning(_) | Delta::ToolCall(_) | Delta::Logprobs(_) => {}
            Delta::Done(summary) => {
                if self.include_usage {
                    out.extend_from_slice(b"event: usage\ndata: ");
                    let body = json!({
                        "done_reason": crate::api::ollama::done_reason(summary.reason),
                        "seed": summary.seed,
                        "usage": summary.usage,
                        "timings": summary.timings,
                    });
                    push_json(&body, out);
                    out.extend_from_slice(b"\n\n");
                }
                out.extend_from_slice(b"data: [DONE]\n\n");
            }
        }
    }

    fn error(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        out.extend_from_slice(b"event: error\ndata: ");
        push_json(&json!({ "error": error.to_string() }), out);
        out.extend_from_slice(b"\n\n");
    }
}

/// Readers drop one space after the colon, so the text's own leading space survives. `\r` ends a line in this
/// format too and cannot be sent as itself.
fn push_data(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    let mut after_return = false;
    for byte in text.bytes() {
        match byte {
            b'\n' if after_return => {}
            b'\n' | b'\r' => out.extend_from_slice(b"\ndata: "),
            byte => out.push(byte),
        }
        after_return = byte == b'\r';
    }
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::push_data;

    fn data_lines(text: &str) -> String {
        let mut out = Vec::new();
        push_data(text, &mut out);
        String::from_utf8(out).expect("text stays text")
    }

    #[test]
    fn line_breaks_become_data_lines_and_spaces_survive() {
        assert_eq!(data_lines(" Paris"), "data:  Paris\n\n");
        assert_eq!(data_lines("a\nb"), "data: a\ndata: b\n\n");
        assert_eq!(data_lines("\n"), "data: \ndata: \n\n");
        assert_eq!(data_lines("a\r\nb\rc"), "data: a\ndata: b\ndata: c\n\n");
    }
}
