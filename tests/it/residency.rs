//! More models than there is room for.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
#[cfg(not(feature = "llama"))]
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::Server;
#[cfg(not(feature = "llama"))]
use crate::support::{http_request, shimmy, stderr};

/// Names of the models that are in memory.
fn loaded(server: &Server) -> BTreeSet<String> {
    let ps = server.get("/api/ps").json();
    ps["models"].as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap().to_owned()).collect()
}

fn answer(server: &Server, model: &str) -> String {
    let body = json!({ "model": model, "prompt": "Once upon a time", "temperature": 0, "max_tokens": 8 });
    let answer = server.post("/api/generate", &body);
    assert_eq!(answer.status, 200, "{model}: {}", answer.text());
    answer.json()["response"].as_str().unwrap().to_owned()
}

/// Several clients ask for one model and the other in turns; each gets what it gets alone, and no two are ever there.
fn take_turns(server: &Server, models: [&str; 2], rounds: usize) {
    let alone = models.map(|model| answer(server, model));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let there = loaded(server);
                assert!(there.len() <= 1, "a budget for one holds {there:?}");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let clients: Vec<_> = (0..6)
            .map(|client| {
                let alone = &alone;
                scope.spawn(move || {
                    for round in 0..rounds {
                        let which = (client + round) % 2;
                        assert_eq!(answer(server, models[which]), alone[which], "client {client}, round {round}");
                    }
                })
            })
            .collect();
        let failed = clients.into_iter().map(std::thread::ScopedJoinHandle::join).filter(Result::is_err).count();
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap();
        assert_eq!(failed, 0, "clients that did not get what they get alone");
    });
}

