//! A server, and models that come and go while it runs.

use std::fs;

use serde_json::{Value, json};
use shimmy::gguf::writer::tiny_llama;

use super::model;
use super::own::Machine;
use crate::support::Server;

fn serve(machine: &Machine) -> Server {
    let mut command = machine.command(&["serve", "--bind", "127.0.0.1:0"]);
    command.env("SHIMMY_MODEL_PATHS", machine.dir.path().join("mine"));
    Server::spawn(command)
}

/// Names without those of the stub.
fn names(server: &Server) -> Vec<String> {
    let listed = server.get("/api/tags").json();
    let names = listed["models"].as_array().unwrap().iter().map(|model: &Value| model["name"].as_str().unwrap());
    names.filter(|name| !name.starts_with("stub")).map(str::to_owned).collect()
}

#[test]
fn what_comes_and_goes_is_seen_without_a_restart() {
    let machine = Machine::new();
    let server = serve(&machine);
    assert!(names(&server).is_empty());
    machine.pull("first", &model(1, 1));
    assert_eq!(names(&server), ["first:latest"]);
    // In a folder that was not there, in a form that is not whole yet.
    let file = machine.dir.path().join("mine/deep/Tiny-1B-Q4_0.gguf");
    let bytes = tiny_llama().to_bytes();
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, &bytes[..1000]).unwrap();
    assert_eq!(names(&server), ["first:latest"]);
    fs::write(&file, &bytes).unwrap();
    assert_eq!(server.post("/api/show", &json!({ "model": "tiny-1b" })).status, 200, "asked for before it was listed");
    assert_eq!(names(&server), ["first:latest", "tiny:1b-q4_0"]);
    let ids = server.get("/v1/models").json();
    assert!(ids["data"].as_array().unwrap().iter().any(|model| model["id"] == "tiny:1b-q4_0"), "{ids}");
    assert_eq!(machine.run(&["rm", "first"]).0, Some(0));
    fs::remove_file(&file).unwrap();
    assert!(names(&server).is_empty());
    assert_eq!(server.post("/api/show", &json!({ "model": "first" })).status, 404);
    // Another program's.
    machine.ollama("theirs");
    assert_eq!(server.get("/v1/models/theirs").status, 200);
}
