//! LoRA adapters from the command line and the environment.

use shimmy::gguf::writer::lora;

use crate::support::tiny::Files;
use crate::support::{shimmy, smollm2, stderr, stdout};

/// An adapter for SmolLM2 that changes what it says.
fn adapter(files: &Files) -> String {
    let writer = lora("llama", "blk.0.attn_q.weight", [576, 576], 2.0);
    files.write("lora.gguf", &writer).to_str().unwrap().to_owned()
}

fn generate(configure: impl FnOnce(&mut std::process::Command)) -> String {
    let mut command = shimmy();
    configure(&mut command);
    let output = command
        .args(["--prompt", "The capital of France is", "--raw", "--temperature", "0", "--max-tokens", "12"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

#[test]
fn an_adapter_changes_the_text_and_its_scale_counts() {
    let files = Files::new();
    let (model, adapter) = (smollm2(), adapter(&files));
    let with = |lora: &str| {
        generate(|command| {
            command.args(["--lora", lora, "generate"]).arg(&model);
        })
    };
    let plain = generate(|command| {
        command.arg("generate").arg(&model);
    });
    assert_ne!(with(&adapter), plain);
    assert_ne!(with(&format!("{adapter}:0.05")), with(&adapter));
    assert_eq!(with(&format!("{adapter}:0")), plain, "a scale of 0 changes nothing");
}

#[test]
fn the_environments_adapter_belongs_to_its_base() {
    let files = Files::new();
    let adapter = adapter(&files);
    let by_flag = generate(|command| {
        command.args(["--lora", &adapter, "generate"]).arg(smollm2());
    });
    let by_environment = generate(|command| {
        command.env("SHIMMY_BASE_GGUF", smollm2()).env("SHIMMY_LORA_GGUF", &adapter).args(["generate", "phi3-lora"]);
    });
    assert_eq!(by_flag, by_environment);
}

#[test]
fn an_adapter_for_another_model_is_refused_in_words() {
    let files = Files::new();
    let wrong = files.write("wrong.gguf", &lora("llama", "blk.0.attn_q.weight", [32, 32], 1.0));
    let output = shimmy().args(["--lora", wrong.to_str().unwrap(), "probe"]).arg(smollm2()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("do not fit; use the base that it was trained on"), "{}", stderr(&output));
}
