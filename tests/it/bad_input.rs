//! Files and requests that cannot work: a clear error, the right code, and a process that lives.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{MODEL, Server, run, smollm2, stderr};

/// Runs `generate` on the file; returns the exit code and stderr.
fn generate(path: &Path) -> (Option<i32>, String) {
    let output = run(&["generate", path.to_str().unwrap(), "--prompt", "x", "--max-tokens", "1"]);
    (output.status.code(), stderr(&output))
}

fn written(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn files_that_are_no_model_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let model = std::fs::read(smollm2()).unwrap();
    let mut wrong_architecture = model[..4 << 20].to_vec();
    // The value of general.architecture, whose length stays the same.
    let at = wrong_architecture.windows(5).position(|w| w == b"llama").unwrap();
    wrong_architecture[at..at + 5].copy_from_slice(b"lxama");
    wrong_architecture.extend_from_slice(&model[4 << 20..]);
    let cases = [
        (dir.path().join("missing.gguf"), "no such file"),
        (written(dir.path(), "empty.gguf", b""), "not a gguf"),
        (written(dir.path(), "text.gguf", b"hello, I am no model"), "not a gguf"),
        (written(dir.path(), "cut.gguf", &model[..50_000_000]), "truncated"),
        (written(dir.path(), "header-cut.gguf", &model[..100_000]), "truncated"),
        (written(dir.path(), "architecture.gguf", &wrong_architecture), "lxama"),
    ];
    for (path, expected) in cases {
        let (code, message) = generate(&path);
        assert_eq!(code, Some(1), "{}: {message}", path.display());
        assert!(message.to_lowercase().contains(expected), "{}: {message}", path.display());
        let probe = run(&["probe", path.to_str().unwrap()]);
        assert_eq!(probe.status.code(), Some(2), "{}: {}", path.display(), stderr(&probe));
    }
}

#[test]
fn a_broken_model_is_a_502_and_the_server_lives() {
    let dir = tempfile::tempdir().unwrap();
    let model = std::fs::read(smollm2()).unwrap();
    written(dir.path(), "good.gguf", &model);
    written(dir.path(), "bad.gguf", &model);
    let server = {
        let mut command = crate::support::shimmy();
        command.args(["serve", "--bind", "127.0.0.1:0", "--model-dirs", dir.path().to_str().unwrap()]);
        Server::spawn(command)
    };
    let ask = |model: &str| server.post("/api/generate", &json!({ "model": model, "prompt": "Hi", "max_tokens": 1 }));
    assert_eq!(ask("good").status, 200);
    // What is broken when models are looked for is not served at all.
    written(dir.path(), "bad.gguf", &model[..50_000_000]);
    let bad = ask("bad");
    assert_eq!(bad.status, 502, "{}", bad.text());
    assert!(bad.text().contains("truncated"), "{}", bad.text());
    assert_eq!(ask("good").status, 200, "the loaded model is still there");
    assert_eq!(server.get("/health").json()["models"]["failed"], json!(["bad"]));
}

#[test]
fn a_prompt_beyond_the_context_is_refused_with_both_counts() {
    let server = Server::with(&["--ctx-size", "256"]);
    let prompt = "word ".repeat(400);
    let answer = server.post("/api/generate", &json!({ "model": MODEL, "prompt": prompt, "raw": true }));
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("has 401 tokens") || answer.text().contains("has 400 tokens"), "{}", answer.text());
    assert!(answer.text().contains("holds 256"), "{}", answer.text());
}

#[test]
fn bad_arguments_are_usage_errors() {
    for args in [
        &["generate", "x", "--prompt", "y", "--temperature", "hot"][..],
        &["--gpu-backend", "quantum", "gpu-info"],
        &["generate", "--prompt", "y"],
        &["--lora", "a.gguf:inf", "gpu-info"],
        &["--threads", "0", "gpu-info"],
    ] {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}: {}", stderr(&run(args)));
    }
}

#[test]
fn values_out_of_range_are_named() {
    let path = smollm2();
    for (flag, value, name) in
        [("--temperature", "NaN", "temperature"), ("--top-p", "2", "top_p"), ("--min-p", "inf", "min_p")]
    {
        let output = run(&["generate", path.to_str().unwrap(), "--prompt", "x", flag, value]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(name), "{}", stderr(&output));
    }
}

#[test]
fn a_prompt_that_is_not_utf8_is_refused() {
    use std::io::Write;
    let mut child = crate::support::shimmy()
        .args(["generate", smollm2().to_str().unwrap(), "--prompt", "-"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"ab\xff").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("not UTF-8: byte 2"), "{}", stderr(&output));
}

#[test]
fn an_unknown_model_says_what_is_known() {
    let dir = smollm2().parent().unwrap().to_owned();
    let output = run(&["--model-dirs", dir.to_str().unwrap(), "generate", "nothing", "--prompt", "x"]);
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(message.contains("model not found") && message.contains("smollm2:135m-instruct-q4_1"), "{message}");
}

#[test]
fn an_unknown_template_says_what_is_known() {
    let path = smollm2();
    let output = run(&["--template", "nonsense", "generate", path.to_str().unwrap(), "--prompt", "x"]);
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(message.contains("neither a file nor a known name") && message.contains("chatml"), "{message}");
}

#[test]
fn health_is_503_while_nothing_can_be_served() {
    let mut command = crate::support::shimmy();
    command.args(["serve", "--bind", "127.0.0.1:0"]);
    let server = Server::spawn(command);
    let health = server.get("/health");
    assert_eq!((health.status, &health.json()["status"]), (503, &json!("no models")));
    assert_eq!(server.get("/diag").status, 200);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let server = Server::start();
    let output = run(&["serve", "--bind", &server.address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&server.address), "{}", stderr(&output));
}
