//! Ollama's dialect: `/api/chat`, `/api/generate`, `/api/embed`, and what its clients ask about models.

mod chat;
mod chat_response;
mod common;
mod embed;
mod generate;
mod keep_alive;
mod models;
mod options;
mod response;

pub use chat::ChatRequest;
pub use chat_response::{ChatEncoder, chat_body, chat_load_body};
pub use embed::{EmbedRequest, EmbeddingsRequest, embed_body, embeddings_body};
pub use generate::GenerateRequest;
pub use keep_alive::KeepAlive;
pub use models::{CopyRequest, ModelRequest, loaded, model_not_found, pulled, show, tags};
pub use response::{Loading, NdjsonEncoder, done_reason, load_body, whole_body};
