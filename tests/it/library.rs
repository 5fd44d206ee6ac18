//! The folders of other programs, laid out as they lay them out, through the real binary.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use shimmy::gguf::writer::{Writer, tiny_llama, tiny_lora};

use crate::support::{Server, shimmy, stderr, stdout};

/// A home directory with models of several programs in it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        home.hub();
        home.ollama();
        home.lm_studio();
        for (number, part) in (1..).zip(tiny_llama().split(3)) {
            home.write(&format!("big/Big-3B-Q8_0-{number:05}-of-00003.gguf"), &part.to_bytes());
        }
        home
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Two revisions that share a blob, and a projector.
    fn hub(&self) {
        let root = ".cache/huggingface/hub/models--Lab--Tiny-1B-GGUF";
        let mut projector = Writer::new();
        projector.string("general.architecture", "clip").u32("clip.vision.projection_dim", 32);
        let mut tiny = tiny_llama();
        tiny.string("general.name", "Tiny 1B").string("tokenizer.chat_template", "{{ messages }}{{ tools }}");
        self.write(&format!("{root}/blobs/aaaa"), &tiny.to_bytes());
        self.write(&format!("{root}/blobs/bbbb"), &projector.to_bytes());
        self.write(&format!("{root}/refs/main"), b"new");
        for revision in ["old", "new"] {
            let folder = self.at(&format!("{root}/snapshots/{revision}"));
            fs::create_dir_all(&folder).unwrap();
            symlink("../../blobs/aaaa", folder.join("Tiny-1B-Q4_K_M.gguf")).unwrap();
            symlink("../../blobs/bbbb", folder.join("mmproj-F16.gguf")).unwrap();
        }
    }

    /// Two models of the same weights, one with more layers than the other.
    fn ollama(&self) {
        let blob = |n: u8, bytes: &[u8]| self.write(&format!(".ollama/models/blobs/sha256-{n:064x}"), bytes);
        blob(1, &[tiny_llama().to_bytes(), vec![0; 4096]].concat());
        blob(2, b"{{ .Prompt }}");
        blob(3, b"You are a pirate.");
        blob(4, br#"{"temperature":0.5,"stop":["Arr"]}"#);
        blob(5, &tiny_lora().to_bytes());
        let manifest = |name: &str, layers: &[(&str, u8)]| {
            let layer = |(kind, n): &(&str, u8)| json!({ "mediaType": format!("application/vnd.ollama.image.{kind}"), "digest": format!("sha256:{n:064x}"), "size": 1 });
            let layers: Vec<_> = layers.iter().map(layer).collect();
            let bytes = json!({ "schemaVersion": 2, "layers": layers }).to_string();
            self.write(&format!(".ollama/models/manifests/registry/{name}"), bytes.as_bytes());
        };
        manifest("library/Parrot/latest", &[("model", 1), ("template", 2)]);
        let all = [("model", 1), ("template", 2), ("system", 3), ("params", 4), ("adapter", 5)];
        manifest("me/pirate/7b", &all);
    }

    fn lm_studio(&self) {
        self.write(".lmstudio/models/someone/Other-2B-GGUF/Other-2B-Q6_K.gguf", &tiny_llama().to_bytes());
    }

    fn command(&self) -> Command {
        let mut command = shimmy();
        command
            .env("HOME", self.0.path())
            .env("OLLAMA_MODELS", self.at(".ollama/models"))
            .env("SHIMMY_MODEL_PATHS", self.at("big"))
            .current_dir(self.0.path());
        command
    }

    fn run(&self, args: &[&str]) -> String {
        let output = self.command().args(args).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(args)).unwrap()
    }
}

fn is_stub(model: &Value) -> bool {
    model["name"].as_str().unwrap().starts_with("stub")
}

const NAMES: [&str; 5] = ["big:3b-q8_0", "me/pirate:7b", "other:2b-q6_k", "parrot:latest", "tiny:1b-q4_k_m"];

