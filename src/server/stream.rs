//! A generation as an HTTP body.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;

use super::error::ApiError;
use crate::api::Encoder;
use crate::engine::Summary;
use crate::registry::Lease;
use crate::runner::{Answer, DeltaStream, RunnerError};

/// A lease held by async code: it is let go on a blocking thread, since that can wait for an engine to end.
#[derive(Debug)]
pub(super) struct HeldLease(Option<Lease>);

impl From<Lease> for HeldLease {
    fn from(lease: Lease) -> Self {
        Self(Some(lease))
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        let lease = self.0.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(lease));
        }
    }
}

/// Bytes from which on a write is large enough.
const FRAMES: usize = 4096;

/// Streams frame by frame. A client that leaves drops the body, which cancels the generation. What fails before
/// the first token still has its own status, so the answer begins with that token.
pub(super) async fn respond(
    mut deltas: DeltaStream,
    lease: HeldLease,
    mut encoder: impl Encoder + 'static,
) -> Result<Response, ApiError> {
    let mut next = deltas.recv().await.transpose()?.map(Ok);
    let content_type = encoder.content_type();
    let frames = async_stream::stream! {
        // The model stays loaded for as long as this body lives.
        let _lease = lease;
        while let Some(item) = next {
            // What has come meanwhile goes into the same write.
            let mut frames = Vec::with_capacity(FRAMES);
            let mut item = Some(item);
            while let Some(one) = item {
                match &one {
                    Ok(delta) => encoder.delta(delta, &mut frames),
                    Err(error) => encoder.error(error, &mut frames),
                }
                item = if frames.len() < FRAMES { deltas.try_recv() } else { None };
            }
            yield Ok::<_, std::convert::Infallible>(Bytes::from(frames));
            next = deltas.recv().await;
        }
    };
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that collect a response before they pass it on would undo the streaming.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Waits for the whole answer.
pub(super) async fn collect(mut deltas: DeltaStream) -> Result<(Answer, Summary), RunnerError> {
    let mut answer = Answer::default();
    while let Some(delta) = deltas.recv().await {
        if let Some(summary) = answer.add(delta?) {
            return Ok((answer, summary));
        }
    }
    Err(RunnerError::Failed("the generation ended without a final event".into()))
}
