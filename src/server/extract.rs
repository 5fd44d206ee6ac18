//! Request bodies and path parameters with our own error shape.

use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Path, Query, Request};
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use axum::http::request::Parts;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ApiError;
use super::state::AppState;
use crate::api::ErrorKind;

/// What a body begins with that was compressed on its way.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// A JSON object. The content type is not asked for: `curl -d` sends another one.
#[derive(Debug)]
pub(super) struct JsonBody(pub Value);

impl JsonBody {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        if bytes.starts_with(GZIP) {
            return Err(ApiError::new(ErrorKind::BadRequest, "bad request: the body is compressed; send it as it is"));
        }
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|e| ApiError::new(ErrorKind::BadRequest, format!("bad request: the body is not JSON: {e}")))?;
        if !value.is_object() {
            return Err(ApiError::new(ErrorKind::BadRequest, "bad request: the body must be a JSON object"));
        }
        Ok(Self(value))
    }
}

impl FromRequest<AppState> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Self::Rejection> {
        let bytes = read(request, state.config.max_body).await?;
        Self::parse(&bytes)
    }
}

/// A body that may be missing.
impl OptionalFromRequest<AppState> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Option<Self>, Self::Rejection> {
        let bytes = read(request, state.config.max_body).await?;
        if bytes.is_empty() { Ok(None) } else { Self::parse(&bytes).map(Some) }
    }
}

/// The one parameter of a path.
#[derive(Debug)]
pub(super) struct PathName(pub String);

impl FromRequestParts<AppState> for PathName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        let Path(name) = Path::from_request_parts(parts, state)
            .await
            .map_err(|e| ApiError::new(ErrorKind::BadRequest, format!("bad request: {}", e.body_text())))?;
        Ok(Self(name))
    }
}

/// The parameters behind a path's question mark.
pub(super) struct QueryOf<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for QueryOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        let Query(parameters) = Query::from_request_parts(parts, state)
            .await
            .map_err(|e| ApiError::new(ErrorKind::BadRequest, format!("bad request: {}", e.body_text())))?;
        Ok(Self(parameters))
    }
}

/// Reads a body of at most `most` bytes. What is beyond is passed over, up to as much again: a client that is still sending when its
/// connection is closed never sees the answer.
async fn read(request: Request, most: usize) -> Result<Vec<u8>, ApiError> {
    let (head, body) = request.into_parts();
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let told: usize = header(CONTENT_LENGTH).and_then(|length| length.parse().ok()).unwrap_or(0);
    let waits = header(EXPECT).is_some();
    let too_large =
        || ApiError::new(ErrorKind::BodyTooLarge, format!("the body is too large; at most {most} bytes are taken"));
    if told > most && waits {
        return Err(too_large());
    }
    let mut read = Vec::with_capacity(if told > most { 0 } else { told });
    let (mut chunks, mut seen) = (body.into_data_stream(), 0_usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| ApiError::new(ErrorKind::BadRequest, format!("bad request: {error}")))?;
        seen += chunk.len();
        if seen <= most {
            read.extend_from_slice(&chunk);
        } else if seen / 2 > most {
            break;
        }
    }
    if seen > most { Err(too_large()) } else { Ok(read) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::{Body, Bytes};
    use axum::extract::Request;
    use axum::http::header::{CONTENT_LENGTH, EXPECT};

    use super::read;
    use crate::api::ErrorKind;

    const MOST: usize = 1000;

    /// A body that comes in tenths of what is taken, and how many of them were read.
    fn body(tenths: usize) -> (Body, Arc<AtomicUsize>) {
        let read = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read);
        let chunks = (0..tenths).map(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(Bytes::from_static(&[b' '; MOST / 10]))
        });
        (Body::from_stream(futures_util::stream::iter(chunks)), read)
    }

    #[tokio::test]
    async fn a_client_that_sends_too_much_sends_it_to_its_end_and_not_for_ever() {
        for (tenths, expected) in [(0, 0), (10, 10), (11, 11), (20, 20), (500, 21)] {
            let (body, seen) = body(tenths);
            let result = read(Request::new(body), MOST).await;
            assert_eq!(seen.load(Ordering::Relaxed), expected, "of {tenths}");
            match result {
                Ok(bytes) => assert_eq!((bytes.len(), tenths <= 10), (tenths * MOST / 10, true)),
                Err(error) => assert_eq!((error.kind, tenths > 10), (ErrorKind::BodyTooLarge, true)),
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_asks_first_sends_nothing() {
        let (body, seen) = body(11);
        let request = Request::builder().header(CONTENT_LENGTH, 1100).header(EXPECT, "100-continue");
        let error = read(request.body(body).expect("a request"), MOST).await.expect_err("too large");
        assert_eq!((error.kind, seen.load(Ordering::Relaxed)), (ErrorKind::BodyTooLarge, 0));
    }
}
