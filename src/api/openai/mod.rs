//! OpenAI's dialect: `/v1/chat/completions`, `/v1/completions`, `/v1/responses`, `/v1/embeddings`, `/v1/rerank` and `/v1/models`.

mod chat;
mod completions;
mod completions_encode;
mod custom;
mod embeddings;
mod encode;
mod error;
mod fields;
mod models;
mod parts;
mod rerank;
mod responses;
pub mod shapes;
mod tools;
mod turn;

pub use chat::ChatRequest;
pub use completions::{CompletionRequest, Echo};
pub use completions_encode::{CompletionEncoder, completion_body};
pub use custom::Customs;
pub use embeddings::{EmbedRequest, embed_body};
pub use encode::{ChatEncoder, Chunk, chat_body};
pub use error::error_body;
pub use models::{model, models};
pub use parts::Head;
pub use rerank::{RerankRequest, rerank_body};
pub use responses::shapes as response_shapes;
pub use responses::{Asked, Keep, Kept, ResponsesEncoder, ResponsesRequest, deleted_body, input_items_body};
