//! Paths to handlers.

use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;

use super::error::ApiError;
use super::routes::{diag, generate, health, metrics, models, socket};
use super::state::AppState;

pub(super) fn router(state: AppState) -> Router {
    Router::new()
        .route("/api/generate", post(generate::by_dialect))
        .route("/ollama/api/generate", post(generate::ollama))
        .route("/ws/generate", get(socket::generate))
        .route("/health", get(health::health))
        .route("/diag", get(diag::diag))
        .route("/metrics", get(metrics::metrics))
        .route("/api/models", get(models::list))
        .route("/api/models/{name}/load", post(models::load))
        .route("/api/models/{name}/unload", post(models::unload))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(log_request))
        .layer(CatchPanicLayer::custom(|_| ApiError::internal().into_response()))
        .layer(DefaultBodyLimit::max(state.config.max_body))
        .with_state(state)
}

async fn not_found(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("no such path: {}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}

async fn log_request(request: axum::extract::Request, next: middleware::Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let start = std::time::Instant::now();
    let response = next.run(request).await;
    tracing::debug!(%method, path, status = response.status().as_u16(), ms = start.elapsed().as_millis(), "request");
    response
}
