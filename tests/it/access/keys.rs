//! API keys over HTTP.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use super::{KEY, assert_envelopes, bearer, in_each_dialect, key_command, serve, status};
use crate::support::{Server, run, shimmy, stderr};

#[test]
fn a_key_is_taken_from_either_header() {
    let server = serve(&["--api-key", KEY, "--api-key", "another-key-of-some-length"]);
    let (right, wrong) = (bearer(KEY), bearer("sk-test-0123456789abcdeF"));
    for (headers, expected) in [
        (&[][..], 401),
        (&[("authorization", right.as_str())], 200),
        (&[("Authorization", right.as_str())], 200),
        (&[("authorization", "bearer another-key-of-some-length")], 200),
        (&[("x-api-key", KEY)], 200),
        (&[("X-Api-Key", KEY)], 200),
        (&[("authorization", wrong.as_str())], 401),
        (&[("authorization", KEY)], 401),
        (&[("authorization", "Bearer ")], 401),
        (&[("authorization", "Basic c2s6c2s=")], 401),
        (&[("x-api-key", "")], 401),
        (&[("x-api-key", &KEY[..KEY.len() - 1])], 401),
        (&[("authorization", wrong.as_str()), ("x-api-key", KEY)], 200),
        (&[("authorization", right.as_str()), ("authorization", right.as_str())], 401),
        (&[("x-api-key", KEY), ("x-api-key", "other")], 401),
        (&[("api-key", KEY)], 401),
        (&[("x-forwarded-authorization", right.as_str()), ("x-forwarded-for", "127.0.0.1")], 401),
    ] {
        assert_eq!(status(&server, headers), expected, "{headers:?}");
    }
    let in_query = server.request("GET", &format!("/v1/models?api_key={KEY}"), &[], "");
    assert_eq!(in_query.status, 401);
}

#[test]
fn without_keys_any_will_do() {
    let server = serve(&[]);
    assert_eq!(status(&server, &[]), 200);
    // SDKs insist on sending one.
    assert_eq!(status(&server, &[("authorization", "Bearer ollama")]), 200);
}

#[test]
fn refusals_are_in_the_words_of_the_dialect() {
    let server = serve(&["--api-key", KEY]);
    for (headers, expected) in [
        (&[][..], "this server needs an API key: send the header `Authorization: Bearer KEY`"),
        (&[("authorization", "Bearer wrong")], "the API key is not one of this server's"),
        (&[("authorization", "Basic eDp5")], "the header `Authorization` must be `Bearer KEY`"),
    ] {
        let answers = in_each_dialect(&server, headers);
        let reason = assert_envelopes(&answers, ("invalid_request_error", "invalid_api_key"), "authentication_error");
        assert!(reason.starts_with(expected), "{reason}");
        for (answer, _) in &answers {
            assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{}", answer.head);
        }
    }
}

#[test]
fn only_health_is_open_and_says_little() {
    let server = serve(&["--api-key", KEY]);
    let key = bearer(KEY);
    let answer = server.get("/health");
    let expected =
        if cfg!(feature = "stub") { (200, json!({ "status": "ok" })) } else { (503, json!({ "status": "no models" })) };
    assert_eq!((answer.status, answer.json()), expected);
    assert_eq!(server.request("HEAD", "/health", &[], "").status, expected.0);
    let stale = server.request("GET", "/health", &[("authorization", "Bearer old")], "");
    assert_eq!((stale.status, stale.json()), expected, "a watchdog with an old key is no reason to restart");
    let full = server.request("GET", "/health", &[("authorization", &key)], "");
    assert!(full.json()["models"]["known"].is_number() && full.json()["version"].is_string(), "{}", full.text());
    for path in ["/metrics", "/diag", "/api/models", "/api/tags", "/", "/health/", "/ollama/api/version", "/nothing"] {
        assert_eq!(server.get(path).status, 401, "{path}");
    }
    assert_eq!(server.request("POST", "/health", &[], "").status, 401);
    assert_eq!(server.request("GET", "/metrics", &[("x-api-key", KEY)], "").status, 200);
    assert!(serve(&[]).get("/health").json()["version"].is_string(), "without keys all is told");
}

