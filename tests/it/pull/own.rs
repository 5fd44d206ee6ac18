//! `shimmy rm` and `shimmy cp` on shimmy's own folder, with the real program.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use shimmy::gguf::writer::tiny_llama;

use super::server::Fake;
use super::{fetch, files, model, settings};
use crate::support::{shimmy, stderr, stdout};

/// A cache with shimmy's folder in it, and a store of Ollama's.
pub struct Machine {
    pub fake: Fake,
    pub dir: tempfile::TempDir,
}

impl Machine {
    pub fn new() -> Self {
        Self { fake: Fake::start(), dir: tempfile::tempdir().unwrap() }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("shimmy/models")
    }

    pub fn pull(&self, name: &str, weights: &[u8]) {
        self.fake.ollama(&format!("library/{name}"), "latest", &[("model", weights), ("license", b"free")]);
        fetch(&format!("ollama:{name}"), &settings(&self.root(), &self.fake)).unwrap();
    }

    pub fn ollama(&self, name: &str) {
        let root = self.dir.path().join("ollama");
        let digest = shimmy::library::pull::Digest::of(b"whatever");
        let write = |path: PathBuf, bytes: &[u8]| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        write(root.join("blobs").join(digest.file_name()), &tiny_llama().to_bytes());
        let layer = json!({ "mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": 1 });
        let manifest = json!({ "schemaVersion": 2, "layers": [layer] }).to_string();
        write(root.join("manifests/registry.ollama.ai/library").join(name).join("latest"), manifest.as_bytes());
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = shimmy();
        command.env("XDG_CACHE_HOME", self.dir.path()).env("OLLAMA_MODELS", self.dir.path().join("ollama")).args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let output = self.command(args).output().unwrap();
        (output.status.code(), stdout(&output), stderr(&output))
    }

    pub fn listed(&self) -> Vec<String> {
        let (_, names, _) = self.run(&["list", "--short"]);
        names.lines().filter(|name| !name.starts_with("stub")).map(str::to_owned).collect()
    }
}

fn bytes(root: &Path) -> u64 {
    files(root, "blobs").iter().map(|file| root.join(file).metadata().unwrap().len()).sum()
}

#[test]
fn a_copy_costs_nothing_and_removing_frees_what_nobody_else_needs() {
    let machine = Machine::new();
    let weights = model(1, 1);
    machine.pull("first", &weights);
    let before = bytes(&machine.root());
    assert_eq!(machine.run(&["cp", "first", "Me/Second:1"]), (Some(0), "me/second:1\n".into(), String::new()));
    assert_eq!(machine.listed(), ["first:latest", "me/second:1"]);
    assert_eq!(bytes(&machine.root()), before);
    let (code, said, _) = machine.run(&["rm", "first", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, said), (Some(0), json!({ "status": "removed", "name": "first:latest", "freed_bytes": 0 })));
    assert_eq!(machine.listed(), ["me/second:1"]);
    let (code, said, _) = machine.run(&["rm", "ME/second:1"]);
    assert_eq!((code, said.as_str()), (Some(0), "removed me/second:1: 1.2 MB freed\n"));
    assert!(machine.listed().is_empty() && files(&machine.root(), "blobs").is_empty());
}

#[test]
fn what_is_not_ours_is_not_touched_and_the_rest_is_done() {
    let machine = Machine::new();
    machine.pull("mine", &model(1, 1));
    machine.ollama("theirs");
    let file = machine.root().join("plain.gguf");
    tiny_llama().write(&file).unwrap();
    let (code, said, reason) = machine.run(&["rm", "theirs", "plain", "nothing", "mine"]);
    assert_eq!(code, Some(1));
    assert!(said.starts_with("removed mine:latest: "), "{said}");
    let reasons: Vec<&str> = reason.lines().collect();
    assert_eq!(reasons.len(), 3, "{reason}");
    for word in ["theirs:latest is not in shimmy's own folder", "ollama/blobs/sha256-", "OLLAMA_MODELS", "`ollama rm`"]
    {
        assert!(reasons[0].contains(word), "{}", reasons[0]);
    }
    assert!(reasons[1].contains(file.to_str().unwrap()), "{}", reasons[1]);
    assert!(reasons[2].contains("model not found: \"nothing\""), "{}", reasons[2]);
    assert_eq!(machine.listed(), ["plain", "theirs:latest"]);
    let (code, _, reason) = machine.run(&["cp", "theirs", "stolen"]);
    assert!(code == Some(1) && reason.contains("`ollama cp`"), "{reason}");
    let (code, _, reason) = machine.run(&["cp", "plain", "a/b/c/d"]);
    assert!(code == Some(1) && reason.contains("three parts"), "{reason}");
    assert_eq!(machine.run(&["rm"]).0, Some(2), "of what?");
}

/// As for a server, whose name it is not to take away.
#[test]
fn a_model_of_the_config_file_is_not_removed() {
    let machine = Machine::new();
    machine.pull("mine", &model(1, 1));
    let config = machine.dir.path().join("shimmy.toml");
    std::fs::write(&config, "[models.\"mine:latest\"]\nqueue = 2\n").unwrap();
    let (code, _, reason) = machine.run(&["--config", config.to_str().unwrap(), "rm", "mine"]);
    assert!(code == Some(1) && reason.contains("mine:latest is a model of the config file"), "{reason}");
    assert_eq!(machine.listed(), ["mine:latest"]);
}

/// It is no longer listed, and yet takes space.
#[test]
fn a_model_that_lost_its_weights_can_be_removed() {
    let machine = Machine::new();
    let weights = model(1, 1);
    machine.pull("broken", &weights);
    let digest = shimmy::library::pull::Digest::of(&weights);
    std::fs::remove_file(machine.root().join("blobs").join(digest.file_name())).unwrap();
    assert!(machine.listed().is_empty());
    let (code, said, reason) = machine.run(&["rm", "broken"]);
    assert_eq!(code, Some(0), "{reason}");
    assert!(said.starts_with("removed broken:latest: "), "{said}");
    assert!(files(&machine.root(), "blobs").is_empty());
}

#[test]
fn what_pulls_left_behind_is_removed_when_asked() {
    let machine = Machine::new();
    machine.pull("whole", &model(1, 1));
    let partial = machine.root().join("partial");
    std::fs::write(partial.join("sha256-half"), vec![0; 1000]).unwrap();
    std::fs::write(partial.join("sha256-half.json"), "{}").unwrap();
    assert_eq!(
        machine.run(&["rm", "--unfinished"]),
        (Some(0), "removed what was unfinished: 1.0 kB freed\n".into(), String::new())
    );
    assert_eq!((machine.listed(), files(&machine.root(), "partial").len()), (vec!["whole:latest".to_owned()], 0));
}
