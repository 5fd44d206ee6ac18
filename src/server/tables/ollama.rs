//! Ollama's paths. `/api/generate` is among shimmy's own, which answers its clients too.

use axum::http::StatusCode;

use crate::api::ErrorKind;
use crate::api::ollama::shapes::{ErrorBody, LoadedModels, Progress, Shown, Tags, Version};
use crate::api::ollama::{
    ChatAnswer, ChatRequest, CopyRequest, EmbedBody, EmbedRequest, EmbeddingsBody, EmbeddingsRequest, GenerateAnswer,
    GenerateRequest, ModelRequest,
};
use crate::server::openapi::{COMPUTING, Either};
use crate::server::route::{Route, Table, delete, get, head, post};
use crate::server::routes::ollama;

pub(super) fn table() -> Table {
    Table { tag: "Ollama", about: "What Ollama's clients ask for.", routes: routes() }
}

/// Where all paths are Ollama's: `OLLAMA_HOST=http://127.0.0.1:11435/ollama`.
pub(super) fn table_below() -> Table {
    let mut routes: Vec<Route> = routes().into_iter().map(|route| route.below("/ollama")).collect();
    routes.push(
        post("/ollama/api/generate", ollama::generate, "Answer a prompt")
            .takes::<GenerateRequest>()
            .answers::<GenerateAnswer>()
            .lines::<Either<GenerateAnswer, ErrorBody>>()
            .fails(COMPUTING),
    );
    routes.push(get("/ollama", ollama::is_running, "Tell that a server is here").text("text/plain"));
    Table { tag: "Ollama, below /ollama", about: "The same paths, where none is shared with shimmy's own API.", routes }
}

fn routes() -> Vec<Route> {
    let not_served = [ErrorKind::NotServed];
    vec![
        get("/", ollama::is_running, "Tell that a server is here").text("text/plain"),
        get("/api/version", ollama::version, "Tell the version").answers::<Version>(),
        post("/api/chat", ollama::chat, "Answer a conversation")
            .takes::<ChatRequest>()
            .answers::<ChatAnswer>()
            .lines::<Either<ChatAnswer, ErrorBody>>()
            .fails(COMPUTING),
        post("/api/embed", ollama::embed, "Embed texts")
            .takes::<EmbedRequest>()
            .answers::<EmbedBody<'static>>()
            .fails(COMPUTING),
        post("/api/embeddings", ollama::embeddings, "Embed one text")
            .takes::<EmbeddingsRequest>()
            .answers::<EmbeddingsBody<'static>>()
            .fails(COMPUTING),
        get("/api/tags", ollama::tags, "List the models").answers::<Tags>(),
        get("/api/ps", ollama::ps, "List the models that are loaded").answers::<LoadedModels>(),
        post("/api/show", ollama::show, "Describe a model")
            .takes::<ModelRequest>()
            .answers::<Shown>()
            .fails(&[ErrorKind::ModelNotFound]),
        post("/api/pull", ollama::pull, "Fetch a model")
            .takes::<ModelRequest>()
            .answers::<Progress>()
            .lines::<Progress>()
            .fails(&not_served),
        post("/api/copy", ollama::copy, "Give a model another name")
            .takes::<CopyRequest>()
            .nothing(StatusCode::OK, "Done")
            .fails(&[ErrorKind::ModelNotFound]),
        delete("/api/delete", ollama::delete, "Delete a copy")
            .takes::<ModelRequest>()
            .nothing(StatusCode::OK, "Done")
            .fails(&[ErrorKind::ModelNotFound, ErrorKind::NotServed]),
        post("/api/create", ollama::not_served, "Make a model out of others").fails(&not_served),
        post("/api/push", ollama::not_served, "Publish a model").fails(&not_served),
        head("/api/blobs/{digest}", ollama::no_blob, "Ask whether a blob is there")
            .nothing(StatusCode::NOT_FOUND, "There is no such blob"),
        post("/api/blobs/{digest}", ollama::no_blob, "Send a blob").fails(&not_served),
    ]
}