#[test]
fn models_of_all_programs_are_listed_once_with_what_they_take() {
    let home = Home::new();
    let listed = home.json(&["list", "--json"]);
    let models: Vec<_> = listed["models"].as_array().unwrap().iter().filter(|model| !is_stub(model)).collect();
    let names: Vec<_> = models.iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert_eq!(names, NAMES);
    let size = |name: &str| fs::metadata(home.at(name)).unwrap().len();
    let hub = ".cache/huggingface/hub/models--Lab--Tiny-1B-GGUF/blobs";
    let big: u64 = (1..=3).map(|n| size(&format!("big/Big-3B-Q8_0-{n:05}-of-00003.gguf"))).sum();
    let blob = |n: u8| size(&format!(".ollama/models/blobs/sha256-{n:064x}"));
    let other = size(".lmstudio/models/someone/Other-2B-GGUF/Other-2B-Q6_K.gguf");
    let all = big + blob(1) + blob(5) + other + size(&format!("{hub}/aaaa")) + size(&format!("{hub}/bbbb"));
    assert_eq!(listed["disk_bytes"], all, "the weights of two names count once");
    assert_eq!(models[0]["size_bytes"], big);
    assert_eq!(models[0]["shards"], json!({ "total": 3, "present": 3 }));
    assert_eq!(models[1]["size_bytes"], models[3]["size_bytes"]);
    assert_eq!(models[4]["capabilities"], json!(["completion", "chat", "tools", "vision"]));
    assert!(models[4]["projector"].as_str().unwrap().ends_with("snapshots/new/mmproj-F16.gguf"));

    let table = home.run(&["list"]);
    let row = table.lines().find(|line| line.starts_with("tiny:1b-q4_k_m")).unwrap();
    assert!(row.ends_with("llama         chat tools vision") || row.contains("chat tools vision"), "{table}");
    assert!(table.trim_end().ends_with("on disk") && table.contains("5 models, 1 projector, 1 adapter: "), "{table}");
}

#[test]
fn a_model_is_shown_under_each_of_its_names() {
    let home = Home::new();
    for name in
        ["tiny:1b-q4_k_m", "TINY:1B", "tiny-1b", "tiny-1b-q4_k_m", "lab/tiny-1b-gguf", "lab/tiny-1b-gguf:q4_k_m"]
    {
        let shown = home.json(&["show", name, "--json"]);
        assert_eq!(shown["name"], "tiny:1b-q4_k_m", "{name}");
        assert_eq!(shown["template"], "{{ messages }}{{ tools }}");
        assert!(shown["path"].as_str().unwrap().ends_with("snapshots/new/Tiny-1B-Q4_K_M.gguf"));
    }
    assert_eq!(home.json(&["show", "parrot", "--json"])["ollama"]["template"], "{{ .Prompt }}");
    let pirate = home.json(&["show", "me/pirate:7b", "--json"]);
    assert_eq!(pirate["ollama"]["system"], "You are a pirate.");
    assert_eq!(pirate["ollama"]["parameters"], json!({ "temperature": 0.5, "stop": ["Arr"] }));
    assert_eq!(pirate["ollama"]["adapters"].as_array().unwrap().len(), 1);
    let text = home.run(&["show", "me/pirate:7b"]);
    assert!(text.contains("Ollama system   You are a pirate.") && text.contains("with adapter"), "{text}");
}

