//! `GET /ws/generate`: generations one after the other on one WebSocket, steered by control frames.

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

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

async fn serve(mut socket: WebSocket, state: AppState, caller: Caller) {
    let mut phase = state.phase.clone();
    loop {
        let frame = tokio::select! {
            frame = next_text(&mut socket) => frame,
            _ = phase.wait_for(|phase| *phase == Phase::Draining) => Err(Gone),
        };
        let Ok(text) = frame else { break };
        if !caller.is_known() {
            let _ = send(&mut socket, error_frame(WRONG_KEY)).await;
            break;
        }
        if answer(&mut socket, &state, &text).await.is_err() {
            break;
        }
    }
    // Closing a socket that is closed already fails, and that is fine.
    let _ = socket.send(Message::Close(None)).await;
}

/// Runs one generation, or says why not. The socket stays open after either.
async fn answer(socket: &mut WebSocket, state: &AppState, text: &str) -> Result<(), Gone> {
    let spec = match parse(text) {
        Ok(Some(spec)) => spec,
        Ok(None) => return Ok(()),
        Err(reason) => return send(socket, error_frame(&reason)).await,
    };
    match start(state, spec).await {
        Ok(started) => drive(socket, started).await,
        Err(not_started) => send(socket, error_frame(&reason(not_started))).await,
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
async fn drive(socket: &mut WebSocket, mut started: Started) -> Result<(), Gone> {
    let control = started.deltas.control();
    let mut quiet = Instant::now() + QUIET;
    loop {
        tokio::select! {
            delta = started.deltas.recv() => match delta {
                Some(Ok(Delta::Content(text))) => {
                    send(socket, text).await?;
                    quiet = Instant::now() + QUIET;
                }
                // Its answer is all text.
                Some(Ok(Delta::Reasoning(_) | Delta::ToolCall(_) | Delta::Logprobs(_))) => {}
                Some(Ok(Delta::Done(summary))) => return send(socket, final_frame(&started.model, &summary)).await,
                Some(Err(error)) => return send(socket, error_frame(&error.to_string())).await,
                None => return Ok(()),
            },
            // Leaving this function drops the stream, which cancels the generation.
            frame = next_text(socket) => match ControlFrame::parse(frame?.as_str()) {
                Ok(ControlFrame { stop: true, .. }) => control.cancel(),
                Ok(ControlFrame { temperature: Some(temperature), .. }) => control.set_temperature(temperature),
                Ok(_) => {}
                Err(reason) => send(socket, error_frame(&reason)).await?,
            },
            () = tokio::time::sleep_until(quiet) => {
                socket.send(Message::Ping(Bytes::new())).await.map_err(|_| Gone)?;
                quiet = Instant::now() + QUIET;
            }
        }
    }
}

async fn send(socket: &mut WebSocket, text: impl Into<String>) -> Result<(), Gone> {
    socket.send(Message::Text(text.into().into())).await.map_err(|_| Gone)
}

/// The next text frame. Binary frames are read as text where they are, pings answer themselves.
async fn next_text(socket: &mut WebSocket) -> Result<String, Gone> {
    loop {
        match socket.recv().await {
            Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
            Some(Ok(Message::Binary(bytes))) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Gone),
        }
    }
}
