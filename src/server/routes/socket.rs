//! `GET /ws/generate`: generations one after the other on one WebSocket, steered by control frames.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::generate::{NotStarted, Started, start};
use crate::api::ErrorKind;
use crate::api::shimmy::{ControlFrame, GenerateRequest, error_frame, final_frame};
use crate::registry::RegistryError;
use crate::runner::{Delta, GenerateSpec, RunnerError};
use crate::server::access::{Caller, WRONG_KEY};
use crate::server::error::ApiError;
use crate::server::shutdown::Phase;
use crate::server::state::AppState;
use crate::server::stream::QUIET;

/// What a page has to offer beside its key, since its browser wants one of its subprotocols chosen.
const SUBPROTOCOL: &str = "shimmy";

pub(in crate::server) async fn generate(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let refused = |reason: WebSocketUpgradeRejection| {
        let message = format!("bad request: this path speaks WebSocket: {}", reason.body_text());
        ApiError::new(ErrorKind::BadRequest, message)
    };
    let (upgrade, max) = (upgrade.map_err(refused)?.protocols([SUBPROTOCOL]), state.config.max_body);
    Ok(upgrade.max_message_size(max).max_frame_size(max).on_upgrade(move |socket| serve(socket, state, caller)))
}

/// The client has left, or the socket broke. Either way nothing more can be said.
struct Gone;

/// Bytes of frames that are kept while a model loads. Beyond that nothing is read, and so no closing noticed.
const EARLY_BYTES: usize = 64 << 10;
/// A client's answer to the end of a socket is waited for so long.
const CLOSING: Duration = Duration::from_secs(1);

struct Socket {
    frames: WebSocket,
    /// What came while a model was loading.
    early: Early,
}

#[derive(Default)]
struct Early {
    frames: VecDeque<String>,
    bytes: usize,
}

impl Early {
    fn is_full(&self) -> bool {
        self.bytes >= EARLY_BYTES
    }

    fn push(&mut self, text: String) {
        self.bytes += Self::held(&text);
        self.frames.push_back(text);
    }

    fn pop(&mut self) -> Option<String> {
        let text = self.frames.pop_front()?;
        self.bytes -= Self::held(&text);
        Some(text)
    }

    /// An empty frame takes memory too.
    fn held(text: &str) -> usize {
        text.len() + size_of::<String>()
    }
}

async fn serve(frames: WebSocket, state: AppState, caller: Caller) {
    let mut socket = Socket { frames, early: Early::default() };
    let mut phase = state.phase.clone();
    loop {
        let frame = tokio::select! {
            frame = socket.next_text() => frame,
            _ = phase.wait_for(|phase| *phase == Phase::Draining) => Err(Gone),
        };
        let Ok(text) = frame else { break };
        if !caller.is_known() {
            let _ = socket.send(error_frame(WRONG_KEY)).await;
            break;
        }
        if answer(&mut socket, &state, &text).await.is_err() {
            break;
        }
    }
    // Fails where the client has closed it; then the answer to that is what the next call sends.
    let _ = socket.frames.send(Message::Close(None)).await;
    let closed = async { while let Some(Ok(_)) = socket.frames.recv().await {} };
    let _ = tokio::time::timeout(CLOSING, closed).await;
}

/// Runs one generation, or says why not. The socket stays open after either.
async fn answer(socket: &mut Socket, state: &AppState, text: &str) -> Result<(), Gone> {
    let spec = match parse(text) {
        Ok(Some(spec)) => spec,
        Ok(None) => return Ok(()),
        Err(reason) => return socket.send(error_frame(&reason)).await,
    };
    let started = tokio::select! {
        biased;
        started = start(state, spec) => started,
        // Nobody waits for the model any more, unless others do.
        gone = socket.gone() => return Err(gone),
    };
    match started {
        Ok(started) => drive(socket, started).await,
        Err(not_started) => socket.send(error_frame(&reason(not_started))).await,
    }
}

