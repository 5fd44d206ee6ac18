//! OpenAI's paths, below `/v1`.

use crate::api::openai::response_shapes::{DeletedResponse, InputItemList, Response, ResponseEvent};
use crate::api::openai::shapes::{
    ChatCompletion, Completion, CompletionChunk, EmbeddingList, ErrorBody, Model, ModelList, Reranked,
};
use crate::api::openai::{ChatRequest, Chunk, CompletionRequest, EmbedRequest, RerankRequest, ResponsesRequest};
use crate::api::{ErrorKind, anthropic};
use crate::server::openapi::{COMPUTING, Either};
use crate::server::route::{Table, delete, get, post};
use crate::server::routes::{openai, responses};

const BY_HEADER: &str = "Where the header is there, the answer is one of Anthropic's.";

pub(super) fn table() -> Table {
    let missing = [ErrorKind::NoSuchResponse];
    let routes = vec![
        post("/v1/chat/completions", openai::chat, "Answer a conversation")
            .takes::<ChatRequest>()
            .answers::<ChatCompletion>()
            .events::<Either<Chunk<'static>, ErrorBody>>()
            .fails(COMPUTING),
        post("/v1/completions", openai::completions, "Continue prompts")
            .takes::<CompletionRequest>()
            .answers::<Completion>()
            .events::<Either<CompletionChunk, ErrorBody>>()
            .fails(COMPUTING),
        post("/v1/embeddings", openai::embeddings, "Embed texts")
            .takes::<EmbedRequest>()
            .answers::<EmbeddingList>()
            .fails(COMPUTING),
        post("/v1/rerank", openai::rerank, "Rank texts")
            .about("In the shapes of Jina's and Cohere's services, for models that rank.")
            .takes::<RerankRequest>()
            .answers::<Reranked>()
            .fails(COMPUTING),
        post("/v1/responses", responses::create, "Answer, and keep the answer")
            .takes::<ResponsesRequest>()
            .answers::<Response>()
            .events::<ResponseEvent>()
            .fails(COMPUTING)
            .fails(&[ErrorKind::NoPreviousResponse]),
        get("/v1/responses/{id}", responses::get, "Show an answer that was kept")
            .query("stream", &["true", "false"], "True is refused: a kept answer is not streamed again")
            .answers::<Response>()
            .fails(&missing),
        delete("/v1/responses/{id}", responses::delete, "Forget an answer that was kept")
            .answers::<DeletedResponse>()
            .fails(&missing),
        get("/v1/responses/{id}/input_items", responses::input_items, "List what a kept answer was an answer to")
            .query("order", &["asc", "desc"], "The first item first, or the last one")
            .answers::<InputItemList>()
            .fails(&missing),
        get("/v1/models", openai::models, "List the models")
            .header(anthropic::VERSION_HEADER, BY_HEADER)
            .answers::<Either<ModelList, anthropic::shapes::ModelList>>(),
        get("/v1/models/{*id}", openai::model, "Describe a model")
            .header(anthropic::VERSION_HEADER, BY_HEADER)
            .answers::<Either<Model, anthropic::shapes::Model>>()
            .fails(&[ErrorKind::ModelNotFound]),
    ];
    Table { tag: "OpenAI", about: "What OpenAI's clients ask for. Their base URL is `http://host:port/v1`.", routes }
}
