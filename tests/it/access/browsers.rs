//! What a browser does by itself: preflights, and WebSockets of pages.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{KEY, bearer, key_command, serve};
use crate::support::{Answer, Server};

const APP: &str = "https://app.example";

fn preflight(server: &Server, origin: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,x-stainless-os"),
        ("access-control-request-private-network", "true"),
    ];
    server.request("OPTIONS", "/v1/chat/completions", &headers, "")
}

#[test]
fn a_preflight_needs_no_key() {
    let server = serve(&["--api-key", KEY, "--allow-origin", APP]);
    let answer = preflight(&server, APP);
    assert_eq!(answer.status, 200, "{}", answer.head);
    for (name, expected) in [
        ("access-control-allow-origin", APP),
        ("access-control-allow-methods", "GET,HEAD,POST,DELETE"),
        ("access-control-allow-headers", "authorization,content-type,x-stainless-os"),
        ("access-control-allow-private-network", "true"),
        ("access-control-max-age", "600"),
    ] {
        assert_eq!(answer.header(name), Some(expected), "{}", answer.head);
    }
    assert!(answer.head.to_lowercase().contains("vary: origin"), "{}", answer.head);
    assert_eq!(answer.header("access-control-allow-credentials"), None);

    let foreign = preflight(&server, "https://evil.example");
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (403, None), "{}", foreign.head);
}

#[test]
fn a_page_may_read_answers_and_refusals() {
    let server = serve(&["--api-key", KEY, "--allow-origin", APP]);
    let key = bearer(KEY);
    for (headers, status) in [(&[("origin", APP), ("authorization", key.as_str())][..], 200), (&[("origin", APP)], 401)]
    {
        let answer = server.request("GET", "/v1/models", headers, "");
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP), "{}", answer.head);
        // A star covers `x-shimmy-ignored` and all that come; it counts since no cookies are sent.
        assert_eq!(answer.header("access-control-expose-headers"), Some("*"), "{}", answer.head);
    }
    let curl = server.request("GET", "/v1/models", &[("authorization", &key)], "");
    assert_eq!(curl.header("access-control-allow-origin"), None);
}

#[test]
fn without_allowed_origins_there_are_no_preflights() {
    let server = serve(&[]);
    assert_eq!(preflight(&server, APP).status, 403);
    let own = format!("http://{}", server.address);
    let answer = preflight(&server, &own);
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (405, None), "{}", answer.head);
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens `/ws/generate` with these headers: the socket and the subprotocol that was chosen, or the refusal's status and body.
async fn open(server: &Server, headers: &[(&'static str, &str)]) -> Result<(Socket, Option<String>), (u16, Value)> {
    let mut request = format!("ws://{}/ws/generate", server.address).into_client_request().unwrap();
    for (name, value) in headers {
        // tungstenite has a `host` already.
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match tokio_tungstenite::connect_async(request).await {
        Ok((socket, answer)) => {
            let chosen = answer.headers().get("sec-websocket-protocol").map(|value| value.to_str().unwrap().to_owned());
            Ok((socket, chosen))
        }
        Err(Error::Http(answer)) => {
            let body = answer.body().as_deref().unwrap_or_default();
            Err((answer.status().as_u16(), serde_json::from_slice(body).unwrap_or(Value::Null)))
        }
        Err(error) => panic!("{error}"),
    }
}

async fn refused(server: &Server, headers: &[(&'static str, &str)]) -> u16 {
    open(server, headers).await.err().unwrap_or_else(|| panic!("{headers:?} must be refused")).0
}

/// The next frame of text; `None` where the socket closes.
async fn text(socket: &mut Socket) -> Option<String> {
    loop {
        let frame = tokio::time::timeout(Duration::from_secs(30), socket.next()).await.expect("a frame in time");
        match frame {
            Some(Ok(Message::Text(text))) => return Some(text.as_str().to_owned()),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}

fn ask_nobody() -> Message {
    Message::Text(json!({ "model": "nothing", "prompt": "x" }).to_string().into())
}

#[tokio::test]
async fn sockets_of_foreign_pages_are_refused() {
    let server = serve(&["--allow-origin", APP]);
    let own = format!("http://{}", server.address);
    for origin in ["https://evil.example", "null", "http://localhost:1", "file://"] {
        assert_eq!(refused(&server, &[("origin", origin)]).await, 403, "{origin}");
    }
    assert_eq!(refused(&server, &[("host", "evil.example")]).await, 403, "a rebound name");
    for headers in [&[][..], &[("origin", own.as_str())], &[("origin", APP)]] {
        let (mut socket, chosen) = open(&server, headers).await.expect("an open socket");
        assert_eq!(chosen, None);
        socket.send(ask_nobody()).await.unwrap();
        assert_eq!(text(&mut socket).await.as_deref(), Some(r#"{"error":"model not found"}"#));
    }
}

#[tokio::test]
async fn a_page_sends_its_key_as_a_subprotocol() {
    let server = serve(&["--api-key", KEY, "--allow-origin", APP]);
    let protocols = format!("shimmy, bearer.{KEY}");
    let (_, chosen) = open(&server, &[("origin", APP), ("sec-websocket-protocol", &protocols)]).await.expect("open");
    assert_eq!(chosen.as_deref(), Some("shimmy"), "the key is not repeated in the answer");
    let (_, chosen) = open(&server, &[("authorization", &bearer(KEY))]).await.expect("other clients send a header");
    assert_eq!(chosen, None);
    let (status, body) = open(&server, &[("origin", APP)]).await.expect_err("no key");
    assert_eq!(status, 401);
    assert!(body["error"].as_str().unwrap().contains("`bearer.KEY`"), "{body}");
    for protocols in ["shimmy, bearer.wrong", "bearer.wrong", "shimmy", "bearer."] {
        assert_eq!(refused(&server, &[("sec-websocket-protocol", protocols)]).await, 401, "{protocols}");
    }
    let foreign = [("origin", "https://evil.example"), ("sec-websocket-protocol", protocols.as_str())];
    assert_eq!(refused(&server, &foreign).await, 403, "a right key does not make a page ours");
}

#[tokio::test]
async fn an_open_socket_ends_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    let (staying, leaving) = (key_command(&file, &["new", "staying"]), key_command(&file, &["new", "leaving"]));
    let server = serve(&["--api-key-file", file.to_str().unwrap()]);
    let socket = async |key: &str| open(&server, &[("x-api-key", key)]).await.expect("an open socket").0;
    let (mut stays, mut leaves) = (socket(&staying).await, socket(&leaving).await);
    key_command(&file, &["rm", "leaving"]);
    for (socket, expected) in
        [(&mut stays, "model not found"), (&mut leaves, "the API key is not one of this server's")]
    {
        socket.send(ask_nobody()).await.unwrap();
        assert_eq!(text(socket).await, Some(json!({ "error": expected }).to_string()));
    }
    assert_eq!(text(&mut leaves).await, None, "closed");
    stays.send(ask_nobody()).await.unwrap();
    assert!(text(&mut stays).await.is_some(), "open");
}