/// `None` for a control frame: it came too late to steer anything.
fn parse(text: &str) -> Result<Option<GenerateSpec>, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| format!("bad request: {e}"))?;
    if value.get("model").is_none() && ControlFrame::parse(text).is_ok() {
        return Ok(None);
    }
    let request = GenerateRequest::from_value(value).and_then(GenerateRequest::into_spec);
    request.map(Some).map_err(|e| e.to_string())
}

/// In words for the client. Those of 1.x compare the fixed ones; the log has the rest.
fn reason(not_started: NotStarted) -> String {
    match not_started {
        NotStarted::Model(error) => {
            tracing::warn!(%error, "a WebSocket client asked for a model that cannot be had");
            match error {
                RegistryError::NotFound { .. } => "model not found".into(),
                RegistryError::Load { .. } => "load failed".into(),
                error => error.to_string(),
            }
        }
        NotStarted::Request(error @ (RunnerError::BadRequest(_) | RunnerError::PromptTooLong { .. })) => {
            format!("bad request: {error}")
        }
        NotStarted::Request(error) => error.to_string(),
        NotStarted::Server(error) => error.message,
    }
}

/// Passes tokens on and control frames back until the generation ends.
async fn drive(socket: &mut Socket, mut started: Started) -> Result<(), Gone> {
    let control = started.deltas.control();
    let mut silence = std::pin::pin!(sleep(QUIET));
    loop {
        tokio::select! {
            biased;
            // First, so that a client can stop what comes without a pause. Leaving this function drops the stream, which
            // cancels the generation.
            frame = socket.next_text() => match ControlFrame::parse(frame?.as_str()) {
                Ok(ControlFrame { stop: true, .. }) => control.cancel(),
                Ok(ControlFrame { temperature: Some(temperature), .. }) => control.set_temperature(temperature),
                Ok(_) => {}
                Err(reason) => socket.send(error_frame(&reason)).await?,
            },
            delta = started.deltas.recv() => match delta {
                Some(Ok(Delta::Content(text))) => {
                    socket.send(text).await?;
                    silence.as_mut().reset(Instant::now() + QUIET);
                }
                // Its answer is all text.
                Some(Ok(Delta::Reasoning(_) | Delta::ToolCall(_) | Delta::Logprobs(_))) => {}
                Some(Ok(Delta::Done(summary))) => return socket.send(final_frame(&started.model, &summary)).await,
                Some(Err(error)) => return socket.send(error_frame(&error.to_string())).await,
                None => return Ok(()),
            },
            () = &mut silence => {
                socket.frames.send(Message::Ping(Bytes::new())).await.map_err(|_| Gone)?;
                silence.as_mut().reset(Instant::now() + QUIET);
            }
        }
    }
}

impl Socket {
    async fn send(&mut self, text: impl Into<String>) -> Result<(), Gone> {
        self.frames.send(Message::Text(text.into().into())).await.map_err(|_| Gone)
    }

    /// The next text frame. Binary frames are read as text where they are, pings answer themselves.
    async fn next_text(&mut self) -> Result<String, Gone> {
        match self.early.pop() {
            Some(text) => Ok(text),
            None => self.receive().await,
        }
    }

    /// Comes back when the client has left. What it says before that is kept.
    async fn gone(&mut self) -> Gone {
        while !self.early.is_full() {
            match self.receive().await {
                Ok(text) => self.early.push(text),
                Err(gone) => return gone,
            }
        }
        std::future::pending().await
    }

    async fn receive(&mut self) -> Result<String, Gone> {
        loop {
            match self.frames.recv().await {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Binary(bytes))) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Gone),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{EARLY_BYTES, Early};

    #[test]
    fn early_frames_have_a_bound_also_where_they_are_empty() {
        let mut early = Early::default();
        for _ in 0..EARLY_BYTES / size_of::<String>() + 1 {
            early.push(String::new());
        }
        assert!(early.is_full());
        while early.pop().is_some() {}
        early.push("a".repeat(EARLY_BYTES - size_of::<String>() - 1));
        assert!(!early.is_full(), "what was taken out does not count");
    }
}
