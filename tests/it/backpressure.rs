//! Readers that are slow, and more requests than places. On the stub, whose words take no time.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::json;

use crate::support::{Answer, Server, http_request};

#[test]
fn a_reader_that_stands_still_holds_up_itself_only() {
    let server = Server::start();
    let words = 1_000_000;
    let body = json!({ "model": "stub-fast", "prompt": "stub:endless", "stream": true, "max_tokens": words });
    let mut slow = server.connect();
    slow.write_all(&http_request("localhost", "POST", "/api/generate", &[], body.to_string().as_bytes())).unwrap();
    // The kernel takes megabytes for it, and more from time to time.
    let mut sent = 0.0;
    while sent == 0.0 || sent != server.metric("shimmy_generated_tokens_total", "") {
        sent = server.metric("shimmy_generated_tokens_total", "");
        std::thread::sleep(Duration::from_millis(500));
    }
    server.settles("shimmy_sequences", "paused", 1.0);

    // It stands still with what the kernel took for it, and at most 256 KiB here, while another one is served.
    assert!(sent < f64::from(words) / 2.0, "{sent} words for a reader that reads nothing");
    let other = server.post("/api/generate", &json!({ "model": "stub-fast", "prompt": "a b c" }));
    assert_eq!(other.json()["response"], "a b c");
    assert_eq!(server.metric("shimmy_generated_tokens_total", ""), sent + 3.0);

    // Nothing is lost once it reads on.
    let mut bytes = Vec::new();
    slow.read_to_end(&mut bytes).unwrap();
    let text = Answer::parse(&bytes).text();
    assert_eq!(text.matches("data: word ").count(), words as usize);
    assert!(text.ends_with("data: [DONE]\n\n"));
}

#[test]
fn one_request_too_many_is_refused_at_once() {
    let server = Server::start();
    let endless = json!({ "model": "stub", "prompt": "stub:endless", "stream": true }).to_string();
    let request = http_request("localhost", "POST", "/api/generate", &[], endless.as_bytes());
    // 16 run and 64 wait.
    let mut clients: Vec<_> = (0..80).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write_all(&request).unwrap();
    }
    server.settles("shimmy_requests_total", "", 80.0);
    let refused = server.post("/api/generate", &json!({ "model": "stub", "prompt": "one more" }));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    assert!(refused.text().contains("16 requests run and 64 wait"), "{}", refused.text());
    drop(clients);
    server.settles("shimmy_sequences", "", 0.0);
    assert_eq!(server.post("/api/generate", &json!({ "model": "stub", "prompt": "one more" })).status, 200);
}