#[cfg(feature = "llama")]
#[test]
fn two_real_models_take_turns_in_a_budget_for_one() {
    use crate::support::{cached, run, smollm2, stdout};

    let paths = [smollm2(), cached("gemma3-270m.q4_k_m.gguf")];
    let needs = paths.each_ref().map(|path| {
        let plan: Value = serde_json::from_str(&stdout(&run(&[
            "--deterministic",
            "--ctx-size",
            "2048",
            "plan",
            path.to_str().unwrap(),
            "--json",
        ])))
        .unwrap();
        plan["devices"][0]["needed_bytes"].as_u64().unwrap()
    });
    let budget = needs[0].max(needs[1]) + needs[0].min(needs[1]) / 2;
    let folder = tempfile::tempdir().unwrap();
    for path in &paths {
        std::os::unix::fs::symlink(path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let mut command = crate::support::shimmy();
    command.args(["--gpu-backend", "cpu", "--model-dirs", folder.path().to_str().unwrap()]);
    // Sums depend on what is computed together; this makes texts comparable.
    command.args(["--deterministic", "--ctx-size", "2048"]);
    command.args(["serve", "--bind", "127.0.0.1:0", "--memory-budget", &format!("CPU={budget}B")]);
    let server = Server::spawn(command);
    let known = server.get("/api/models").json();
    let name = |family: &str| {
        let names = known["models"].as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap());
        names.into_iter().find(|name| name.starts_with(family)).unwrap().to_owned()
    };
    take_turns(&server, [&name("smollm2"), &name("gemma3")], 3);
}

/// What the stubs say they hold: 256 KiB, and 32 MiB for the one that takes no time.
#[cfg(not(feature = "llama"))]
const EITHER: &str = "CPU=33600kB";

#[cfg(not(feature = "llama"))]
#[test]
fn two_models_take_turns_in_a_budget_for_one() {
    let server = Server::with(&["--memory-budget", EITHER]);
    take_turns(&server, ["stub", "stub-fast"], 20);
}

#[cfg(not(feature = "llama"))]
#[test]
fn a_model_beyond_the_budget_is_refused_with_numbers() {
    let server = Server::with(&["--memory-budget", "1MiB"]);
    let refused = server.post("/api/generate", &json!({ "model": "stub-fast", "prompt": "x" }));
    assert_eq!(refused.status, 502);
    let error = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("stub-fast needs 32.0 MiB on CPU, and --memory-budget allows 1.0 MiB there"), "{error}");
    assert_eq!(server.post("/api/generate", &json!({ "model": "stub", "prompt": "x" })).status, 200);

    let wrong = shimmy().args(["serve", "--memory-budget", "NPU7=1GiB", "--bind", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let words =
        "--memory-budget npu7=1073741824B: there is no device \"npu7\" whose memory can be limited; there are: CPU";
    assert!(stderr(&wrong).contains(words), "{}", stderr(&wrong));
    let wrong = shimmy().args(["serve", "--memory-budget", "lots"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

/// Reads from a stream until `stub:endless` is under way.
#[cfg(not(feature = "llama"))]
fn endless(server: &Server) -> std::net::TcpStream {
    use std::io::{Read, Write};

    let body = json!({ "model": "stub", "prompt": "stub:endless", "stream": true }).to_string();
    let mut stream = server.connect();
    stream.write_all(&http_request("localhost", "POST", "/api/generate", &[], body.as_bytes())).unwrap();
    let mut some = [0; 512];
    assert!(stream.read(&mut some).unwrap() > 0);
    stream
}

#[cfg(not(feature = "llama"))]
fn state(server: &Server, model: &str) -> String {
    let models = server.get("/api/models").json();
    let all = models["models"].as_array().unwrap();
    all.iter().find(|status| status["name"] == model).unwrap()["state"].as_str().unwrap().to_owned()
}

#[cfg(not(feature = "llama"))]
fn becomes(server: &Server, model: &str, wanted: &str) {
    let start = Instant::now();
    while state(server, model) != wanted {
        assert!(start.elapsed() < Duration::from_secs(20), "{model} stays {}", state(server, model));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A busy model is not taken away, and whoever stops waiting for its room frees the way.
#[cfg(not(feature = "llama"))]
#[test]
fn who_waits_for_room_can_leave() {
    use std::io::Write;

    let server = Server::with(&["--memory-budget", EITHER]);
    let busy = endless(&server);
    let mut waiting = server.connect();
    let body = json!({ "model": "stub-fast", "prompt": "x" }).to_string();
    waiting.write_all(&http_request("localhost", "POST", "/api/generate", &[], body.as_bytes())).unwrap();
    becomes(&server, "stub-fast", "queued");
    assert_eq!(state(&server, "stub"), "loaded", "it is busy");
    drop(waiting);
    becomes(&server, "stub-fast", "unloaded");
    assert_eq!(server.post("/api/generate", &json!({ "model": "stub", "prompt": "x" })).status, 200);
    let unloading = server.post("/api/models/stub/unload", &json!({}));
    assert_eq!(unloading.json()["state"], "unloading");
    drop(busy);
    becomes(&server, "stub", "unloaded");
}

#[cfg(not(feature = "llama"))]
#[test]
fn a_load_is_told_as_events() {
    let server = Server::with(&["--memory-budget", EITHER]);
    let busy = endless(&server);
    let events = |accept: &str| {
        let headers = [("accept", accept)];
        server.request("POST", "/api/models/stub-fast/load", &headers, r#"{"stream":true,"keep_alive":"1h"}"#)
    };
    let answer = std::thread::scope(|scope| {
        let loading = scope.spawn(|| events("application/x-ndjson"));
        becomes(&server, "stub-fast", "queued");
        std::thread::sleep(Duration::from_millis(300));
        drop(busy);
        loading.join().unwrap()
    });
    let lines: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], json!({ "event": "progress", "state": "queued", "progress": 0.0 }));
    let last = lines.last().unwrap();
    assert_eq!((&last["event"], &last["model"]["state"]), (&json!("done"), &json!("loaded")));

    let ps = server.get("/api/ps").json();
    let expires: String = ps["models"][0]["expires_at"].as_str().unwrap().into();
    let left = expires.parse::<jiff::Timestamp>().unwrap().duration_since(jiff::Timestamp::now());
    assert!((3500..=3600).contains(&left.as_secs()), "{expires}");
    assert!(last["model"]["expires_at"].is_string());

    let sse = events("text/event-stream");
    assert!(sse.head.contains("content-type: text/event-stream"), "{}", sse.head);
    assert!(sse.text().starts_with("event: done\ndata: {\"event\":\"done\""), "{}", sse.text());
    assert_eq!(server.post("/api/models/nothing/load", &json!({ "stream": true })).status, 404);
}

#[cfg(not(feature = "llama"))]
#[test]
fn a_model_leaves_when_its_time_is_over() {
    let server = Server::with(&["--keep-alive", "50ms"]);
    assert_eq!(server.post("/api/generate", &json!({ "model": "stub", "prompt": "x" })).status, 200);
    becomes(&server, "stub", "unloaded");
    let stays = json!({ "model": "stub", "messages": [{ "role": "user", "content": "x" }], "keep_alive": -1 });
    assert_eq!(server.post("/api/chat", &stays).status, 200);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(state(&server, "stub"), "loaded", "the request's own keep_alive counts");
}

#[cfg(not(feature = "llama"))]
#[test]
fn ps_shows_what_a_server_has_loaded() {
    let server = Server::with(&["--api-key", "a-key-for-this-test"]);
    let ps = |args: &[&str]| shimmy().args(["ps", "--server", &server.address]).args(args).output().unwrap();
    let keyless = ps(&[]);
    assert_eq!(keyless.status.code(), Some(1));
    assert!(stderr(&keyless).contains("wants a key: give --api-key"), "{}", stderr(&keyless));
    let with_key = ["--api-key", "a-key-for-this-test"];
    assert!(stderr(&ps(&with_key)).contains("no model is loaded"));
    let headers = [("authorization", "Bearer a-key-for-this-test")];
    let load = server.request("POST", "/api/models/stub/load", &headers, r#"{"keep_alive":"1h"}"#);
    assert_eq!(load.status, 200, "{}", load.text());
    let shown = crate::support::stdout(&ps(&with_key));
    assert!(shown.contains("stub") && shown.contains("loaded") && shown.contains("CPU"), "{shown}");
    let json: Value = serde_json::from_slice(&ps(&[with_key[0], with_key[1], "--json"]).stdout).unwrap();
    assert_eq!(json["models"][0]["in_use"], 0);
    let nobody = shimmy().args(["ps", "--server", "127.0.0.1:1"]).output().unwrap();
    assert!(stderr(&nobody).contains("no server answers at 127.0.0.1:1"), "{}", stderr(&nobody));
}

/// Adapters of so many bytes are loaded beside the stub that says it holds 256 KiB.
#[cfg(not(feature = "llama"))]
fn load_adapter(server: &Server, folder: &std::path::Path, bytes: u64) -> crate::support::Answer {
    let path = folder.join(format!("of-{bytes}.gguf"));
    // Of rank 2, in 32-bit floats.
    shimmy::gguf::writer::lora("llama", "blk.0.attn_q.weight", [bytes / 16; 2], 1.0).write(&path).unwrap();
    server.post("/api/adapters", &json!({ "model": "stub", "path": path, "name": "poet" }))
}

#[cfg(not(feature = "llama"))]
#[test]
fn adapters_count_and_one_beyond_the_budget_is_refused_with_numbers() {
    let (server, folder) = (Server::with(&["--memory-budget", "600kB"]), tempfile::tempdir().unwrap());
    let size = || server.get("/api/ps").json()["models"][0]["size"].as_u64().unwrap();
    assert_eq!(answer(&server, "stub"), "Once upon a time");
    let alone = size();
    let refused = load_adapter(&server, folder.path(), 400_000);
    assert_eq!(refused.status, 502, "{}", refused.text());
    assert_eq!(
        refused.json()["error"],
        "the adapter poet needs 390.6 KiB on CPU beside stub, and 329.9 KiB is left there for it; unload adapters or models, or raise --memory-budget"
    );
    assert_eq!(size(), alone);
    assert_eq!(load_adapter(&server, folder.path(), 200_000).status, 200);
    assert_eq!(size(), alone + 200_000);
    let shown = shimmy().args(["ps", "--server", &server.address]).output().unwrap();
    assert!(crate::support::stdout(&shown).contains("462.1 kB"), "{}", crate::support::stdout(&shown));
    assert_eq!(load_adapter(&server, folder.path(), 200_000).status, 502, "both would be there for a while");
    assert_eq!(server.request("DELETE", "/api/adapters/poet", &[], "").status, 200);
    assert_eq!(size(), alone);
    assert_eq!(load_adapter(&server, folder.path(), 300_000).status, 200);
}

#[cfg(not(feature = "llama"))]
#[test]
fn an_idle_model_leaves_for_an_adapter() {
    let (server, folder) = (Server::with(&["--memory-budget", "34200kB"]), tempfile::tempdir().unwrap());
    for model in ["stub", "stub-fast"] {
        answer(&server, model);
    }
    assert_eq!(loaded(&server).len(), 2);
    assert_eq!(load_adapter(&server, folder.path(), 400_000).status, 200);
    assert_eq!(loaded(&server), BTreeSet::from(["stub:latest".to_owned()]));
}
