//! The tables' operations on axum, and what surrounds all of them.

use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;

use super::error::{self, ApiError};
use super::state::AppState;
use super::tables;
use crate::api::ErrorKind;

pub(super) fn router(state: AppState) -> Router {
    let routes = tables::all().into_iter().flat_map(|table| table.routes);
    routes
        .fold(Router::new(), |router, route| router.route(&route.path, route.handler))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(|_| ApiError::internal().into_response()))
        .layer(middleware::from_fn(error::in_dialect))
        .layer(middleware::from_fn(log_request))
        .with_state(state)
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
