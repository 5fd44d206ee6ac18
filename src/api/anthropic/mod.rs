//! Anthropic's dialect: `/v1/messages`, and `/v1/models` where its clients ask.

mod encode;
mod error;
mod models;
mod request;
pub mod shapes;
mod turns;

pub use encode::{Head, MessagesEncoder, message_body};
pub use error::{error_body, request_id};
pub use models::{model, models};
pub use request::MessagesRequest;

/// The request header that all of Anthropic's clients send, and no others.
pub const VERSION_HEADER: &str = "anthropic-version";

/// Whether a path is answered in this dialect. The models' paths are OpenAI's too, so the header decides there.
#[must_use]
pub fn answers(path: &str, has_version: bool) -> bool {
    path.starts_with("/v1/messages") || has_version && path.starts_with("/v1/models")
}
