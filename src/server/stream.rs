//! A generation as an HTTP body.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, sleep, timeout};

use super::error::ApiError;
use crate::api::Encoder;
use crate::engine::Summary;
use crate::registry::Lease;
use crate::runner::{Answer, Delta, DeltaStream, RunnerError};

/// After so long without a word a proxy may take a connection for dead.
pub(super) const QUIET: Duration = Duration::from_secs(15);

/// One answer as it comes.
pub(super) trait Deltas: Stream<Item = Result<Delta, RunnerError>> + Unpin + Send + 'static {
    /// The next step if it is there already.
    fn try_recv(&mut self) -> Option<Self::Item>;
}

impl Deltas for DeltaStream {
    fn try_recv(&mut self) -> Option<Self::Item> {
        DeltaStream::try_recv(self)
    }
}

/// Several answers to one request, read together.
#[derive(Debug)]
pub(super) struct Choices<S = DeltaStream> {
    streams: Vec<S>,
    /// Where to look first, so that all get their turn.
    next: usize,
}

impl From<DeltaStream> for Choices {
    fn from(stream: DeltaStream) -> Self {
        vec![stream].into()
    }
}

impl<S> From<Vec<S>> for Choices<S> {
    fn from(streams: Vec<S>) -> Self {
        Self { streams, next: 0 }
    }
}

type Step = (usize, Result<Delta, RunnerError>);

impl<S: Deltas> Choices<S> {
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
/// the first token still has its own status, so the answer begins with that token, or with a ping where it takes long.
pub(super) async fn respond(
    deltas: impl Into<Choices>,
    lease: Lease,
    encoder: impl Encoder + 'static,
) -> Result<Response, ApiError> {
    let mut deltas = deltas.into();
    let first = match timeout(QUIET, deltas.recv()).await {
        Ok(Some((_, Err(error)))) => return Err(error.into()),
        Ok(first) => Next::Step(first),
        Err(_) => Next::Nothing,
    };
    let content_type = encoder.content_type();
    // The model stays loaded for as long as this body lives.
    let frames = frames(deltas, first, encoder, QUIET, lease).map(Ok::<_, std::convert::Infallible>);
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that collect a response before they pass it on would undo the streaming.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// What comes next.
enum Next {
    /// The end of all answers where there is none.
    Step(Option<Step>),
    /// Nothing came for a while.
    Nothing,
}

/// The body of an answer that begins with `first`; where nothing is sent for as long as `quiet`, a ping is. `kept` lives as
/// long as it.
fn frames<S: Deltas>(
    mut deltas: Choices<S>,
    first: Next,
    mut encoder: impl Encoder + 'static,
    quiet: Duration,
    kept: impl Send + 'static,
) -> impl Stream<Item = Bytes> + Send + 'static {
    async_stream::stream! {
        let _kept = kept;
        let mut next = first;
        let mut silence = std::pin::pin!(sleep(quiet));
        loop {
            let mut frames = Vec::with_capacity(FRAMES);
            let (is_ping, goes_on) = match next {
                Next::Step(None) => break,
                Next::Step(Some(step)) => (false, encode_ready(step, &mut deltas, &mut encoder, &mut frames)),
                Next::Nothing => {
                    encoder.ping(&mut frames);
                    (true, true)
                }
            };
            if is_ping || !frames.is_empty() {
                silence.as_mut().reset(Instant::now() + quiet);
                yield Bytes::from(frames);
            }
            if !goes_on {
                break;
            }
            next = tokio::select! {
                biased;
                step = deltas.recv() => Next::Step(step),
                () = &mut silence => Next::Nothing,
            };
        }
    }
}

/// What has come meanwhile goes into the same write. Returns whether more can follow: nothing does after an error, of no
/// answer.
fn encode_ready<S: Deltas>(
    first: Step,
    deltas: &mut Choices<S>,
    encoder: &mut impl Encoder,
    frames: &mut Vec<u8>,
) -> bool {
    let mut step = Some(first);
    while let Some((choice, one)) = step {
        encoder.choose(choice);
        match &one {
            Ok(delta) => encoder.delta(delta, frames),
            Err(error) => {
                encoder.error(error, frames);
                return false;
            }
        }
        step = if frames.len() < FRAMES { deltas.try_recv() } else { None };
    }
    true
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

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
