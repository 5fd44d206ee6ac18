//! Who may ask, against the real server: keys, hosts, origins, and what a refusal looks like.

mod browsers;
mod command;
mod keys;
mod names;

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Answer, Server, shimmy};

/// Longer than what is warned about.
const KEY: &str = "sk-test-0123456789abcdef";

/// The server without a model of its own: what is asked here ends before a model is needed, or at the stub.
fn serve(args: &[&str]) -> Server {
    let mut command = shimmy();
    command.args(["serve", "--bind", "127.0.0.1:0"]).args(args);
    Server::spawn(command)
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// The status of `GET /v1/models` with these headers.
fn status(server: &Server, headers: &[(&str, &str)]) -> u16 {
    server.request("GET", "/v1/models", headers, "").status
}

/// `shimmy key …` on a file; what it printed.
fn key_command(file: &Path, args: &[&str]) -> String {
    let output = shimmy().arg("key").args(args).arg("--api-key-file").arg(file).output().unwrap();
    assert!(output.status.success(), "{}", crate::support::stderr(&output));
    crate::support::stdout(&output).trim_end().to_owned()
}

/// What a refusal says, in the envelopes of all dialects: path, further headers, and where the words are.
fn in_each_dialect(server: &Server, headers: &[(&str, &str)]) -> Vec<(Answer, Value)> {
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/messages"),
        ("POST", "/api/chat"),
        ("POST", "/api/generate"),
        ("GET", "/nothing"),
    ]
    .map(|(method, path)| {
        let answer = server.request(method, path, headers, if method == "POST" { "{}" } else { "" });
        let body = answer.json();
        (answer, body)
    })
    .into()
}

/// Checks class and code in each envelope, and that the reason is the same in all; returns it.
fn assert_envelopes(answers: &[(Answer, Value)], openai: (&str, &str), anthropic: &str) -> String {
    let [(_, chat), (message, claude), ollama, generate, nowhere] = answers else { panic!("five answers") };
    let reason = chat["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(*chat, json!({ "error": { "message": reason, "type": openai.0, "param": null, "code": openai.1 } }));
    let id = message.header("request-id").expect("an id");
    assert_eq!(
        *claude,
        json!({ "type": "error", "error": { "type": anthropic, "message": reason }, "request_id": id })
    );
    for (_, body) in [ollama, generate, nowhere] {
        assert_eq!(*body, json!({ "error": reason }));
    }
    reason
}
