//! SIGTERM lets running generations end, refuses new ones, and leaves with 0.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::json;

use crate::support::{MODEL, Server, http_request};

#[test]
fn a_running_stream_ends_in_order_and_the_process_leaves_with_zero() {
    let mut server = Server::start();
    let prompt = if cfg!(feature = "llama") {
        "Count from one to fifty in words."
    } else {
        "a b c d e f g h i j k l m n o p q r s t"
    };
    let body = json!({ "model": MODEL, "prompt": prompt, "max_tokens": 64, "stream": true, "temperature": 0 });
    let mut stream = server.connect();
    stream.write_all(&http_request("localhost", "POST", "/api/generate", &[], body.to_string().as_bytes())).unwrap();
    let mut first = [0; 256];
    let n = stream.read(&mut first).unwrap();
    assert!(n > 0, "the stream began");
    server.terminate();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    let text = String::from_utf8_lossy(&rest);
    assert!(text.contains("data: [DONE]"), "the stream was cut off: {text}");
    assert_eq!(server.wait(Duration::from_secs(20)), Some(0));
}

#[test]
fn an_idle_server_leaves_at_once() {
    let mut server = Server::start();
    server.terminate();
    assert_eq!(server.wait(Duration::from_secs(5)), Some(0));
}

/// A stream that would never end by itself does not hold the process beyond its drain time.
#[cfg(not(feature = "llama"))]
#[test]
fn the_drain_time_is_kept() {
    let mut server = Server::with(&["--drain", "1"]);
    let body = json!({ "model": MODEL, "prompt": "stub:endless", "stream": true });
    let mut stream = server.connect();
    stream.write_all(&http_request("localhost", "POST", "/api/generate", &[], body.to_string().as_bytes())).unwrap();
    let mut first = [0; 256];
    assert!(stream.read(&mut first).unwrap() > 0);
    let start = std::time::Instant::now();
    server.terminate();
    assert_eq!(server.wait(Duration::from_secs(20)), Some(0));
    assert!(start.elapsed() >= Duration::from_secs(1), "the stream had its second");
}
