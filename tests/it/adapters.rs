//! LoRA adapters that come and go while the model serves.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

use serde_json::{Value, json};
use shimmy::gguf::writer::lora;

use crate::support::{Answer, MODEL, Server};

/// Files of adapters, each of which makes the model say something else.
struct Adapters(tempfile::TempDir);

impl Adapters {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{name}.gguf"))
    }

    /// The number makes the difference.
    fn write(&self, name: &str, number: u32) -> PathBuf {
        let target = format!("blk.{number}.attn_q.weight");
        lora("llama", &target, [576, 576], 2.0).write(&self.path(name)).unwrap();
        self.path(name)
    }

    fn load(&self, server: &Server, name: &str, number: u32) -> Value {
        let path = self.write(name, number);
        accepted(&server.post("/api/adapters", &json!({ "model": MODEL, "path": path })))
    }
}

fn accepted(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn prompt() -> Value {
    json!({ "model": MODEL, "prompt": "The capital of France is", "raw": true, "temperature": 0, "seed": 7, "max_tokens": 8,
            "ignore_eos": true })
}

fn with(mut body: Value, more: &Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// A model's sums depend on what is computed together, so texts can be compared only where that is always the same. The
/// stub's do not, so that there passes are made as they usually are.
fn comparable() -> Server {
    if cfg!(feature = "llama") { Server::with(&["--deterministic"]) } else { Server::start() }
}

fn says(server: &Server, more: &Value) -> String {
    let answer = accepted(&server.post("/api/generate", &with(prompt(), more)));
    answer["response"].as_str().unwrap().to_owned()
}

fn named(name: &str) -> Value {
    json!({ "lora": [{ "name": name }] })
}

fn model(adapters: &str) -> Value {
    json!({ "model": format!("{MODEL}+{adapters}") })
}

/// The field `error` of shimmy's and Ollama's answers.
fn refused(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status, status, "{}", answer.text());
    answer.json()["error"].as_str().unwrap().to_owned()
}

#[test]
fn an_adapter_is_loaded_named_scaled_and_unloaded() {
    let (server, files) = (Server::start(), Adapters::new());
    assert_eq!(server.get("/api/adapters").json(), json!({ "adapters": [] }));
    let base = says(&server, &json!({}));
    let loaded = files.load(&server, "poet", 0);
    let path = files.path("poet");
    let served = server.get("/api/models").json()["models"][0]["name"].as_str().unwrap().to_owned();
    let shown =
        json!({ "name": "poet", "model": served, "path": path, "scale": 1.0, "default": false, "loaded": true });
    assert_eq!(loaded, shown);
    assert_eq!(server.get("/api/adapters").json(), json!({ "adapters": [shown] }));

    let poet = says(&server, &named("poet"));
    assert_ne!(poet, base);
    assert_eq!(says(&server, &json!({})), base, "who names none gets none");
    assert_eq!(says(&server, &model("poet")), poet, "by the model's name");
    assert_eq!(says(&server, &model("Poet:latest")), poet, "however clients write it");
    assert_eq!(
        says(&server, &json!({ "lora": [{ "name": "poet", "scale": 0 }] })),
        base,
        "a scale of 0 changes nothing"
    );
    let half = says(&server, &json!({ "lora": [{ "name": "poet", "scale": 0.25 }] }));

    let scale = json!({ "model": MODEL, "name": "poet", "scale": 0.25 });
    assert_eq!(accepted(&server.post("/api/adapters", &scale))["scale"], 0.25);
    assert_eq!(says(&server, &named("poet")), half, "the scale that it has now");

    files.load(&server, "pirate", 3);
    let both = says(&server, &model("poet+pirate"));
    assert_eq!(says(&server, &json!({ "lora": [{ "name": "pirate" }, { "name": "poet" }] })), both, "in any order");
    assert_eq!([&base, &poet, &both, &says(&server, &named("pirate"))].into_iter().collect::<HashSet<_>>().len(), 4);

    let gone = accepted(&server.request("DELETE", "/api/adapters/poet", &[], ""));
    assert_eq!(gone, json!({ "name": "poet", "model": served, "unloaded": true }));
    let error = refused(&server.post("/api/generate", &with(prompt(), &named("poet"))), 400);
    assert_eq!(error, format!("there is no adapter \"poet\" for {served} (there are: pirate)"));
    assert_eq!(
        refused(&server.request("DELETE", "/api/adapters/poet", &[], ""), 404),
        format!("there is no adapter \"poet\" (there are: {served}+pirate)")
    );
}

#[test]
fn a_replaced_file_is_loaded_again_and_takes_the_old_ones_place() {
    let (server, files) = (Server::start(), Adapters::new());
    files.load(&server, "poet", 0);
    let first = says(&server, &named("poet"));
    assert_eq!(says(&server, &named("poet")), first, "also from the cache");
    let again =
        accepted(&server.post("/api/adapters", &json!({ "model": MODEL, "path": files.path("poet"), "name": "twin" })));
    assert_eq!(again["name"], "twin");
    assert_eq!(says(&server, &named("twin")).replace("twin", "poet"), first);
    files.load(&server, "poet", 5);
    let second = says(&server, &named("poet"));
    // The stub knows nothing of an adapter but its name.
    assert_eq!(second == first, cfg!(not(feature = "llama")));
    assert_eq!(says(&server, &named("twin")).replace("twin", "poet"), first);
}

#[test]
fn one_that_is_a_default_is_used_by_who_names_none() {
    let (server, files) = (Server::start(), Adapters::new());
    let base = says(&server, &json!({}));
    files.load(&server, "poet", 0);
    let poet = says(&server, &named("poet"));
    let default =
        |on: bool| accepted(&server.post("/api/adapters", &json!({ "model": MODEL, "name": "poet", "default": on })));
    assert_eq!(default(true)["default"], true);
    assert_eq!(says(&server, &json!({})), poet);
    assert_eq!(says(&server, &json!({ "lora": [] })), base, "a list takes the default's place");
    default(false);
    assert_eq!(says(&server, &json!({})), base);
}

/// The first request that names it loads it, and with it the model.
#[test]
fn one_for_a_model_that_is_not_loaded_is_checked_and_waits() {
    let (server, files) = (Server::start(), Adapters::new());
    assert_eq!(accepted(&server.post(&format!("/api/models/{MODEL}/unload"), &json!({})))["state"], "unloaded");
    assert_eq!(files.load(&server, "poet", 0)["loaded"], false);
    let poet = says(&server, &named("poet"));
    assert_eq!(server.get("/api/adapters").json()["adapters"][0]["loaded"], true);
    accepted(&server.post(&format!("/api/models/{MODEL}/unload"), &json!({})));
    assert_eq!(says(&server, &named("poet")), poet, "it is known when the model comes back");
}

#[test]
fn each_dialect_takes_adapters_and_says_in_its_words_what_is_wrong() {
    let (server, files) = (Server::start(), Adapters::new());
    files.load(&server, "poet", 0);
    let messages = json!([{ "role": "user", "content": "Tell me a fact about Paris." }]);
    let chat = |more: Value| {
        let body = json!({ "model": MODEL, "messages": messages, "max_tokens": 6, "temperature": 0, "seed": 7 });
        server.post("/v1/chat/completions", &with(body, &more))
    };
    let said = |answer: &Answer| accepted(answer)["choices"][0]["message"]["content"].clone();
    let plain = said(&chat(json!({})));
    let poet = chat(named("poet"));
    assert!(!poet.head.to_lowercase().contains("x-shimmy-ignored"), "{}", poet.head);
    assert_ne!(said(&poet), plain);
    let by_name = chat(model("poet"));
    assert_eq!((said(&by_name), by_name.json()["model"].clone()), (said(&poet), model("poet")["model"].clone()));
    let completion = json!({ "model": MODEL, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 8 });
    let completed = |more: &Value| {
        accepted(&server.post("/v1/completions", &with(completion.clone(), more)))["choices"][0]["text"].clone()
    };
    assert_ne!(completed(&named("poet")), completed(&json!({})));

    for (more, status, part) in [
        (named("nobody"), 400, "there is no adapter \"nobody\""),
        (model("nobody"), 404, "(known: "),
        (json!({ "lora": [{ "name": "poet" }, { "name": "Poet" }] }), 400, "names the adapter \"Poet\" twice"),
        (json!({ "lora": [{ "name": "poet", "scale": 1e60 }] }), 400, "lora"),
        (json!({ "lora": [{ "scale": 1 }] }), 400, "missing field `name`"),
        (json!({ "lora": vec![json!({ "name": "poet" }); 17] }), 400, "at most 16"),
        (with(model("poet"), &named("poet")), 400, "name them in one of the two"),
    ] {
        let answer = chat(more.clone());
        assert_eq!(answer.status, status, "{more}: {}", answer.text());
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(part), "{more}: {message}");
        let own = refused(&server.post("/api/generate", &with(prompt(), &more)), status);
        assert!(own.contains(part), "{more}: {own}");
    }
    let ollama = json!({ "model": format!("{MODEL}+poet"), "messages": messages, "stream": false, "options": { "num_predict": 6, "temperature": 0 } });
    let answer = accepted(&server.post("/api/chat", &ollama));
    assert_eq!(answer["model"], ollama["model"]);
    let claude = json!({ "model": format!("{MODEL}+nobody"), "messages": messages, "max_tokens": 6 });
    let answer = server.post("/v1/messages", &claude);
    assert_eq!((answer.status, &answer.json()["error"]["type"]), (404, &json!("not_found_error")));
}

