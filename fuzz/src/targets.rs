//! What each fuzz target does with its bytes, and what it starts from. `tests/it/fuzzing.rs` runs the same in every test run.

use std::path::Path;

use shimmy::config;
use shimmy::gguf::{self, Header, writer};
use shimmy::library::{self, Facts};

/// A target's name, what it does, and what it starts from.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

pub const TARGETS: &[Target] = &[
    Target { name: "gguf_header", run: gguf_header, seeds: gguf_seeds },
    Target { name: "ollama_manifest", run: ollama_manifest, seeds: manifest_seeds },
    Target { name: "model_name", run: model_name, seeds: name_seeds },
    Target { name: "config_file", run: config_file, seeds: config_seeds },
];

/// Reading and checking a header neither panics nor needs more memory than the file is long, and skimming it gives the same
/// facts.
pub fn gguf_header(bytes: &[u8]) {
    let skimmed = Header::parse_skimming(bytes);
    let Ok(header) = Header::parse(bytes) else { return };
    let skimmed = skimmed.expect("what can be read can be skimmed");
    assert_eq!(Facts::of(&header), Facts::of(&skimmed));
    let _ = gguf::validate_outline(&skimmed);
    let _ = gguf::validate_model(&header);
    let _ = gguf::validate_adapter(&header, &header);
    let _ = gguf::shards(&header);
    let _ = header.kv_elements_per_token();
}

/// Whatever a manifest says, its blobs are names of files in one folder.
pub fn ollama_manifest(bytes: &[u8]) {
    let Ok(manifest) = library::pull::Manifest::parse(bytes) else { return };
    for layer in manifest.blobs() {
        let name = layer.digest.file_name();
        let hex = name.strip_prefix("sha256-").expect("a digest");
        assert!(hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hex}");
    }
}

/// Any file name gives a name, and any name can be asked for.
pub fn model_name(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let name = library::name_from_path(Path::new(text));
    let near = library::nearest(text, [name.as_str()]);
    assert!(near.len() <= 1);
    assert!(!library::untagged(&name).is_empty() || name.is_empty() || name == ":latest");
}

/// A config file is understood, and what is written of it says the same; or all that is wrong with it has a place in it.
pub fn config_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match config::parse(&text) {
        Ok(settings) => assert_eq!(config::parse(&config::print(&settings)), Ok(settings)),
        Err(error) => {
            assert!(!error.problems().is_empty(), "{error}");
            let lines: Vec<&str> = text.split('\n').collect();
            for problem in error.problems() {
                let line = problem.line.checked_sub(1).and_then(|at| lines.get(at)).expect("a line of the file");
                assert!((1..=line.chars().count() + 1).contains(&problem.column), "{problem}");
                assert!(
                    problem.to_string().starts_with(&format!("{}:{}: ", problem.line, problem.column)),
                    "{problem}"
                );
                assert!(!problem.message.trim().is_empty());
            }
        }
    }
}

fn gguf_seeds() -> Vec<Vec<u8>> {
    let mut projector = writer::Writer::new();
    projector.string("general.architecture", "clip").u32("clip.vision.projection_dim", 32);
    let mut seeds = vec![writer::tiny_llama(), writer::tiny_lora(), projector];
    seeds.extend(writer::tiny_llama().split(3));
    // Of the weights nothing is read.
    let header = |seed: &writer::Writer| {
        let mut bytes = seed.to_bytes();
        bytes.truncate(16 << 10);
        bytes
    };
    seeds.iter().map(header).collect()
}

fn manifest_seeds() -> Vec<Vec<u8>> {
    let digest = "0123456789abcdef".repeat(4);
    let layer = |kind: &str| {
        format!(r#"{{"mediaType":"application/vnd.ollama.image.{kind}","digest":"sha256:{digest}","size":1}}"#)
    };
    let layers = ["model", "template", "params", "projector"].map(layer).join(",");
    vec![format!(r#"{{"schemaVersion":2,"layers":[{layers}]}}"#).into_bytes(), b"{}".to_vec()]
}

fn name_seeds() -> Vec<Vec<u8>> {
    ["Qwen2.5-Coder-0.5B-Q4_K_M.gguf", "a-00001-of-00003.gguf", "me/x:latest"].map(|name| name.into()).to_vec()
}

/// The examples of the documentation, with what they leave out of force and without.
fn config_seeds() -> Vec<Vec<u8>> {
    let documentation = include_str!("../../docs/configuration.md");
    let blocks = documentation.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let forms = |block: &str| [block.to_owned(), block.replace("#: ", ""), block.replace('\n', "\r\n")];
    blocks.flat_map(forms).map(String::into_bytes).collect()
}
