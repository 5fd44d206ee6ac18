//! `/ws/generate` with a real WebSocket client.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::support::{MODEL, Server};

struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn connect(server: &Server) -> Self {
        let (socket, _) =
            tokio_tungstenite::connect_async(format!("ws://{}/ws/generate", server.address)).await.unwrap();
        Self(socket)
    }

    async fn send(&mut self, frame: Value) {
        self.0.send(Message::Text(frame.to_string().into())).await.unwrap();
    }

    async fn text(&mut self) -> String {
        loop {
            let frame = tokio::time::timeout(Duration::from_secs(60), self.0.next()).await.expect("a frame in time");
            match frame.expect("an open socket").unwrap() {
                Message::Text(text) => return text.as_str().to_owned(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("unexpected frame {other:?}"),
            }
        }
    }

    /// All tokens up to the final frame, and that frame.
    async fn answer(&mut self) -> (Vec<String>, Value) {
        let mut tokens = Vec::new();
        loop {
            let text = self.text().await;
            match serde_json::from_str::<Value>(&text) {
                Ok(frame) if frame.get("done").is_some() || frame.get("error").is_some() => return (tokens, frame),
                _ => tokens.push(text),
            }
        }
    }
}

fn paris() -> Value {
    json!({ "model": MODEL, "prompt": "The capital of France is", "raw": true, "max_tokens": 2, "temperature": 0, "seed": 7 })
}

/// Text that goes on long enough to be steered.
fn long() -> Value {
    let prompt = if cfg!(feature = "llama") { "Tell me a very long story about a dragon." } else { "stub:endless" };
    json!({ "model": MODEL, "prompt": prompt, "temperature": 0.9, "seed": 1, "max_tokens": 100_000 })
}

#[tokio::test]
async fn tokens_come_one_a_frame_and_the_socket_serves_again() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    for _ in 0..2 {
        client.send(paris()).await;
        let (tokens, end) = client.answer().await;
        let expected: &[&str] = if cfg!(feature = "llama") { &[" Paris", "."] } else { &["The", " capital"] };
        assert_eq!(tokens, expected);
        assert_eq!(end["done"], true);
        assert_eq!(end["done_reason"], "length");
        assert_eq!(end["model"], MODEL);
        assert_eq!(end["seed"], 7);
        assert_eq!(end["usage"]["completion_tokens"], 2);
        assert!(end["timings"]["queue_ms"].is_number());
    }
}

#[tokio::test]
async fn stop_ends_a_generation_at_once() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    client.send(long()).await;
    client.text().await;
    client.send(json!({ "stop": true })).await;
    let (_, end) = client.answer().await;
    assert_eq!(end["done_reason"], "cancelled");
    // A stop that comes too late is no error, and the socket serves on.
    client.send(json!({ "stop": true })).await;
    client.send(paris()).await;
    assert_eq!(client.answer().await.1["done_reason"], "length");
}

#[tokio::test]
async fn control_frames_are_checked() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    client.send(long()).await;
    client.text().await;
    for (frame, reason) in [
        (json!({ "temperature": -1.0 }), "bad request: temperature is -1; it must be a number from 0 to 100"),
        (json!({ "unknown": 1 }), "bad request: a control frame holds `stop` or `temperature`"),
        (paris(), "bad request: a generation is running; wait for its final frame or send {\"stop\": true}"),
    ] {
        client.send(frame).await;
        let (_, answer) = client.answer().await;
        assert_eq!(answer, json!({ "error": reason }));
    }
    client.send(json!({ "temperature": 0.2 })).await;
    client.send(json!({ "stop": true })).await;
    assert_eq!(client.answer().await.1["done_reason"], "cancelled");
}

