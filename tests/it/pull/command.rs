//! What the `ollama` command sends and reads, step by step: it is in no registry of packages, so it is not run here. Bodies have
//! the empty and null fields that its source (`api/types.go`, `cmd/cmd.go`) writes into them.

use serde_json::{Value, json};
use shimmy::gguf::writer::tiny_llama;
use shimmy::library::pull::Digest;

use super::own::Machine;
use super::serve::{lines, names, serve, statuses};
use crate::support::{Answer, Server};

const TEMPLATE: &str = "{% for message in messages %}{{ message.content }} {% endfor %}";

struct Command(Server);

impl Command {
    /// Each of its commands first asks whether somebody is there.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let headers = [
            ("accept", "application/x-ndjson"),
            ("content-type", "application/json"),
            ("user-agent", "ollama/0.12.6 (amd64 linux) Go/go1.24.1"),
        ];
        assert_eq!(self.0.request("HEAD", "/", &headers, "").status, 200);
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.0.request(method, path, &headers, &text)
    }

    fn post(&self, path: &str, body: Value) -> Vec<Value> {
        let answer = self.ask("POST", path, &body);
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text());
        lines(&answer)
    }

    /// It prints the first twelve characters of a digest, and ends where there are fewer.
    fn listed(&self, path: &str) -> Vec<String> {
        let found = self.ask("GET", path, &Value::Null).json()["models"].as_array().unwrap().clone();
        let ours = found.iter().filter(|model| !model["name"].as_str().unwrap().starts_with("stub"));
        ours.map(|model| {
            assert!(model["digest"].as_str().unwrap().len() >= 12 && model["size"].is_u64(), "{model}");
            model["name"].as_str().unwrap().to_owned()
        })
        .collect()
    }
}

fn generate(model: &str, prompt: &str, more: Value) -> Value {
    let mut body =
        json!({ "model": model, "prompt": prompt, "suffix": "", "system": "", "template": "", "options": null });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn models_are_pulled_made_run_and_removed_by_what_the_ollama_command_sends() {
    let machine = Machine::new();
    let weights = tiny_llama().to_bytes();
    machine.fake.ollama("library/tiny", "latest", &[("model", &weights)]);
    let ollama = Command(serve(&machine));

    let told = ollama.post("/api/pull", json!({ "model": "tiny", "name": "" }));
    assert_eq!(statuses(&told).last(), Some(&"success"));
    assert_eq!(ollama.listed("/api/tags"), ["tiny:latest"]);
    let show = json!({ "model": "tiny", "system": "", "template": "", "verbose": false, "options": null, "name": "" });
    let [shown] = &ollama.post("/api/show", show)[..] else { panic!("one object") };
    assert_eq!(shown["details"]["family"], "llama");
    assert!(shown["capabilities"].as_array().unwrap().contains(&json!("completion")), "{shown}");

    // `create`, with a file of its own that it sends once.
    let digest = Digest::of(&weights);
    assert_eq!(ollama.ask("HEAD", &format!("/api/blobs/{digest}"), &Value::Null).status, 200);
    assert_eq!(ollama.ask("HEAD", &format!("/api/blobs/{}", Digest::of(b"x")), &Value::Null).status, 404);
    let recipe = json!({ "model": "mine", "files": { "m.gguf": digest }, "template": TEMPLATE, "name": "" });
    assert_eq!(statuses(&ollama.post("/api/create", recipe)).last(), Some(&"success"));

    // `run`: it loads the model, and talks then.
    let [loaded] = &ollama.post("/api/generate", generate("mine", "", json!({})))[..] else { panic!("one object") };
    assert_eq!((&loaded["done"], &loaded["done_reason"]), (&json!(true), &json!("load")));
    let said = [
        ollama.post(
            "/api/generate",
            generate("mine", "Hi", json!({ "options": { "num_predict": 2 }, "keep_alive": "5m0s" })),
        ),
        ollama.post(
            "/api/chat",
            json!({ "model": "mine", "messages": [{ "role": "user", "content": "Hi" }], "format": "",
                    "options": { "num_predict": 2 }, "keep_alive": "-1" }),
        ),
    ];
    for parts in said {
        let last = parts.last().unwrap();
        // The model is a random one, and may end at once.
        assert!(last["done"] == true && matches!(last["eval_count"].as_u64(), Some(1 | 2)), "{last}");
        assert!(last["total_duration"].as_u64() >= last["eval_duration"].as_u64(), "{last}");
    }
    assert_eq!(ollama.listed("/api/ps"), ["mine:latest"]);
    // `stop`.
    let [stopped] = &ollama.post("/api/generate", generate("mine", "", json!({ "keep_alive": "0s" })))[..] else {
        panic!("one")
    };
    assert_eq!(stopped["done_reason"], "unload");
    assert_eq!(ollama.listed("/api/ps"), Vec::<String>::new());

    assert_eq!(ollama.ask("POST", "/api/copy", &json!({ "source": "mine", "destination": "yours" })).status, 200);
    assert_eq!(names(&ollama.0), ["mine:latest", "tiny:latest", "yours:latest"]);
    for name in ["mine", "yours", "tiny"] {
        // `rm` stops it first.
        ollama.post("/api/generate", generate(name, "", json!({ "keep_alive": "0s" })));
        assert_eq!(ollama.ask("DELETE", "/api/delete", &json!({ "model": name, "name": "" })).status, 200);
    }
    assert_eq!(ollama.listed("/api/tags"), Vec::<String>::new());
    // By these words it tells a model that it has to pull first.
    let missing = ollama.ask("POST", "/api/show", &json!({ "model": "tiny", "name": "" }));
    assert_eq!(missing.status, 404);
    assert!(missing.json()["error"].as_str().unwrap().contains("not found"), "{}", missing.text());
}
