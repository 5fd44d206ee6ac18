//! The stream of one generation: an `Iterator` for the command line, a `Stream` for the server.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;

use super::control::{Control, OnSignal};
use super::error::EngineError;
use super::event::{Event, TokenLogprob};

/// What an event takes beside its text.
const EVENT_BYTES: usize = size_of::<Event>();

/// The engine's end.
#[derive(Clone, Debug)]
pub(super) struct EventSender {
    events: mpsc::UnboundedSender<Event>,
    control: Control,
}

/// The reader's end. Dropping it cancels the generation.
#[derive(Debug)]
pub struct EventStream {
    events: mpsc::UnboundedReceiver<Event>,
    control: Control,
    prompt_tokens: usize,
    finished: bool,
}

/// A channel for one generation. It never blocks the engine: a reader that falls behind pauses its own sequence,
/// see [`Control`], so what waits in here is bounded.
pub(super) fn channel(on_signal: Option<OnSignal>, prompt_tokens: usize) -> (EventSender, EventStream) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let control = Control::new(on_signal);
    (
        EventSender { events: sender, control: control.clone() },
        EventStream { events: receiver, control, prompt_tokens, finished: false },
    )
}

fn weight(event: &Event) -> usize {
    match event {
        Event::Token { text, logprobs, .. } => {
            let tokens = logprobs.iter().map(|token| size_of::<TokenLogprob>() * (1 + token.top.len())).sum::<usize>();
            EVENT_BYTES + text.len() + tokens
        }
        Event::Done(_) | Event::Error(_) => EVENT_BYTES,
    }
}

impl EventSender {
    /// Hands an event over. A reader that has left is noticed by `is_cancelled`.
    pub fn send(&self, event: Event) {
        self.control.sent(weight(&event));
        let _ = self.events.send(event);
    }

    pub fn control(&self) -> &Control {
        &self.control
    }

    pub fn is_cancelled(&self) -> bool {
        self.control.is_cancelled()
    }
}

impl EventStream {
    /// To stop or steer the generation from elsewhere.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// How many tokens the generation began from.
    #[must_use]
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<Result<Event, EngineError>> {
        if self.finished {
            return None;
        }
        let event = self.events.try_recv().ok()?;
        self.settle(Some(event))
    }

    /// The channel's end without a final event means that the engine's thread is gone.
    fn settle(&mut self, event: Option<Event>) -> Option<Result<Event, EngineError>> {
        if let Some(event) = &event {
            self.control.read(weight(event));
        }
        self.finished = !matches!(event, Some(Event::Token { .. }));
        Some(match event {
            Some(Event::Error(error)) => Err(error),
            Some(event) => Ok(event),
            None => Err(EngineError::Stopped),
        })
    }
}

impl Iterator for EventStream {
    type Item = Result<Event, EngineError>;

    /// Blocks until the next event. Not for use inside an async task.
    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let event = self.events.blocking_recv();
        self.settle(event)
    }
}

impl Stream for EventStream {
    type Item = Result<Event, EngineError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.finished {
            return Poll::Ready(None);
        }
        self.events.poll_recv(cx).map(|event| self.settle(event))
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        if !self.finished {
            self.control.cancel();
        }
    }
}