#[test]
fn what_is_no_adapter_is_refused_and_changes_nothing() {
    let (server, files) = (Server::start(), Adapters::new());
    files.load(&server, "poet", 0);
    let state = || (says(&server, &named("poet")), server.get("/api/adapters").json());
    let before = state();
    let load = |body: Value| server.post("/api/adapters", &body);
    std::fs::write(files.path("text"), "once upon a time").unwrap();
    lora("gpt2", "blk.0.attn_q.weight", [576, 576], 2.0).write(&files.path("other")).unwrap();
    lora("llama", "blk.0.attn_q.weight", [64, 64], 2.0).write(&files.path("small")).unwrap();
    let (path, missing) = (|name| files.path(name), files.path("missing"));
    for (body, status, part) in [
        (json!({ "model": MODEL, "path": missing, "name": "poet" }), 400, "missing.gguf"),
        (json!({ "model": MODEL, "path": path("text") }), 400, "text.gguf"),
        (json!({ "model": MODEL, "path": path("poet"), "name": "a b" }), 400, "is no name for an adapter"),
        (json!({ "model": MODEL }), 400, "`path`"),
        (json!({ "model": MODEL, "path": 7 }), 400, "path: "),
        (json!({ "model": "nothing", "path": path("poet") }), 404, "model not found"),
        (json!({ "model": MODEL, "name": "nobody", "scale": 2 }), 404, "give `path`"),
    ] {
        let error = refused(&load(body.clone()), status);
        assert!(error.contains(part), "{body}: {error}");
    }
    let error = refused(&server.get("/api/adapters?model=a&model=b"), 400);
    assert!(error.contains("model"), "{error}");
    if cfg!(feature = "llama") {
        let error = refused(&load(json!({ "model": MODEL, "path": path("other"), "name": "poet" })), 400);
        assert!(error.contains("gpt2"), "{error}");
        let error = refused(&load(json!({ "model": MODEL, "path": path("small"), "name": "poet" })), 400);
        assert!(error.contains("blk.0.attn_q.weight"), "it names the tensor: {error}");
    }
    assert_eq!(state(), before);
}

