//! Paths to handlers.

use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, head, post};
use axum::{Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;

use super::error::{self, ApiError};
use super::routes::{anthropic, diag, generate, health, metrics, models, ollama, openai, responses, socket, utility};
use super::state::AppState;
use crate::api::ErrorKind;

pub(super) fn router(state: AppState) -> Router {
    Router::new()
        .route("/api/generate", post(generate::by_dialect))
        .route("/ws/generate", get(socket::generate))
        .route("/health", get(health::health))
        .route("/diag", get(diag::diag))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/completions", post(openai::completions))
        .route("/v1/responses", post(responses::create))
        .route("/v1/responses/{id}", get(responses::get).delete(responses::delete))
        .route("/v1/responses/{id}/input_items", get(responses::input_items))
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{*id}", get(openai::model))
        .route("/tokenize", post(utility::tokenize))
        .route("/detokenize", post(utility::detokenize))
        .route("/apply-template", post(utility::apply_template))
        .route("/api/models", get(models::list))
        .route("/api/models/{name}/load", post(models::load))
        .route("/api/models/{name}/unload", post(models::unload))
        .merge(for_ollama())
        // Here all paths are Ollama's: `OLLAMA_HOST=http://127.0.0.1:11435/ollama`.
        .nest("/ollama", for_ollama().route("/api/generate", post(ollama::generate)))
        .route("/ollama/", get(ollama::is_running))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(|_| ApiError::internal().into_response()))
        .layer(middleware::from_fn(error::in_dialect))
        .layer(middleware::from_fn(log_request))
        .layer(DefaultBodyLimit::max(state.config.max_body))
        .with_state(state)
}

/// Paths that Ollama alone has.
fn for_ollama() -> Router<AppState> {
    Router::new()
        .route("/", get(ollama::is_running))
        .route("/api/version", get(ollama::version))
        .route("/api/chat", post(ollama::chat))
        .route("/api/embed", post(ollama::embed))
        .route("/api/embeddings", post(ollama::embeddings))
        .route("/api/tags", get(ollama::tags))
        .route("/api/ps", get(ollama::ps))
        .route("/api/show", post(ollama::show))
        .route("/api/pull", post(ollama::pull))
        .route("/api/copy", post(ollama::copy))
        .route("/api/delete", delete(ollama::delete))
        .route("/api/create", post(ollama::not_served))
        .route("/api/push", post(ollama::not_served))
        .route("/api/blobs/{digest}", head(ollama::no_blob).post(ollama::no_blob))
}

async fn not_found(uri: Uri) -> Response {
    ApiError::new(ErrorKind::NoSuchPath, format!("no such path: {}", uri.path())).into_response()
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::new(ErrorKind::WrongMethod, message).into_response()
}

async fn log_request(request: axum::extract::Request, next: middleware::Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let start = std::time::Instant::now();
    let response = next.run(request).await;
    tracing::debug!(%method, path, status = response.status().as_u16(), ms = start.elapsed().as_millis(), "request");
    response
}
