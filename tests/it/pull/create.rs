//! `/api/create`: models made of blobs that were sent, and of other models.

use std::fs;

use serde_json::{Value, json};
use shimmy::gguf::writer::{tiny_llama, tiny_lora};
use shimmy::library::pull::Digest;

use super::model;
use super::own::Machine;
use super::serve::{lines, names, serve, statuses};
use crate::support::{Answer, Server, http_request};

fn send(server: &Server, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let request = http_request(&server.address, "POST", &format!("/api/blobs/{digest}"), &[], bytes);
    assert_eq!(Answer::parse(&server.raw(&request)).status, 201);
    digest
}

#[test]
fn a_model_is_made_of_what_was_sent_and_shown_with_all_that_it_was_made_of() {
    let machine = Machine::new();
    let server = serve(&machine);
    let (weights, lora) = (send(&server, &tiny_llama().to_bytes()), send(&server, &tiny_lora().to_bytes()));
    let answer = server.post(
        "/api/create",
        &json!({
            "model": "Mine", "files": { "m.gguf": weights }, "adapters": { "l.gguf": lora }, "system": "Be brief.",
            "template": "{{ .System }} {{ .Prompt }}", "license": ["free", "really"], "quantize": null,
            "parameters": { "temperature": 0.5, "stop": ["a", "b"], "num_ctx": 64 },
            "messages": [{ "role": "user", "content": "Hi" }, { "role": "assistant", "content": "Ho" }],
        }),
    );
    let told = lines(&answer);
    let words = statuses(&told);
    assert!(words.contains(&format!("using existing layer {weights}").as_str()), "{words:?}");
    assert!(words.iter().any(|word| word.starts_with("creating new layer sha256:")), "{words:?}");
    assert_eq!(words[words.len() - 2..], ["writing manifest", "success"]);
    assert_eq!(names(&server), ["mine:latest"]);
    let shown = server.post("/api/show", &json!({ "model": "mine" })).json();
    assert_eq!((&shown["system"], &shown["template"]), (&json!("Be brief."), &json!("{{ .System }} {{ .Prompt }}")));
    assert_eq!((&shown["license"], &shown["messages"][1]["content"]), (&json!("free\nreally"), &json!("Ho")));
    let parameters = shown["parameters"].as_str().unwrap();
    assert!(parameters.contains("stop                           \"b\"\nnum_ctx"), "{parameters}");
    assert!(shown["modelfile"].as_str().unwrap().contains("PARAMETER temperature 0.5\n"), "{shown}");

    // Of that one another one, and of that a third.
    let made = |body: Value| server.post("/api/create", &body);
    let second = json!({ "model": "second", "from": "mine", "system": "Rhyme.", "parameters": { "temperature": 1 }, "stream": false });
    assert_eq!(made(second).json(), json!({ "status": "success" }));
    let shown = server.post("/api/show", &json!({ "model": "second" })).json();
    assert_eq!((&shown["system"], &shown["license"]), (&json!("Rhyme."), &json!("free\nreally")));
    assert!(shown["parameters"].as_str().unwrap().starts_with("temperature                    1\n"), "{shown}");
    // The one that was there gives way.
    assert_eq!(made(json!({ "model": "MINE", "from": "second", "system": "Whisper.", "stream": false })).status, 200);
    assert_eq!(names(&server), ["mine:latest", "second:latest"]);
    assert_eq!(server.post("/api/show", &json!({ "model": "mine" })).json()["system"], "Whisper.");
    let digests: Vec<Value> = server.get("/api/tags").json()["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["digest"].clone())
        .collect();
    let manifest = machine.root().join("manifests/registry.ollama.ai/library/second/latest");
    assert!(digests.contains(&json!(Digest::of(&fs::read(&manifest).unwrap()).hex())), "{digests:?}");
    // So is one that differs in nothing that it is loaded with.
    assert_eq!(made(json!({ "model": "second", "from": "second", "license": "more", "stream": false })).status, 200);
    let listed = server.get("/api/tags").json();
    let second = listed["models"].as_array().unwrap().iter().find(|model| model["name"] == "second:latest").unwrap();
    assert_eq!(second["digest"], json!(Digest::of(&fs::read(&manifest).unwrap()).hex()));
    // It outlives the server.
    let (_, shown, _) = machine.run(&["show", "second", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["ollama"]["system"], &shown["ollama"]["adapters"][0]),
        (&json!("Rhyme."), &json!(blob(&machine, &lora)))
    );
    for name in ["mine", "second"] {
        assert_eq!(server.request("DELETE", "/api/delete", &[], &json!({ "model": name }).to_string()).status, 200);
    }
    assert!(super::files(&machine.root(), "blobs").is_empty(), "nothing is left over");
}

fn blob(machine: &Machine, digest: &Digest) -> String {
    machine.root().join("blobs").join(digest.file_name()).display().to_string()
}

#[test]
fn a_model_is_made_of_others_and_of_what_has_to_be_fetched_first() {
    let machine = Machine::new();
    machine.ollama("theirs");
    let file = machine.dir.path().join("mine/tiny-1b-q4_0.gguf");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, model(1, 9)).unwrap();
    let server = serve(&machine);
    let made = |from: &str, name: &str| {
        server.post("/api/create", &json!({ "model": name, "from": from, "system": "Be brief." }))
    };
    for (from, name) in [("theirs", "ours"), ("tiny-1b", "small")] {
        let told = lines(&made(from, name));
        assert_eq!(told.last(), Some(&json!({ "status": "success" })), "{told:?}");
    }
    machine.fake.ollama("library/far", "latest", &[("model", &model(1, 2)), ("params", br#"{"top_k":1}"#)]);
    let told = lines(&made("far", "near"));
    let words = statuses(&told);
    assert_eq!((words[0], words[words.len() - 1]), ("pulling manifest", "success"));
    assert_eq!(words.iter().filter(|word| **word == "success").count(), 1, "{words:?}");
    // A source that no model is called after.
    assert_eq!(lines(&made("ollama:far", "next")).last(), Some(&json!({ "status": "success" })));
    fs::remove_dir_all(machine.dir.path().join("ollama")).unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(names(&server), ["far:latest", "near:latest", "next:latest", "ours:latest", "small:latest"]);
    let shown = server.post("/api/show", &json!({ "model": "near" })).json();
    assert_eq!(
        (&shown["system"], shown["parameters"].as_str()),
        (&json!("Be brief."), Some("top_k                          1"))
    );
}

#[test]
fn what_cannot_be_made_is_told_and_leaves_nothing() {
    let machine = Machine::new();
    machine.ollama("theirs");
    let server = serve(&machine);
    let weights = send(&server, &tiny_llama().to_bytes());
    let refused = |more: Value| {
        let mut body = json!({ "model": "mine", "stream": false });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = server.post("/api/create", &body);
        (answer.status, answer.json()["error"].as_str().unwrap().to_owned())
    };
    for (body, status, word) in [
        (json!({}), 400, "neither `from` nor `files`"),
        (json!({ "from": "nothing" }), 404, "nothing:latest"),
        (json!({ "from": "stub" }), 403, "has no file"),
        (json!({ "from": "http://127.0.0.1/x.gguf" }), 403, "neither the hub nor"),
        (json!({ "files": { "m": Digest::of(b"never sent") } }), 400, "is not in the store"),
        (json!({ "files": { "m": weights }, "adapters": { "l": weights } }), 400, "not a LoRA adapter"),
        (
            json!({ "files": { "m": weights }, "parameters": { "temperature": -1 } }),
            400,
            "parameters.temperature is -1",
        ),
        (json!({ "files": { "m": weights }, "messages": [{ "role": "king" }] }), 400, "messages[0]"),
        (json!({ "files": { "m": weights }, "model": "theirs" }), 400, "is a model of its own"),
        (json!({ "files": { "m": weights }, "model": "a/b/c/d" }), 400, "three parts"),
        (json!({ "files": { "m": weights }, "quantize": "q4_0" }), 400, "does not quantise"),
    ] {
        // Other builds have no model without a file.
        if cfg!(feature = "llama") && body["from"] == "stub" {
            continue;
        }
        let (found, why) = refused(body.clone());
        assert!(found == status && why.contains(word), "{body}: {found} {why}");
    }
    // In a stream, what is found out on the way is its last line.
    let answer = server.post("/api/create", &json!({ "model": "mine", "files": { "m": Digest::of(b"never sent") } }));
    assert_eq!(answer.status, 200);
    assert!(lines(&answer).last().unwrap()["error"].as_str().unwrap().contains("is not in the store"));
    assert_eq!(names(&server), ["theirs:latest"]);
}
