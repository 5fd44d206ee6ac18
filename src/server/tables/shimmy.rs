//! shimmy's own paths.

use axum::http::StatusCode;

use crate::api::ErrorKind;
use crate::api::ollama::shapes::ErrorBody;
use crate::api::ollama::{self, GenerateAnswer};
use crate::api::shimmy::shapes::{Adapters, Diagnostics, Document, Health, HealthInShort, Models, UnloadedAdapter};
use crate::api::shimmy::{AdapterRequest, GenerateRequest, LoadEvent, LoadRequest};
use crate::registry::{AdapterStatus, ModelStatus};
use crate::server::openapi::{self, COMPUTING, Either, LOADING};
use crate::server::route::{Table, delete, get, post};
use crate::server::routes::{adapters, diag, generate, health, metrics, models, socket};

const BY_DIALECT: &str = "\
Answers shimmy's and Ollama's clients. A field that only Ollama has (`options`, `keep_alive`, `format`, `template`, `context`, \
`images`, `think`) makes it Ollama's; otherwise `Accept` does: `application/x-ndjson` and `application/json` are Ollama's, and \
anything else is shimmy's. shimmy's answer comes whole unless `stream` is true, Ollama's streams unless it is false.";

const SOCKET: &str = "\
Each text frame that begins a generation is the body of `POST /api/generate`. The answer is a text frame a token, and at last \
`{\"done\": true, …}`; what fails is `{\"error\": \"…\"}`. While it runs, `{\"stop\": true}` ends it and `{\"temperature\": 0.2}` \
changes it. The socket stays open for the next one.";

const LOAD: &str = "\
Waits until the model is there. With `stream` it tells how far it is: server-sent events, or NDJSON where `Accept` is \
`application/x-ndjson`, with the same JSON. `progress` has the state (`queued` until there is room) and the loaded fraction; the \
last one is `done` or `error`.";

pub(super) fn table() -> Table {
    let routes = vec![
        post("/api/generate", generate::by_dialect, "Answer a prompt or messages")
            .about(BY_DIALECT)
            .takes::<GenerateRequest>()
            .takes::<ollama::GenerateRequest>()
            .answers::<GenerateAnswer>()
            .text_events()
            .lines::<Either<GenerateAnswer, ErrorBody>>()
            .fails(COMPUTING),
        get("/ws/generate", socket::generate, "Answer prompts on a WebSocket")
            .about(SOCKET)
            .nothing(StatusCode::SWITCHING_PROTOCOLS, "A WebSocket")
            .fails(&[ErrorKind::BadRequest]),
        get("/api/models", models::list, "List the models").answers::<Models>(),
        post("/api/models/{name}/load", models::load, "Load a model")
            .about(LOAD)
            .may_take::<LoadRequest>()
            .answers::<ModelStatus>()
            .events::<LoadEvent>()
            .lines::<LoadEvent>()
            .fails(LOADING),
        post("/api/models/{name}/unload", models::unload, "Unload a model")
            .answers::<ModelStatus>()
            .fails(&[ErrorKind::ModelNotFound]),
        get("/api/adapters", adapters::list, "List the LoRA adapters")
            .query("model", &[], "Those of this model only")
            .answers::<Adapters>()
            .fails(&[ErrorKind::BadRequest, ErrorKind::ModelNotFound]),
        post("/api/adapters", adapters::load, "Load a LoRA adapter, or change how it is used")
            .takes::<AdapterRequest>()
            .answers::<AdapterStatus>()
            .fails(LOADING),
        delete("/api/adapters/{name}", adapters::unload, "Unload a LoRA adapter")
            .query("model", &[], "The model that it is for, where several have one of this name")
            .answers::<UnloadedAdapter>()
            .fails(LOADING),
        get("/health", health::health, "Tell whether requests can be served")
            .answers_as::<Either<Health, HealthInShort>>(StatusCode::OK, "Requests can be served")
            .answers_as::<Either<Health, HealthInShort>>(
                StatusCode::SERVICE_UNAVAILABLE,
                "No model can be served, or the server is about to end",
            ),
        get("/diag", diag::diag, "Describe the machine, its devices and this build").answers::<Diagnostics>(),
        get("/metrics", metrics::metrics, "Metrics in Prometheus' text format")
            .text("text/plain")
            .fails(&[ErrorKind::NoSuchPath]),
        get("/openapi.json", openapi::document, "This document").answers::<Document>(),
        get("/docs", openapi::page, "This document for people, with a form for each request")
            .about("A browser can open it without a key; its requests then carry the one that is entered.")
            .text("text/html"),
    ];
    Table { tag: "shimmy", about: "shimmy's own API.", routes }
}
