//! Ollama's paths. `/api/generate` is among shimmy's own, which answers its clients too.

use axum::http::StatusCode;

use crate::api::ErrorKind;
use crate::api::ollama::shapes::{ErrorBody, LoadedModels, Progress, Shown, Tags, Version};
use crate::api::ollama::{
    ChatAnswer, ChatRequest, CopyRequest, CreateRequest, EmbedBody, EmbedRequest, EmbeddingsBody, EmbeddingsRequest,
    GenerateAnswer, GenerateRequest, ModelRequest,
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

/// How what may have to fetch a model fails.
const FETCHING: &[ErrorKind] =
    &[ErrorKind::ModelNotFound, ErrorKind::NotFetched, ErrorKind::NoSpace, ErrorKind::Overloaded];

fn routes() -> Vec<Route> {
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
            .about(
                "From Ollama's registry (`name:tag`) or the hub (`hf.co/org/repo:quantization`). Two that ask for one model share it; \
                 when the last of them leaves, it stops, and the next one goes on from there.",
            )
            .takes::<ModelRequest>()
            .answers::<Progress>()
            .lines::<Either<Progress, ErrorBody>>()
            .fails(FETCHING),
        post("/api/copy", ollama::copy, "Give a model another name")
            .takes::<CopyRequest>()
            .nothing(StatusCode::OK, "Done")
            .fails(&[ErrorKind::ModelNotFound, ErrorKind::NoSpace]),
        delete("/api/delete", ollama::delete, "Delete a model of shimmy's own folder, or a name")
            .takes::<ModelRequest>()
            .nothing(StatusCode::OK, "Done")
            .fails(&[ErrorKind::ModelNotFound]),
        post("/api/create", ollama::create, "Make a model out of another one, or of files")
            .takes::<CreateRequest>()
            .answers::<Progress>()
            .lines::<Either<Progress, ErrorBody>>()
            .fails(FETCHING),
        post("/api/push", ollama::push, "Publish a model").fails(&[ErrorKind::NotServed]),
        head("/api/blobs/{digest}", ollama::has_blob, "Ask whether a blob is there")
            .nothing(StatusCode::OK, "It is there")
            .nothing(StatusCode::NOT_FOUND, "It is not there"),
        post("/api/blobs/{digest}", ollama::add_blob, "Send a blob")
            .about("The body is the file; its SHA-256 must be the path's.")
            .nothing(StatusCode::OK, "It was there already")
            .nothing(StatusCode::CREATED, "It is there now")
            .fails(&[ErrorKind::NoSpace]),
    ]
}