/// It would take more than the budget, too: what is wrong with the file is said, not that.
#[cfg(feature = "llama")]
#[test]
fn one_for_another_model_is_refused_before_room_is_made() {
    let server = Server::start();
    says(&server, &json!({}));
    let held = server.get("/api/ps").json()["models"][0]["size"].as_u64().unwrap();
    let (server, files) = (Server::with(&["--memory-budget", &format!("CPU={}", held + (8 << 20))]), Adapters::new());
    says(&server, &json!({}));
    let path = files.path("other");
    lora("gpt2", "blk.0.attn_q.weight", [1 << 20; 2], 1.0).write(&path).unwrap();
    let answer = server.post("/api/adapters", &json!({ "model": MODEL, "path": path, "name": "poet" }));
    let error = refused(&answer, 400);
    assert!(error.contains("gpt2"), "{error}");
}

#[test]
fn requests_with_different_adapters_run_side_by_side_and_do_not_mix() {
    let (server, files) = (comparable(), Adapters::new());
    files.load(&server, "poet", 0);
    files.load(&server, "pirate", 3);
    let kinds = [json!({}), named("poet"), named("pirate"), model("poet+pirate")];
    let body = |kind: &Value| with(kind.clone(), &json!({ "max_tokens": 24 }));
    let solo: Vec<String> = kinds.iter().map(|kind| says(&server, &body(kind))).collect();
    assert_eq!(solo.iter().collect::<HashSet<_>>().len(), 4, "{solo:?}");
    for _ in 0..3 {
        let together: Vec<String> = scope(|scope| {
            let threads: Vec<_> = kinds.iter().map(|kind| scope.spawn(|| says(&server, &body(kind)))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(together, solo);
    }
}

/// Tells when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Each load takes the place of the one before, while it is in use.
#[test]
fn a_thousand_swaps_under_traffic_change_no_text_and_take_no_memory() {
    let (server, files) = (comparable(), Adapters::new());
    let numbers = [0, 3];
    files.load(&server, "poet", 0);
    let base = says(&server, &json!({}));
    let solo = numbers.map(|number| {
        files.load(&server, "poet", number);
        says(&server, &named("poet"))
    });
    let done = AtomicBool::new(false);
    let grown = scope(|scope| {
        let traffic: Vec<_> = [json!({}), named("poet"), named("poet")]
            .into_iter()
            .map(|kind| {
                let (server, done, base, solo) = (&server, &done, &base, &solo);
                scope.spawn(move || {
                    let mut answers = 0;
                    while !done.load(Ordering::Relaxed) {
                        let text = says(server, &kind);
                        let expected = if kind == json!({}) { &text == base } else { solo.contains(&text) };
                        assert!(expected, "{kind}: {text:?} is none of {base:?}, {solo:?}");
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        // Both files lie ready; which of them is loaded changes.
        let paths = numbers.map(|number| files.write(&format!("poet-{number}"), number));
        let mut resident = Vec::new();
        // Also where a swap fails, or its panic would wait for the traffic.
        let ends = Ends(&done);
        for swap in 0..1000 {
            let path = &paths[swap % 2];
            accepted(&server.post("/api/adapters", &json!({ "model": MODEL, "name": "poet", "path": path })));
            if swap % 200 == 199 {
                resident.push(server.resident_mb());
            }
        }
        drop(ends);
        for thread in traffic {
            assert!(thread.join().unwrap() > 1, "there was no traffic");
        }
        eprintln!("resident after each 200 swaps: {resident:?} MiB");
        resident[4].saturating_sub(resident[0])
    });
    assert!(grown <= 8, "800 swaps took {grown} MiB");
}

#[cfg(not(feature = "llama"))]
#[test]
fn one_that_was_found_beside_its_base_is_listed_and_can_be_named() {
    use shimmy::gguf::writer::{tiny_llama, tiny_lora};

    let folder = tempfile::tempdir().unwrap();
    tiny_llama().write(&folder.path().join("tiny.gguf")).unwrap();
    tiny_lora().write(&folder.path().join("Poet.gguf")).unwrap();
    lora("llama", "blk.0.attn_q.weight", [576, 576], 1.0).write(&folder.path().join("unfit.gguf")).unwrap();
    let mut command = crate::support::shimmy();
    command.args(["--model-dirs", folder.path().to_str().unwrap(), "serve", "--bind", "127.0.0.1:0"]);
    let server = Server::spawn(command);
    let listed = server.get("/api/adapters").json();
    let listed = listed["adapters"].as_array().unwrap();
    let names: Vec<&str> = listed.iter().map(|adapter| adapter["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["poet"], "one that does not fit is no adapter of it");
    assert_eq!((&listed[0]["loaded"], &listed[0]["default"]), (&json!(false), &json!(false)));
    let base = listed[0]["model"].as_str().unwrap();
    let scaled = |name: &str| server.post("/api/adapters", &json!({ "model": base, "name": name, "scale": 0.5 }));
    assert_eq!(accepted(&scaled("Poet"))["path"], listed[0]["path"], "its path need not be said");
    assert!(refused(&scaled("unfit"), 404).contains("(there are: poet)"));
}

#[test]
fn models_are_listed_with_their_adapters() {
    let (server, files) = (Server::start(), Adapters::new());
    let ids = || {
        let listed = server.get("/v1/models").json();
        let ids = listed["data"].as_array().unwrap().iter();
        ids.map(|model| model["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before = ids();
    files.load(&server, "poet", 1);
    files.load(&server, "cook", 2);
    let base = before.iter().find(|id| id.contains(if cfg!(feature = "llama") { "smollm2" } else { "stub" })).unwrap();
    let pairs: Vec<String> = ids().into_iter().filter(|id| !before.contains(id)).collect();
    assert_eq!(pairs, [format!("{base}+cook"), format!("{base}+poet")]);
    for id in [&pairs[0], &format!("{base}+poet+cook")] {
        let model = accepted(&server.get(&format!("/v1/models/{id}")));
        assert_eq!((model["id"].as_str(), model["created"].as_u64() > Some(0)), (Some(id.as_str()), true));
    }
    assert_eq!(server.get(&format!("/v1/models/{base}+nobody")).status, 404);
    for path in ["/v1/embeddings", "/api/embed"] {
        let refused = server.post(path, &json!({ "model": pairs[0], "input": "x" }));
        assert_eq!(refused.status, 400, "{path}: {}", refused.text());
        assert!(refused.text().contains("adapters are not chosen for embeddings and rankings"), "{}", refused.text());
    }
}
