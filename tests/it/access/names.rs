//! Hosts and origins: what a page does that has another name, or this machine's own by a trick.

use super::{KEY, assert_envelopes, in_each_dialect, serve};
use crate::support::{Answer, Server};

/// A request of raw lines; the answer.
fn raw(server: &Server, lines: &[&str]) -> Answer {
    Answer::parse(&server.raw(format!("{}\r\nconnection: close\r\n\r\n", lines.join("\r\n")).as_bytes()))
}

fn with_host(server: &Server, host: &str) -> u16 {
    raw(server, &["GET /v1/models HTTP/1.1", &format!("host: {host}")]).status
}

#[test]
fn the_server_answers_to_its_own_names() {
    let server = serve(&[]);
    for (host, expected) in [
        ("localhost", 200),
        ("localhost:1", 200),
        ("LocalHost.:11435", 200),
        ("127.0.0.1", 200),
        (server.address.as_str(), 200),
        ("[::1]:11435", 200),
        ("[0:0:0:0:0:0:0:1]", 200),
        ("[::ffff:127.0.0.1]:80", 200),
        ("evil.example", 403),
        ("evil.example:11435", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("[::2]", 403),
        ("192.168.0.7:11435", 403),
        ("0.0.0.0:11435", 403),
        ("127.1", 403),
        ("", 400),
        ("user@localhost", 400),
        ("localhost:99999", 400),
        ("::1", 400),
        ("localhost, evil.example", 400),
        ("localhost evil.example", 400),
        ("http://localhost", 400),
        ("[::1", 400),
    ] {
        assert_eq!(with_host(&server, host), expected, "{host}");
    }
}

#[test]
fn a_request_names_one_host() {
    let server = serve(&[]);
    let get = "GET /v1/models HTTP/1.1";
    for (lines, expected) in [
        (&[get][..], 400),
        (&[get, "host: localhost", "host: localhost"], 400),
        (&[get, "host: localhost", "Host: evil.example"], 400),
        (&[get, "x-forwarded-host: localhost", "host: evil.example"], 403),
        // A load balancer's check.
        (&["GET /v1/models HTTP/1.0"], 200),
        (&["GET /v1/models HTTP/1.0", "host: evil.example"], 403),
        // HTTP lets the target's host win; neither may be foreign.
        (&["GET http://localhost/v1/models HTTP/1.1", "host: localhost"], 200),
        (&["GET http://evil.example/v1/models HTTP/1.1", "host: localhost"], 403),
        (&["GET http://localhost/v1/models HTTP/1.1", "host: evil.example"], 403),
    ] {
        assert_eq!(raw(&server, lines).status, expected, "{lines:?}");
    }
}

#[test]
fn further_names_are_allowed_by_option() {
    let server = serve(&["--allow-host", "shimmy.example:8443", "--allow-host", "*.lan,[2001:db8::1]"]);
    for (host, expected) in [
        ("Shimmy.Example:8443", 200),
        ("shimmy.example", 403),
        ("box.lan", 200),
        ("a.box.lan:1", 200),
        ("lan", 403),
        ("[2001:DB8:0::1]:9", 200),
        ("localhost", 200),
        ("evil.example", 403),
    ] {
        assert_eq!(with_host(&server, host), expected, "{host}");
    }
    assert_eq!(with_host(&serve(&["--allow-host", "*"]), "evil.example"), 200);
}

#[cfg(target_os = "linux")] // Elsewhere there is no 127.0.0.2.
#[test]
fn the_address_that_was_bound_is_answered_to() {
    let mut command = crate::support::shimmy();
    command.args(["serve", "--bind", "127.0.0.2:0"]);
    let server = Server::spawn(command);
    assert_eq!(with_host(&server, &server.address), 200);
    assert_eq!(with_host(&server, "localhost"), 200);
    assert_eq!(with_host(&server, "127.0.0.3"), 403);
}

#[test]
fn a_rebound_name_is_refused_with_a_right_key_too() {
    let server = serve(&["--api-key", KEY]);
    let lines = ["GET /v1/models HTTP/1.1", "host: evil.example", &format!("x-api-key: {KEY}")];
    assert_eq!(raw(&server, &lines).status, 403);
    let health = raw(&server, &["GET /health HTTP/1.1", "host: evil.example"]);
    assert_eq!(health.status, 403, "the open path is no exception");
}

#[test]
fn pages_of_others_are_refused() {
    let server =
        serve(&["--allow-origin", "https://app.example", "--allow-origin", "http://localhost:*,tauri://localhost"]);
    let own = format!("http://{}", server.address);
    let ask = |origins: &[&str]| {
        let headers: Vec<_> = origins.iter().map(|&origin| ("origin", origin)).collect();
        server.request("GET", "/v1/models", &headers, "").status
    };
    for (origin, expected) in [
        (own.as_str(), 200),
        ("https://app.example", 200),
        ("HTTPS://APP.example:443", 200),
        ("http://localhost:3000", 200),
        ("tauri://localhost", 200),
        ("http://app.example", 403),
        ("https://app.example:8443", 403),
        ("https://app.example.evil.example", 403),
        ("https://evil.example", 403),
        ("http://127.0.0.1:1", 403),
        ("null", 403),
        ("", 403),
        ("https://app.example/", 403),
        ("https://app.example, https://app.example", 403),
        ("nonsense", 403),
    ] {
        assert_eq!(ask(&[origin]), expected, "{origin}");
    }
    assert_eq!(ask(&[]), 200, "no browser");
    assert_eq!(ask(&[&own, &own]), 403);
    assert_eq!(ask(&["https://app.example", "https://evil.example"]), 403);
}

#[test]
fn refusals_are_in_the_words_of_the_dialect() {
    let server = serve(&["--api-key", KEY]);
    for (headers, expected) in [
        (
            [("origin", "https://evil.example"), ("x-api-key", KEY)],
            "pages of https://evil.example may not use this server; `shimmy serve --allow-origin https://evil.example` lets them",
        ),
        (
            [("origin", "null"), ("x-api-key", KEY)],
            "pages of null may not use this server; `shimmy serve --allow-origin null` lets them",
        ),
    ] {
        let answers = in_each_dialect(&server, &headers);
        assert!(answers.iter().all(|(answer, _)| answer.status == 403));
        assert_eq!(assert_envelopes(&answers, ("permission_error", "forbidden"), "permission_error"), expected);
    }
    let rebound = raw(&server, &["GET /v1/models HTTP/1.1", "host: evil.example:11435"]).json();
    assert_eq!(
        rebound["error"]["message"],
        "this server does not answer to the name evil.example; `shimmy serve --allow-host evil.example` makes it do so"
    );
}
