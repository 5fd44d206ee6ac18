//! Many requests at once on a real model: nobody gets another's text, nothing is lost, nothing leaks.

use std::io::{Read, Write};
use std::thread::scope;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{MODEL, Server, cached, http_request, shimmy, stderr};

fn greedy(prompt: &str, max_tokens: u32) -> Value {
    json!({ "model": MODEL, "prompt": prompt, "raw": true, "temperature": 0, "max_tokens": max_tokens, "ignore_eos": true })
}

fn ask(server: &Server, body: &Value) -> Value {
    let answer = server.post("/api/generate", body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn text(answer: &Value) -> String {
    answer["response"].as_str().unwrap().to_owned()
}

/// Asks for all of them at the same time.
fn ask_all(server: &Server, bodies: &[Value]) -> Vec<Value> {
    scope(|scope| {
        let threads: Vec<_> = bodies.iter().map(|body| scope.spawn(|| ask(server, body))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

const TOPICS: [&str; 8] = ["rivers", "mountains", "trains", "violins", "bread", "whales", "chess", "glass"];

#[test]
fn parallel_streams_equal_their_solo_runs_in_deterministic_mode() {
    let server = Server::with(&["--deterministic", "--parallel", "32", "--ctx-size", "8192"]);
    let bodies: Vec<Value> =
        (0..32).map(|n| greedy(&format!("{n} facts about {}:", TOPICS[n % 8]), 6 + n as u32 % 5)).collect();
    let solo: Vec<String> = bodies.iter().map(|body| text(&ask(&server, body))).collect();
    let together: Vec<String> = ask_all(&server, &bodies).iter().map(text).collect();
    assert_eq!(together, solo);
    assert!(solo.iter().collect::<std::collections::HashSet<_>>().len() > 8, "different prompts, different texts");
}

#[test]
fn canaries_stay_with_their_own_request() {
    let server = Server::start();
    let canary = |n: usize| format!("{}{}", ["QUARTZ", "MAMBO", "ZEPHYR", "FJORD"][n % 4], 1000 + 37 * n);
    let bodies: Vec<Value> = (0..16)
        .map(|n| {
            let word = canary(n);
            greedy(&format!("The password is {word}. Repeat: the password is {word}. Repeat: the password is"), 24)
        })
        .collect();
    let answers = ask_all(&server, &bodies);
    let mut repeated = 0;
    for (n, answer) in answers.iter().map(text).enumerate() {
        repeated += usize::from(answer.contains(&canary(n)));
        for other in (0..16).filter(|other| *other != n) {
            assert!(!answer.contains(&canary(other)), "request {n} says {answer:?}, which belongs to {other}");
        }
    }
    assert!(repeated >= 12, "only {repeated} of 16 repeat their own word, so the test would not see a leak");
}

#[test]
fn a_prefix_that_many_ask_for_at_once_is_computed_once() {
    let server = Server::start();
    let stem = "The old harbor town woke slowly under a grey sky, and the fishermen walked to their boats. ".repeat(12);
    let bodies: Vec<Value> = TOPICS.iter().map(|topic| greedy(&format!("{stem}They spoke of {topic}"), 4)).collect();
    let answers = ask_all(&server, &bodies);
    let sum = |field: &str| answers.iter().map(|answer| answer["usage"][field].as_u64().unwrap()).sum::<u64>();
    let (prompt, cached) = (sum("prompt_tokens"), sum("cached_tokens"));
    assert!(prompt - cached < prompt / 4, "{cached} of {prompt} prompt tokens were shared");
    // And what it gives is what an engine gives that shares nothing.
    let alone = Server::with(&["--deterministic", "--parallel", "4"]);
    for (body, answer) in bodies.iter().zip(&answers).take(3) {
        assert_eq!(text(answer), text(&ask(&alone, body)));
    }
}

/// Sliding-window attention: what is kept of an earlier prompt must do for a later one.
#[test]
fn gemma_says_the_same_with_a_hot_and_a_cold_cache() {
    let path = cached("gemma3-270m.q4_k_m.gguf");
    let body = |prompt: &str| json!({ "model": "gemma3-270m", "prompt": prompt, "temperature": 0, "max_tokens": 12 });
    // Longer than the window of 512 tokens.
    let stem = "Every morning the baker opens the shop, lights the oven and counts the loaves. ".repeat(45);
    let (first, second) = (format!("{stem}One day a bear"), format!("{stem}One day the mayor"));
    let server = || Server::with(&["--model", path.to_str().unwrap(), "--ctx-size", "2048"]);
    let cold: Vec<String> = [&first, &second].map(|prompt| text(&ask(&server(), &body(prompt)))).into();
    let hot = server();
    let answers: Vec<Value> = [&first, &second, &first].map(|prompt| ask(&hot, &body(prompt))).into();
    assert_eq!(answers.iter().map(text).collect::<Vec<_>>(), [cold[0].clone(), cold[1].clone(), cold[0].clone()]);
    for answer in &answers[1..] {
        assert!(answer["usage"]["cached_tokens"].as_u64().unwrap() > 600, "{answer}");
    }
}

#[test]
fn guessing_ahead_changes_speed_only() {
    let code = "fn area(w: f64, h: f64) -> f64 { w * h }\nfn volume(w: f64, h: f64, d: f64) -> f64 { w * h * d }\n";
    let body = greedy(&format!("{code}{code}fn area(w: f64,"), 40);
    let plain = text(&ask(&Server::start(), &body));
    let guessing = Server::with(&["--lookup", "8"]);
    assert_eq!(text(&ask(&guessing, &body)), plain);
    assert!(guessing.metric("shimmy_accepted_guesses_total", "") > 4.0, "{}", guessing.get("/metrics").text());
}

#[test]
fn a_drafting_model_changes_speed_only() {
    let bodies: Vec<Value> = TOPICS[..3].iter().map(|topic| greedy(&format!("All about {topic}:"), 60)).collect();
    let plain: Vec<String> = ask_all(&Server::start(), &bodies).iter().map(text).collect();
    // The same model under another name: whatever it says is right.
    let dir = tempfile::tempdir().unwrap();
    let twin = dir.path().join("twin.gguf");
    std::os::unix::fs::symlink(cached("smollm2-135m-instruct.q4_1.gguf"), &twin).unwrap();
    let server = Server::with(&["--draft-model", twin.to_str().unwrap(), "--draft-tokens", "5"]);
    assert_eq!(ask_all(&server, &bodies).iter().map(text).collect::<Vec<_>>(), plain);
    let (guessed, accepted) =
        ["shimmy_guessed_tokens_total", "shimmy_accepted_guesses_total"].map(|name| server.metric(name, "")).into();
    // How often it is asked depends on what that costs here; the first passes always have guesses where it is sure.
    assert!(accepted >= 3.0 && accepted > 0.8 * guessed, "{accepted} of {guessed}");
    let models = server.get("/api/models").json();
    let info = &models["models"][0]["info"];
    assert!(info["draft"].as_str().unwrap().ends_with("twin.gguf"), "{models}");
    let held = |part: &str| info["placement"]["devices"][0][part].as_u64().unwrap();
    assert!(held("draft_bytes") > held("weights_bytes"), "weights and a context: {models}");
}

#[test]
fn a_model_that_cannot_draft_is_refused_with_the_reason() {
    let gemma = cached("gemma3-270m.q4_k_m.gguf");
    let (gemma, smollm2) = (gemma.to_str().unwrap(), cached("smollm2-135m-instruct.q4_1.gguf"));
    let refused = |args: &[&str], why: &str| {
        let smollm2 = smollm2.to_str().unwrap();
        // A plan says so, too.
        for command in [&["plan", smollm2][..], &["generate", smollm2, "--prompt", "x"]] {
            let output = shimmy().args(command).args(["--draft-model", gemma]).args(args).output().unwrap();
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains(&format!("draft_model {gemma}: it cannot draft")) && said.contains(why), "{said}");
        }
    };
    refused(&[], "needs the same tokens: the model has 49152 tokens, this one 262144");
    refused(&["--deterministic"], "together with `deterministic`");
}

#[test]
fn requests_too_long_together_take_turns() {
    let server = Server::with(&["--ctx-size", "256"]);
    let bodies: Vec<Value> = TOPICS.iter().map(|topic| greedy(&format!("All about {topic}:"), 100)).collect();
    for answer in ask_all(&server, &bodies) {
        assert_eq!(answer["usage"]["completion_tokens"], 100, "{answer}");
    }
    assert!(server.metric("shimmy_preemptions_total", "") > 0.0);
    let too_long = server.post("/api/generate", &greedy(&"word ".repeat(300), 1));
    assert_eq!(too_long.status, 400);
    assert!(too_long.text().contains("the prompt has 301 tokens and the context holds 256"), "{}", too_long.text());
}

#[test]
fn hundreds_of_clients_that_leave_hold_nothing() {
    let server = Server::with(&["--queue", "500", "--ctx-size", "2048"]);
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..50 {
        let clients: Vec<_> = (0..10)
            .map(|_| {
                let prompt = "Tell me more about it. ".repeat(rng.usize(1..60));
                let mut body = greedy(&prompt, 500);
                body["stream"] = rng.bool().into();
                let mut stream = server.connect();
                stream
                    .write_all(&http_request("localhost", "POST", "/api/generate", &[], body.to_string().as_bytes()))
                    .unwrap();
                if rng.bool() {
                    stream.set_read_timeout(Some(Duration::from_millis(rng.u64(1..60)))).unwrap();
                    let _ = stream.read(&mut [0; 64]);
                }
                stream
            })
            .collect();
        std::thread::sleep(Duration::from_millis(rng.u64(0..60)));
        drop(clients);
    }
    for state in ["prefilling", "decoding", "paused"] {
        server.settles("shimmy_sequences", state, 0.0);
    }
    server.settles("shimmy_queue_length", "", 0.0);
    server.settles("shimmy_kv_cells", "running", 0.0);
    assert!(server.metric("shimmy_cancellations_total", "") >= 400.0);
    // And all of the cache can be had.
    let whole = ask(&server, &greedy(&"word ".repeat(2000), 1));
    assert_eq!(whole["usage"]["completion_tokens"], 1);
}

#[cfg(target_os = "linux")]
#[test]
fn memory_stays_flat_over_thousands_of_requests() {
    let server = Server::with(&["--ctx-size", "2048"]);
    let wave = |from: usize, requests: usize| {
        scope(|scope| {
            for client in 0..8 {
                let server = &server;
                scope.spawn(move || {
                    for n in (from + client..from + requests).step_by(8) {
                        ask(server, &greedy(&format!("{} {n}", TOPICS[n % 8]), 2));
                    }
                });
            }
        });
    };
    wave(0, 400);
    let before = server.resident_mb();
    wave(400, 1600);
    let after = server.resident_mb();
    assert!(after <= before + 8, "{before} MB after 400 requests, {after} MB after 2,000");
}

#[test]
fn other_number_formats_of_the_cache_work() {
    for options in
        [["--cache-type-k", "q8_0", "--cache-type-v", "q8_0"], ["--cache-type-k", "q8_0", "--flash-attn", "off"]]
    {
        let server = Server::with(&options);
        assert!(text(&ask(&server, &greedy("The capital of France is", 4))).starts_with(" Paris"));
    }
}