#[tokio::test]
async fn errors_have_their_fixed_words() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    client.send(json!({ "model": "nothing", "prompt": "x" })).await;
    assert_eq!(client.text().await, r#"{"error":"model not found"}"#);
    client.send(json!({ "model": MODEL })).await;
    assert_eq!(client.text().await, r#"{"error":"bad request: `prompt` or `messages` is missing"}"#);
    client.0.send(Message::Text("{nonsense".into())).await.unwrap();
    let error = client.text().await;
    assert!(error.starts_with(r#"{"error":"bad request: key must be a string"#), "{error}");
    client.send(paris()).await;
    assert_eq!(client.answer().await.1["done"], true);
}

#[tokio::test]
async fn a_client_that_closes_is_answered() {
    let server = Server::start();
    for request in [None, Some(paris()), Some(long())] {
        let mut client = Client::connect(&server).await;
        if let Some(request) = &request {
            client.send(request.clone()).await;
            client.text().await;
        }
        client.0.close(None).await.unwrap();
        let mut last = None;
        while let Some(frame) = client.0.next().await {
            last = Some(frame.expect("no end without a close frame"));
        }
        assert!(matches!(last, Some(Message::Close(_))), "{request:?}: {last:?}");
    }
}

#[tokio::test]
async fn sigterm_closes_an_idle_socket() {
    let mut server = Server::start();
    let mut client = Client::connect(&server).await;
    client.send(paris()).await;
    client.answer().await;
    server.terminate();
    let end = tokio::time::timeout(Duration::from_secs(10), client.0.next()).await.expect("a close frame in time");
    assert!(matches!(end, Some(Ok(Message::Close(_))) | None), "{end:?}");
    drop(client);
    assert_eq!(server.wait(Duration::from_secs(10)), Some(0));
}

#[tokio::test]
async fn sigterm_lets_a_running_generation_end() {
    let mut server = Server::start();
    let mut client = Client::connect(&server).await;
    let prompt =
        if cfg!(feature = "llama") { "Count to thirty." } else { "a b c d e f g h i j k l m n o p q r s t u v w" };
    client.send(json!({ "model": MODEL, "prompt": prompt, "temperature": 0, "max_tokens": 40 })).await;
    client.text().await;
    server.terminate();
    let (_, end) = client.answer().await;
    assert_eq!(end["done"], true, "{end}");
    assert_ne!(end["done_reason"], "cancelled", "{end}");
    drop(client);
    assert_eq!(server.wait(Duration::from_secs(10)), Some(0));
}

/// A server whose only room is in use by the answer that the first client gets, and a second client whose model waits for it.
#[cfg(not(feature = "llama"))]
async fn crowded() -> (Server, Client, Client) {
    let server = Server::with(&["--memory-budget", "CPU=33600kB"]);
    let (mut busy, mut waiting) = (Client::connect(&server).await, Client::connect(&server).await);
    busy.send(long()).await;
    busy.text().await;
    waiting.send(json!({ "model": "stub-fast", "prompt": "one two" })).await;
    becomes(&server, "queued").await;
    (server, busy, waiting)
}

/// The state of the model that waits.
#[cfg(not(feature = "llama"))]
async fn becomes(server: &Server, wanted: &str) {
    let state = || server.get("/api/models").json()["models"][1]["state"].as_str().unwrap().to_owned();
    for _ in 0..2000 {
        if state() == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("stub-fast stays {}", state());
}

#[cfg(not(feature = "llama"))]
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_closes_gives_its_place_in_the_queue_up_at_once() {
    let (server, busy, waiting) = crowded().await;
    drop(waiting);
    becomes(&server, "unloaded").await;
    drop(busy);
}

#[cfg(not(feature = "llama"))]
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_closes_ends_no_wait_of_others_and_what_was_said_early_counts() {
    let (server, busy, waiting) = crowded().await;
    let mut other = Client::connect(&server).await;
    other.send(json!({ "model": "stub-fast", "prompt": "stub:endless" })).await;
    other.send(json!({ "stop": true })).await;
    // The server has read both when it answers a ping that came after them.
    other.0.send(Message::Ping(Vec::new().into())).await.unwrap();
    assert!(matches!(other.0.next().await, Some(Ok(Message::Pong(_)))), "frames are read while a model is waited for");
    drop(waiting);
    drop(busy);
    let (_, end) = other.answer().await;
    assert_eq!(end["done_reason"], "cancelled");
}
