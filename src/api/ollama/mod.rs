//! Ollama's dialect: `/api/chat`, `/api/generate`, `/api/embed`, and what its clients ask about models.

mod chat;
mod chat_response;
mod common;
mod create;
mod embed;
mod generate;
mod models;
mod options;
mod pull;
mod response;
pub mod shapes;
mod shown;

pub use chat::ChatRequest;
pub use chat_response::{ChatEncoder, chat_body, chat_load_body};
pub use create::CreateRequest;
pub use embed::{EmbedBody, EmbedRequest, EmbeddingsBody, EmbeddingsRequest, embed_body, embeddings_body};
pub use generate::GenerateRequest;
pub use models::{CopyRequest, ModelRequest, loaded, model_not_found, show, tags};
pub use pull::{progress, success};
pub use response::{Line, Loading, NdjsonEncoder, done_reason, load_body, whole_body};

/// What `/api/generate` answers, line by line or whole.
pub type GenerateAnswer = Line<'static, response::Said<'static>>;
/// What `/api/chat` answers, line by line or whole.
pub type ChatAnswer = Line<'static, chat_response::Said>;
