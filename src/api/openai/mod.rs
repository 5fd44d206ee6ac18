//! OpenAI's dialect: `/v1/chat/completions` and `/v1/models`.

mod chat;
mod encode;
mod error;
mod models;
mod tools;
mod turn;

pub use chat::ChatRequest;
pub use encode::{ChatEncoder, Head, chat_body};
pub use error::error_body;
pub use models::{model, models};