/// Who has no key cannot make the server take 8 MiB.
#[test]
fn a_body_is_not_asked_for_before_the_key() {
    let server = serve(&["--api-key", KEY]);
    let ask = |key: &str| {
        let mut stream = server.connect();
        let head = format!(
            "POST /api/generate HTTP/1.1\r\nhost: {}\r\nx-api-key: {key}\r\nexpect: 100-continue\r\ncontent-length: 8000000\r\n\r\n",
            server.address
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        String::from_utf8(status.into()).unwrap()
    };
    assert_eq!(ask("wrong"), "HTTP/1.1 401");
    assert_eq!(ask(KEY), "HTTP/1.1 100");
}

#[test]
fn variables_hold_lists() {
    let mut command = shimmy();
    command.args(["serve", "--bind", "127.0.0.1:0"]).env("SHIMMY_API_KEY", format!("{KEY},second-key-of-some-length"));
    let server = Server::spawn(command);
    for key in [KEY, "second-key-of-some-length"] {
        assert_eq!(status(&server, &[("x-api-key", key)]), 200);
    }
    assert_eq!(status(&server, &[("x-api-key", &format!("{KEY},second-key-of-some-length"))]), 401);
}

/// A server on the default key file, which logs into a file.
fn logging(config: &Path, log: &Path) -> Server {
    let mut command = shimmy();
    command.env("XDG_CONFIG_HOME", config).env("RUST_LOG", "trace").args(["serve", "--bind", "127.0.0.1:0"]);
    Server::spawn_with(command, Stdio::from(File::create(log).unwrap()))
}

#[test]
fn keys_come_and_go_while_the_server_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (file, log) = (dir.path().join("shimmy/keys"), dir.path().join("log"));
    let server = logging(dir.path(), &log);
    let with = |key: &str| status(&server, &[("x-api-key", key)]);
    assert_eq!(status(&server, &[]), 200, "no key is known yet");

    let first = key_command(&file, &["new", "first"]);
    assert_eq!((status(&server, &[]), with(&first)), (401, 200));
    let second = key_command(&file, &["new", "second"]);
    assert_eq!((with(&first), with(&second)), (200, 200));
    key_command(&file, &["rm", "first"]);
    assert_eq!((with(&first), with(&second)), (401, 200));

    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{good}third {first}\n")).unwrap();
    assert_eq!((with(&first), with(&second)), (401, 200), "the old keys stay");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(with(&second), 200, "the old keys stay");
    std::fs::write(&file, &good).unwrap();
    assert_eq!((with(&first), with(&second)), (401, 200));
    key_command(&file, &["rm", "second"]);
    assert_eq!((with(&second), status(&server, &[])), (401, 401), "the last key does not open the server");

    drop(server);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("keys, line 2: this is a key itself"), "{log}");
    assert_eq!(log.matches("the keys that were read before stay in force").count(), 2, "{log}");
    for key in [&first, &second] {
        assert!(!log.contains(key.as_str()), "a key is in the log: {log}");
    }
    assert!(log.contains("second") && log.contains("let in"), "names may be in the log, and help: {log}");
}

#[test]
fn what_is_wrong_with_keys_stops_the_server_at_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    let path = file.to_str().unwrap();
    let refused = |args: &[&str], expected: &str| {
        let output = run(&[&["serve", "--bind", "127.0.0.1:0"], args].concat());
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert!(message.contains(expected) && !message.contains("secret"), "{args:?}: {message}");
    };
    refused(&["--api-key-file", path], "there is no such file; `shimmy key new NAME --api-key-file");
    key_command(&file, &["new", "a"]);
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("# ours\n\n{good}b secret\n")).unwrap();
    refused(&["--api-key-file", path], "keys, line 4: the hash is not 64 hexadecimal digits");
    refused(&["--api-key", ""], "API key 1 of --api-key or SHIMMY_API_KEY is empty");
    refused(&["--api-key", "top secret"], "has a space");
    refused(&["--allow-host", "http://a.example"], "--allow-host http://a.example: not a host");
    refused(&["--allow-origin", "a.example"], "--allow-origin a.example: not an origin");
}

/// 192.0.2.1 is nobody's: where the rules let it through, the system cannot bind it, with another exit code.
#[test]
fn other_machines_are_not_served_without_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    for address in ["192.0.2.1:0", "0.0.0.0:0", "[::]:0"] {
        let output = run(&["serve", "--bind", address]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        for part in [address, "can be reached from other machines", "shimmy key new NAME", "127.0.0.1", "--insecure"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    let variable = shimmy().arg("serve").env("SHIMMY_BIND_ADDRESS", "0.0.0.0:0").output().unwrap();
    assert_eq!(variable.status.code(), Some(2), "{}", stderr(&variable));

    key_command(&file, &["new", "a"]);
    for let_through in [&["--insecure"][..], &["--api-key", KEY], &["--api-key-file", file.to_str().unwrap()]] {
        let output = run(&[&["serve", "--bind", "192.0.2.1:0"], let_through].concat());
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains("--bind 192.0.2.1:0"), "{}", stderr(&output));
    }
    key_command(&file, &["rm", "a"]);
    let empty = run(&["serve", "--bind", "192.0.2.1:0", "--api-key-file", file.to_str().unwrap()]);
    assert_eq!(empty.status.code(), Some(2), "a file without keys protects nobody: {}", stderr(&empty));
}
