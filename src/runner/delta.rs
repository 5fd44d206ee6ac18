//! What a generation adds, step by step.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::engine::{Control, EngineError, Event, EventStream, Summary};

use super::error::RunnerError;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delta {
    /// More of the answer's text.
    Content(SmolStr),
    /// The end. Nothing follows.
    Done(Summary),
}

/// The stream of one generation: an `Iterator` for the command line, a `Stream` for the server. After an `Err`
/// nothing follows. Dropping it cancels the generation.
#[derive(Debug)]
pub struct DeltaStream(EventStream);

impl DeltaStream {
    #[must_use]
    pub fn new(events: EventStream) -> Self {
        Self(events)
    }

    /// To stop or steer the generation from elsewhere.
    #[must_use]
    pub fn control(&self) -> Control {
        self.0.control()
    }

    /// The next delta, in async code. The name tells it from `Iterator::next`, which blocks.
    pub async fn recv(&mut self) -> Option<Result<Delta, RunnerError>> {
        futures_util::StreamExt::next(self).await
    }

    /// The next delta if it is there already.
    pub fn try_recv(&mut self) -> Option<Result<Delta, RunnerError>> {
        self.0.try_next().map(to_delta)
    }
}

fn to_delta(event: Result<Event, EngineError>) -> Result<Delta, RunnerError> {
    match event? {
        Event::Token { text } => Ok(Delta::Content(text)),
        Event::Done(summary) => Ok(Delta::Done(summary)),
        Event::Error(error) => Err(error.into()),
    }
}

impl Iterator for DeltaStream {
    type Item = Result<Delta, RunnerError>;

    /// Blocks until the next delta. Not for use inside an async task.
    fn next(&mut self) -> Option<Self::Item> {
        Iterator::next(&mut self.0).map(to_delta)
    }
}

impl Stream for DeltaStream {
    type Item = Result<Delta, RunnerError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx).map(|event| event.map(to_delta))
    }
}
