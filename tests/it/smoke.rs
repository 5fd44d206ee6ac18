//! What must hold on every llama.cpp revision that we claim to build with.

use serde_json::{Value, json};

use crate::support::{MODEL, Server, run, shimmy, smollm2, stderr, stdout};

/// The sentence that SmolLM2 is sure how to go on with.
const PARIS: &str = "The capital of France is";

fn generate(more: &[&str]) -> String {
    let path = smollm2();
    let output = run(&[&["generate", path.to_str().unwrap(), "--prompt", PARIS, "--raw"], more].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

#[test]
fn smoke_greedy_text_is_right() {
    assert!(generate(&["--temperature", "0", "--max-tokens", "4"]).starts_with(" Paris"));
}

#[test]
fn smoke_a_seed_gives_the_same_text_again_and_another_seed_another() {
    let text = |seed| generate(&["--max-tokens", "24", "--temperature", "1.2", "--seed", seed]);
    assert_eq!(text("11"), text("11"));
    assert_ne!(text("11"), text("12"));
}

#[test]
fn smoke_every_sampling_option_is_accepted_together() {
    let text = generate(&[
        "--max-tokens",
        "8",
        "--seed",
        "3",
        "--top-k",
        "20",
        "--top-p",
        "0.9",
        "--min-p",
        "0.02",
        "--typical-p",
        "0.9",
        "--repeat-penalty",
        "1.1",
        "--frequency-penalty",
        "0.1",
        "--presence-penalty",
        "0.1",
    ]);
    assert!(!text.trim().is_empty());
}

#[test]
fn smoke_a_repeat_penalty_changes_greedy_text() {
    let plain = generate(&["--temperature", "0", "--max-tokens", "48"]);
    let penalised = generate(&["--temperature", "0", "--max-tokens", "48", "--repeat-penalty", "1.8"]);
    assert_ne!(plain, penalised);
}

#[test]
fn smoke_a_stop_string_ends_the_text_before_it() {
    let text = generate(&["--temperature", "0", "--max-tokens", "16", "--stop", "aris"]);
    assert_eq!(text.trim_end_matches('\n'), " P");
}

#[test]
fn smoke_the_models_own_template_and_a_built_in_one_are_used() {
    let path = smollm2();
    let ask = |template: &[&str]| -> Value {
        let args =
            [&["generate", path.to_str().unwrap(), "--prompt", "Hi", "--max-tokens", "1", "--json"], template].concat();
        let output = run(&args);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    // SmolLM2's own template puts a system turn in front; plain ChatML does not.
    let own = ask(&[])["usage"]["prompt_tokens"].as_u64().unwrap();
    let chatml = ask(&["--template", "chatml"])["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(chatml > 4 && own > chatml + 10, "own {own}, chatml {chatml}");
    let jinja = ask(&["--template", "{% for m in messages %}{{ m.content }}{% endfor %}"]);
    assert_eq!(jinja["usage"]["prompt_tokens"], 1, "only `Hi` is left");
}

#[test]
fn smoke_the_server_streams() {
    let server = Server::start();
    let body =
        json!({ "model": MODEL, "prompt": PARIS, "raw": true, "max_tokens": 2, "temperature": 0, "stream": true });
    let answer = server.post("/api/generate", &body);
    assert_eq!((answer.status, answer.text().as_str()), (200, "data:  Paris\n\ndata: .\n\ndata: [DONE]\n\n"));
}

#[test]
fn smoke_gpu_info_names_the_revision_and_the_cpu() {
    let output = shimmy().args(["gpu-info", "--json"]).output().unwrap();
    let info: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(!info["llama_cpp"].as_str().unwrap().is_empty());
    assert!(info["system"]["registered"].as_array().unwrap().iter().any(|name| name == "CPU"), "{info}");
}

/// llama.cpp fills a new cache with zeros, which would make all of it resident.
#[cfg(target_os = "linux")]
#[test]
fn a_cache_takes_memory_only_as_it_fills() {
    let info = run(&["gpu-info", "--json"]);
    if !stdout(&info).contains("\"AVX512\"") {
        eprintln!("not checked: pages are given back by the device for AVX-512 only");
        return;
    }
    let mut command = shimmy();
    command.args(["--gpu-backend", "cpu", "--ctx-size", "32768", "serve", "--bind", "127.0.0.1:0"]);
    command.args(["--model", smollm2().to_str().unwrap()]);
    let server = Server::spawn(command);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let kilobytes = |key: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    // The cache alone has 755 MB.
    assert!(kilobytes("VmHWM:") > 755_000, "llama.cpp did fill it: {status}");
    assert!(kilobytes("VmRSS:") < 400_000, "{status}");
}
