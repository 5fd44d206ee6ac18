//! A generation as an HTTP body.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::Stream;

use super::error::ApiError;
use crate::api::Encoder;
use crate::engine::Summary;
use crate::registry::Lease;
use crate::runner::{Answer, Delta, DeltaStream, RunnerError};

/// Several answers to one request, read together.
#[derive(Debug)]
pub(super) struct Choices {
    streams: Vec<DeltaStream>,
    /// Where to look first, so that all get their turn.
    next: usize,
}

impl From<DeltaStream> for Choices {
    fn from(stream: DeltaStream) -> Self {
        vec![stream].into()
    }
}

impl From<Vec<DeltaStream>> for Choices {
    fn from(streams: Vec<DeltaStream>) -> Self {
        Self { streams, next: 0 }
    }
}

type Step = (usize, Result<Delta, RunnerError>);

impl Choices {
    /// The next step of whichever answer has one, with its number.
    async fn recv(&mut self) -> Option<Step> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Step>> {
        let n = self.streams.len();
        let mut pending = false;
        for index in (0..n).map(|offset| (self.next + offset) % n) {
            match Pin::new(&mut self.streams[index]).poll_next(cx) {
                Poll::Ready(Some(delta)) => {
                    self.next = index + 1;
                    return Poll::Ready(Some((index, delta)));
                }
                Poll::Ready(None) => {}
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(None) }
    }

    fn try_recv(&mut self) -> Option<Step> {
        self.streams.iter_mut().enumerate().find_map(|(index, stream)| Some((index, stream.try_recv()?)))
    }
}

/// Bytes from which on a write is large enough.
const FRAMES: usize = 4096;

/// Streams frame by frame. A client that leaves drops the body, which cancels the generation. What fails before
/// the first token still has its own status, so the answer begins with that token.
pub(super) async fn respond(
    deltas: impl Into<Choices>,
    lease: Lease,
    mut encoder: impl Encoder + 'static,
) -> Result<Response, ApiError> {
    let mut deltas = deltas.into();
    let mut next = match deltas.recv().await {
        Some((_, Err(error))) => return Err(error.into()),
        first => first,
    };
    let content_type = encoder.content_type();
    let frames = async_stream::stream! {
        // The model stays loaded for as long as this body lives.
        let _lease = lease;
        while let Some(item) = next {
            // What has come meanwhile goes into the same write.
            let mut frames = Vec::with_capacity(FRAMES);
            let mut item = Some(item);
            let mut broken = false;
            while let Some((choice, one)) = item {
                encoder.choose(choice);
                match &one {
                    Ok(delta) => encoder.delta(delta, &mut frames),
                    Err(error) => {
                        encoder.error(error, &mut frames);
                        broken = true;
                        break;
                    }
                }
                item = if frames.len() < FRAMES { deltas.try_recv() } else { None };
            }
            yield Ok::<_, std::convert::Infallible>(Bytes::from(frames));
            // Nothing follows an error, of no answer.
            next = if broken { None } else { deltas.recv().await };
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
    Err(unfinished())
}

/// As [`collect`], with all answers at the same time, so that none waits for a reader.
pub(super) async fn collect_all(streams: Vec<DeltaStream>) -> Result<Vec<(Answer, Summary)>, RunnerError> {
    let mut found: Vec<(Answer, Option<Summary>)> = streams.iter().map(|_| (Answer::default(), None)).collect();
    let mut choices = Choices::from(streams);
    while let Some((index, delta)) = choices.recv().await {
        let (answer, end) = &mut found[index];
        *end = answer.add(delta?).or(end.take());
    }
    found.into_iter().map(|(answer, end)| Ok((answer, end.ok_or_else(unfinished)?))).collect()
}

/// Takes the whole answer into an encoder, for what that makes of it beside its frames.
pub(super) async fn encode(deltas: &mut DeltaStream, encoder: &mut impl Encoder) -> Result<(), RunnerError> {
    let mut frames = Vec::new();
    while let Some(delta) = deltas.recv().await {
        encoder.delta(&delta?, &mut frames);
        frames.clear();
    }
    Ok(())
}

fn unfinished() -> RunnerError {
    RunnerError::Failed("the generation ended without a final event".into())
}
