//! What Ollama's requests leave behind: which models stay loaded.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{MODEL, Server};

fn loaded(server: &Server) -> usize {
    server.get("/api/ps").json()["models"].as_array().unwrap().len()
}

/// It is done after the answer, on a thread of its own.
fn unloads(server: &Server) {
    for _ in 0..100 {
        if loaded(server) == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the model is still loaded");
}

fn request(keep_alive: Value, stream: bool) -> Value {
    json!({ "model": MODEL, "messages": [{ "role": "user", "content": "one two three" }], "stream": stream,
            "keep_alive": keep_alive, "options": { "num_predict": 2 } })
}

#[test]
fn a_model_that_is_not_to_be_kept_is_unloaded_after_the_answer() {
    let server = Server::start();
    for stream in [false, true] {
        let kept = server.post("/api/chat", &request(json!("5m"), stream));
        assert_eq!(kept.status, 200, "{}", kept.text());
        assert_eq!(loaded(&server), 1);
        let left = server.post("/api/chat", &request(json!(0), stream));
        assert!(left.text().contains("\"done\":true"), "{}", left.text());
        unloads(&server);
    }
    let mut generate = request(json!("0s"), true);
    generate["prompt"] = json!("one two three");
    generate.as_object_mut().unwrap().remove("messages");
    assert!(server.post("/api/generate", &generate).text().contains("\"done\":true"));
    unloads(&server);
}

#[cfg(not(feature = "llama"))]
#[test]
fn nor_is_it_kept_after_embedding() {
    let server = Server::start();
    let embed =
        |keep_alive| server.post("/api/embed", &json!({ "model": MODEL, "input": "x", "keep_alive": keep_alive }));
    assert_eq!(embed(-1).status, 200);
    assert_eq!(loaded(&server), 1);
    assert_eq!(embed(0).json()["embeddings"].as_array().unwrap().len(), 1);
    unloads(&server);
}

/// Others' generations run on: they hold the model for as long as they need it.
#[cfg(not(feature = "llama"))]
#[test]
fn unloading_does_not_cut_others_off() {
    use std::io::{Read, Write};

    let server = Server::start();
    let words = ["word"; 300].join(" ");
    let long = json!({ "model": MODEL, "messages": [{ "role": "user", "content": words }] }).to_string();
    let mut stream = server.connect();
    stream.write_all(&crate::support::http_request("localhost", "POST", "/api/chat", &[], long.as_bytes())).unwrap();
    let mut first = [0; 512];
    let _ = stream.read(&mut first).unwrap();
    let unloaded = server.post("/api/chat", &json!({ "model": MODEL, "keep_alive": 0 }));
    assert_eq!(unloaded.json()["done_reason"], "unload");
    assert_eq!(loaded(&server), 0);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"done_reason\":\"stop\"") && rest.contains("\"eval_count\":300"), "{rest}");
}
