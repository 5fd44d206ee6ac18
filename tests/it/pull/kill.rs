//! The real program, ended by force at any moment.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::server::{Fake, Fault};
use super::{files, model};
use crate::support::{shimmy, stderr, stdout};

fn pull(cache: &Path, fake: &Fake, source: &str) -> Command {
    let mut command = shimmy();
    command.env("XDG_CACHE_HOME", cache).env("HF_ENDPOINT", &fake.address).env("NO_PROXY", "127.0.0.1");
    command.args(["pull", source]);
    command
}

fn listed(cache: &Path) -> Vec<String> {
    let output = shimmy().env("XDG_CACHE_HOME", cache).args(["list", "--short"]).output().unwrap();
    stdout(&output).lines().filter(|name| !name.starts_with("stub")).map(str::to_owned).collect()
}

#[test]
fn a_pull_that_is_killed_again_and_again_ends_with_the_same_bytes() {
    let (fake, cache) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = model(8, 1);
    fake.repository("Org/M-GGUF", &[("M-Q4_0.gguf", &bytes)]);
    // Half a second at least.
    fake.always(Some(Fault::Slow(Duration::from_millis(1))));
    let mut kills = 0;
    for _ in 0..40 {
        let mut child =
            pull(cache.path(), &fake, "hf:Org/M-GGUF").stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(fastrand::u64(20..500)));
        let ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        if ended {
            break;
        }
        kills += 1;
        let there = listed(cache.path());
        let whole = !files(cache.path(), "shimmy/models/manifests").is_empty();
        assert_eq!(there, if whole { vec!["org/m-gguf:q4_0"] } else { vec![] }, "half of it is not listed");
    }
    assert!(kills > 0, "it was never interrupted");
    let output = pull(cache.path(), &fake, "hf:Org/M-GGUF").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "org/m-gguf:q4_0\n");
    assert_eq!(listed(cache.path()), ["org/m-gguf:q4_0"]);
    let blobs = files(cache.path(), "shimmy/models/blobs");
    let contents: Vec<Vec<u8>> = blobs.iter().map(|blob| std::fs::read(cache.path().join(blob)).unwrap()).collect();
    assert!(contents.contains(&bytes), "the same bytes");
    assert!(files(cache.path(), "shimmy/models/partial").is_empty());
}

#[test]
fn what_is_there_is_not_fetched_again_after_a_kill() {
    let (fake, cache) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = model(40, 1);
    fake.repository("Org/M-GGUF", &[("M-Q4_0.gguf", &bytes)]);
    fake.always(Some(Fault::Slow(Duration::from_millis(2))));
    let mut child =
        pull(cache.path(), &fake, "hf:Org/M-GGUF").stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let note = || files(cache.path(), "shimmy/models/partial").into_iter().find(|file| file.ends_with(".json"));
    let done = loop {
        std::thread::sleep(Duration::from_millis(20));
        assert!(child.try_wait().unwrap().is_none(), "it was too fast");
        let text = note().map(|note| std::fs::read(cache.path().join(note)).unwrap_or_default());
        let noted: serde_json::Value = serde_json::from_slice(&text.unwrap_or_default()).unwrap_or_default();
        let done = noted["done"].as_array().cloned().unwrap_or_default();
        if !done.is_empty() {
            break done;
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    fake.always(None);
    let before = fake.asked().len();
    assert!(pull(cache.path(), &fake, "hf:Org/M-GGUF").output().unwrap().status.success());
    let first_missing = done[0][1].as_u64().unwrap();
    let asked = fake.asked()[before..].iter().find_map(|asked| asked.headers.get("range").cloned()).unwrap();
    let start: u64 = asked.to_str().unwrap()["bytes=".len()..].split('-').next().unwrap().parse().unwrap();
    assert!(done[0][0] == 0 && start >= first_missing, "asked for {start}, {first_missing} were there");
}

#[test]
fn a_source_of_the_config_file_is_what_was_fetched_from_there() {
    let (fake, cache) = (Fake::start(), tempfile::tempdir().unwrap());
    fake.repository("Org/M-GGUF", &[("M-Q4_0.gguf", &model(1, 1))]);
    let config = cache.path().join("config.toml");
    std::fs::write(&config, "[models.mine]\nsource = 'hf:Org/M-GGUF:Q4_0'\n").unwrap();
    let path = || {
        let args = ["list", "--json", "--config", config.to_str().unwrap()];
        let output = shimmy().env("XDG_CACHE_HOME", cache.path()).args(args).output().unwrap();
        let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let mine = listed["models"].as_array().unwrap().iter().find(|model| model["name"] == "mine").cloned();
        mine.unwrap()["path"].as_str().map(str::to_owned)
    };
    assert_eq!(path(), None, "it is not there yet");
    assert!(pull(cache.path(), &fake, "hf:Org/M-GGUF:Q4_0").output().unwrap().status.success());
    assert!(path().unwrap().contains("/blobs/"));
}

#[test]
fn events_are_lines_of_json_and_errors_end_with_one() {
    let (fake, cache) = (Fake::start(), tempfile::tempdir().unwrap());
    fake.repository("Org/M-GGUF", &[("M-Q4_0.gguf", &model(1, 1))]);
    let run = |source: &str| {
        let output = pull(cache.path(), &fake, source).arg("--json").output().unwrap();
        let lines =
            stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>();
        (output.status.code(), lines)
    };
    let (code, lines) = run("hf:Org/M-GGUF");
    assert_eq!(code, Some(0));
    assert_eq!(lines[0]["status"], "pulling manifest");
    assert!(lines.iter().any(|line| line["status"] == "pulling M-Q4_0.gguf" && line["total"] == line["completed"]));
    let last = lines.last().unwrap();
    assert_eq!((last["status"].as_str(), last["name"].as_str()), (Some("success"), Some("org/m-gguf:q4_0")));
    assert!(Path::new(last["path"].as_str().unwrap()).is_file());
    let (code, lines) = run("hf:Org/M-GGUF:Q8_0");
    assert_eq!(code, Some(1));
    assert!(lines.last().unwrap()["error"].as_str().unwrap().contains("there are: Q4_0"));
}

#[test]
fn without_a_terminal_progress_is_plain_lines() {
    let (fake, cache) = (Fake::start(), tempfile::tempdir().unwrap());
    fake.repository("Org/M-GGUF", &[("M-Q4_0.gguf", &model(1, 1))]);
    let output = pull(cache.path(), &fake, "hf:Org/M-GGUF").output().unwrap();
    let text = stderr(&output);
    assert!(text.contains("pulling M-Q4_0.gguf: ") && text.contains("verifying M-Q4_0.gguf"), "{text}");
    assert!(!text.contains('\r') && !text.contains('\u{1b}'), "{text:?}");
    let nowhere = shimmy().args(["pull", "hf:nothing"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(stderr(&nowhere).contains("hf:ORG/REPO"), "{}", stderr(&nowhere));
}