#[test]
fn a_near_miss_is_told_the_right_name() {
    let home = Home::new();
    let output = home.command().args(["show", "tinny:1b-q4_k_m"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("did you mean \"tiny:1b-q4_k_m\"?"), "{}", stderr(&output));
}

#[test]
fn a_missing_shard_is_named() {
    let home = Home::new();
    fs::remove_file(home.at("big/Big-3B-Q8_0-00002-of-00003.gguf")).unwrap();
    let lack = "big:3b-q8_0: 1 of 3 files missing: Big-3B-Q8_0-00002-of-00003.gguf";
    let table = home.run(&["list"]);
    assert!(table.lines().any(|line| line == lack), "{table}");
}

#[test]
fn what_cannot_be_used_is_told_and_keeps_nothing_else_from_being_found() {
    let home = Home::new();
    home.write("big/cut.gguf", &tiny_llama().to_bytes()[..40_000]);
    assert!(Command::new("mkfifo").arg(home.at("big/pipe.gguf")).status().unwrap().success());
    symlink(home.at("big"), home.at("big/again")).unwrap();
    let found = home.json(&["discover", "--json"]);
    assert_eq!(found["models"].as_array().unwrap().len(), NAMES.len());
    let problems = found["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0]["what"].as_str().unwrap().starts_with("truncated"));
    assert!(home.run(&["discover"]).contains("NOT USED"));
}

/// It lies beside the model, and makes nobody see.
#[test]
fn a_projector_for_sound_alone_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("hears-1b.gguf");
    tiny_llama().write(&model).unwrap();
    let mut sound = Writer::new();
    sound
        .string("general.architecture", "clip")
        .string("general.type", "mmproj")
        .string("clip.projector_type", "ultravox");
    sound
        .bool("clip.has_vision_encoder", false)
        .bool("clip.has_audio_encoder", true)
        .u32("clip.audio.projection_dim", 32);
    sound.random("a.conv1d.1.weight", &[3, 8, 8], 0.0).write(&dir.path().join("mmproj-hears-1b.gguf")).unwrap();
    let run = |args: &[&str]| {
        let output = shimmy().args(["--model-dirs", dir.path().to_str().unwrap()]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        (stdout(&output), stderr(&output))
    };
    let capabilities = || {
        let listed: Value = serde_json::from_str(&run(&["list", "--json"]).0).unwrap();
        let found = listed["models"].as_array().unwrap().iter().find(|found| found["path"] == model.to_str().unwrap());
        found.unwrap_or_else(|| panic!("{listed}"))["capabilities"].clone()
    };
    assert_eq!(capabilities(), json!(["completion"]));
    if cfg!(feature = "llama") {
        let (_, log) = run(&["generate", model.to_str().unwrap(), "--prompt", "hi", "--max-tokens", "2"]);
        assert!(!log.contains("projector"), "{log}");
    }
    // Nor does it hide one for images, which comes behind it by name and by format.
    sound
        .string("clip.projector_type", "gemma3")
        .bool("clip.has_vision_encoder", true)
        .bool("clip.has_audio_encoder", false)
        .u32("clip.vision.projection_dim", 32);
    sound.write(&dir.path().join("mmproj-hears-1b-f32.gguf")).unwrap();
    std::fs::rename(dir.path().join("mmproj-hears-1b.gguf"), dir.path().join("mmproj-hears-1b-f16.gguf")).unwrap();
    assert_eq!(capabilities(), json!(["completion", "vision"]));
}

#[test]
fn all_apis_tell_the_same_facts() {
    let home = Home::new();
    let mut command = home.command();
    command.args(["serve", "--bind", "127.0.0.1:0"]);
    let server = Server::spawn(command);
    let tags = server.get("/api/tags").json();
    let tiny = tags["models"].as_array().unwrap().iter().find(|model| model["name"] == "tiny:1b-q4_k_m").unwrap();
    let listed = home.json(&["list", "--json"]);
    let same = listed["models"].as_array().unwrap().iter().find(|model| model["name"] == "tiny:1b-q4_k_m").unwrap();
    assert_eq!(tiny["details"]["quantization_level"], same["quantization"]);
    assert_eq!(tiny["size"], same["size_bytes"]);
    let shown = server.post("/api/show", &json!({ "model": "tiny-1b" })).json();
    assert_eq!(shown["capabilities"], json!(["completion", "tools", "vision"]));
    assert_eq!(shown["template"], "{{ messages }}{{ tools }}");
    let api = server.get("/api/models").json();
    let model = api["models"].as_array().unwrap().iter().find(|model| model["name"] == "tiny:1b-q4_k_m").unwrap();
    assert_eq!(model["capabilities"], same["capabilities"]);
    let unknown = server.post("/api/generate", &json!({ "model": "tinny-1b", "prompt": "x" }));
    assert_eq!(unknown.status, 404);
    assert!(unknown.text().contains("did you mean"), "{}", unknown.text());
}

/// The shards lie in a folder of the user's, the other in a hub's cache.
#[cfg(feature = "llama")]
#[test]
fn what_was_found_answers() {
    let home = Home::new();
    for name in ["big-3b", "lab/tiny-1b-gguf", "parrot", "me/pirate:7b"] {
        let report = home.json(&["generate", name, "--prompt", "abc", "--raw", "--max-tokens", "4", "--json"]);
        assert!(report["usage"]["completion_tokens"].as_u64().unwrap() > 0, "{name}: {report}");
    }
}

#[test]
fn three_shards_are_read_as_the_whole_is() {
    let home = Home::new();
    let whole = home.write("whole.gguf", &tiny_llama().to_bytes());
    let facts = |path: &Path| {
        let shown = home.json(&["show", path.to_str().unwrap(), "--json"]);
        ["parameters", "quantization", "architecture", "trained_context_tokens"].map(|key| shown[key].clone())
    };
    assert_eq!(facts(&whole), facts(&home.at("big/Big-3B-Q8_0-00001-of-00003.gguf")));
}
