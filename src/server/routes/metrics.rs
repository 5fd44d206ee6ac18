//! `GET /metrics`.

use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::api::ErrorKind;
use crate::server::error::ApiError;
use crate::server::metrics::render;

pub(in crate::server) async fn metrics() -> Response {
    match render() {
        Some(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        None => ApiError::new(ErrorKind::NoSuchPath, "this server records no metrics").into_response(),
    }
}
