//! A client that leaves stops its generation, in whatever phase.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::support::tiny::Files;
use crate::support::vision::{self, picture, plain};
use crate::support::{MODEL, Server, http_request, shimmy};

fn long_story(stream: bool) -> Vec<u8> {
    let body = json!({ "model": MODEL, "prompt": "Tell me a very long story.", "stream": stream, "temperature": 0.9, "max_tokens": 7000 });
    http_request("localhost", "POST", "/api/generate", &[], body.to_string().as_bytes())
}

/// How long a short request takes to be answered.
fn short_request(server: &Server) -> Duration {
    let start = Instant::now();
    let answer = server.post("/api/generate", &json!({ "model": MODEL, "prompt": "Hi", "max_tokens": 1 }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    start.elapsed()
}

/// 7,000 tokens take a minute; a second request that is answered soon shows that the first one is gone.
fn assert_free(server: &Server) {
    let waited = short_request(server);
    assert!(waited < Duration::from_secs(10), "the abandoned generation went on for {waited:?}");
}

#[test]
fn leaving_while_tokens_stream() {
    let server = Server::start();
    let mut stream = server.connect();
    stream.write_all(&long_story(true)).unwrap();
    let mut some = [0; 512];
    assert!(stream.read(&mut some).unwrap() > 0);
    drop(stream);
    assert_free(&server);
}

#[test]
fn leaving_an_answer_that_is_not_streamed() {
    let server = Server::start();
    let mut stream = server.connect();
    stream.write_all(&long_story(false)).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    drop(stream);
    assert_free(&server);
}

#[test]
fn leaving_during_prefill_and_in_the_queue() {
    let server = Server::start();
    let body = json!({ "model": MODEL, "prompt": "word ".repeat(7000), "raw": true, "max_tokens": 1, "stream": true });
    let request = http_request("localhost", "POST", "/api/generate", &[], body.to_string().as_bytes());
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut stream = server.connect();
        stream.write_all(&request).unwrap();
        clients.push(stream);
    }
    std::thread::sleep(Duration::from_millis(700));
    drop(clients);
    assert_free(&server);
}

/// What nobody waits for any more is not looked at.
#[test]
fn leaving_while_images_are_computed() {
    const N: usize = 12;
    let files = Files::new();
    let (model, projector) = vision::square();
    files.write("mmproj-sees.gguf", &projector);
    let model = files.write("sees.gguf", &plain(model));
    let mut command = shimmy();
    // A GPU would be done before anybody could leave.
    command.args(["--gpu-backend", "cpu", "serve", "--bind", "127.0.0.1:0", "--parallel", "1", "--ctx-size", "30000"]);
    command.arg("--model").arg(model);
    let server = Server::spawn(command);
    let images: Vec<String> = (0..N)
        .map(|n| BASE64_STANDARD.encode(picture(210, &format!("{}{}", "r".repeat(n), "b".repeat(210 * 210 - n)))))
        .collect();
    let body = json!({ "model": "sees", "messages": [{ "role": "user", "content": "hi", "images": images }] });
    let mut stream = server.connect();
    stream.write_all(&http_request("localhost", "POST", "/api/chat", &[], body.to_string().as_bytes())).unwrap();
    let begun = Instant::now();
    while server.metric("shimmy_images_total", "") < 1.0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no image was computed");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(stream);
    server.settles("shimmy_abandoned_images_total", "", 1.0);
    let computed = server.metric("shimmy_images_total", "");
    assert!(computed < N as f64, "all {computed} were computed");
}

#[test]
fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let server = Server::with(&["--queue", "1", "--parallel", "1"]);
    let mut clients = Vec::new();
    let mut refused = None;
    for _ in 0..4 {
        let mut stream = server.connect();
        stream.write_all(&long_story(true)).unwrap();
        // The first one begins to stream, the second one waits in silence.
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let mut head = [0; 1024];
        let n = stream.read(&mut head).unwrap_or(0);
        let text = String::from_utf8_lossy(&head[..n]).into_owned();
        if text.starts_with("HTTP/1.1 503") {
            refused = Some(text);
            break;
        }
        clients.push(stream);
    }
    let refused = refused.expect("the queue holds one, so one of four is refused");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    assert!(refused.contains("1 wait"), "{refused}");
}
