//! `GET /openapi.json`: the API's own description, made from the tables and from the types of requests and answers. `GET /docs` shows
//! it to people.

mod describe;
mod docs;
mod operation;

use std::sync::LazyLock;

use axum::Extension;
use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;

pub(super) use docs::page;
pub(super) use operation::{Answer, COMPUTING, Content, Either, LOADING, Operation, Parameter, Place, schema_of};

use super::access::Caller;
use super::tables;

/// Of a server that asks for no keys, and of one that does.
static OPEN: LazyLock<Bytes> = LazyLock::new(|| describe::document(&tables::all(), false).to_string().into());
static KEYED: LazyLock<Bytes> = LazyLock::new(|| describe::document(&tables::all(), true).to_string().into());

pub(super) async fn document(Extension(caller): Extension<Caller>) -> impl IntoResponse {
    let document = if caller.is_asked_for_a_key() { KEYED.clone() } else { OPEN.clone() };
    ([(header::CONTENT_TYPE, "application/json")], document)
}
