//! The stream of one generation: an `Iterator` for the command line, a `Stream` for the server.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;

use super::control::Control;
use super::error::EngineError;
use super::event::Event;

/// The engine's end.
#[derive(Clone, Debug)]
pub struct EventSender {
    events: mpsc::Sender<Event>,
    control: Control,
}

/// The reader's end. Dropping it cancels the generation.
#[derive(Debug)]
pub struct EventStream {
    events: mpsc::Receiver<Event>,
    control: Control,
    finished: bool,
}

/// A channel for one generation of at most `max_events` events. With room for all of them the engine never
/// waits for a slow reader.
#[must_use]
pub fn channel(max_events: usize) -> (EventSender, EventStream) {
    let (sender, receiver) = mpsc::channel(max_events.max(1));
    let control = Control::default();
    (
        EventSender { events: sender, control: control.clone() },
        EventStream { events: receiver, control, finished: false },
    )
}

impl EventSender {
    /// Hands an event over; `false` when the reader has left. Waits while the channel is full.
    #[must_use]
    pub fn send(&self, event: Event) -> bool {
        match self.events.try_send(event) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(event)) => self.events.blocking_send(event).is_ok(),
        }
    }

    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.control.is_cancelled() || self.events.is_closed()
    }
}

impl EventStream {
    /// To stop or steer the generation from elsewhere.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The channel's end without a final event means that the engine's thread is gone.
    fn settle(&mut self, event: Option<Event>) -> Option<Result<Event, EngineError>> {
        if self.finished {
            return None;
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
