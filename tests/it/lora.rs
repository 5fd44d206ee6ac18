//! LoRA adapters from the command line and the environment, and on a context.

use std::collections::HashSet;

use shimmy::gguf::writer::{Writer, lora};
use shimmy::llama::{Adapter, Backend, Batch, Context, ContextParams, Model, ModelParams, Pos};

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

/// Logits of a text's last token.
fn logits(context: &mut Context) -> Vec<f32> {
    context.kv().clear().unwrap();
    let (mut batch, seq) = (Batch::new(context), context.seq(0).unwrap());
    let tokens = context.model().vocab().unwrap().tokenize("The capital of France is", true, true).unwrap();
    for (at, token) in tokens.iter().enumerate() {
        batch.add(*token, Pos::new(at).unwrap(), seq, at + 1 == tokens.len()).unwrap();
    }
    context.decode(&mut batch).unwrap();
    context.logits(tokens.len() - 1).unwrap().as_slice().to_vec()
}

fn context(model: &Model) -> Context {
    Context::new(model, &ContextParams { n_ctx: 256, n_seq_max: 1, ..ContextParams::default() }).unwrap()
}

/// One context that changes its adapters back and forth computes what a new context with these adapters does. Among them is
/// one that came when the context had computed already, and has more tensors than there was room for in its graphs.
#[test]
fn a_context_that_changes_its_adapters_computes_as_a_new_one() {
    let files = Files::new();
    let model = Model::load(Backend::init().unwrap(), &smollm2(), &ModelParams::default(), &mut |_| true).unwrap();
    let load = |name: &str, writer: &Writer| Adapter::load(&model, &files.write(name, writer)).unwrap();
    let mut changing = context(&model);
    let base = logits(&mut changing);
    let small = load("small.gguf", &lora("llama", "blk.0.attn_q.weight", [576, 576], 2.0));
    let other = load("other.gguf", &lora("llama", "blk.7.attn_q.weight", [576, 576], 2.0));
    let mut wide = lora("llama", "blk.0.ffn_up.weight", [576, 1536], 0.02);
    for layer in 0..30 {
        for (part, [n_in, n_out]) in
            [("attn_q", [576, 576]), ("attn_k", [576, 192]), ("attn_v", [576, 192]), ("attn_output", [576, 576])]
        {
            wide.random(&format!("blk.{layer}.{part}.weight.lora_a"), &[n_in, 2], 0.02);
            wide.random(&format!("blk.{layer}.{part}.weight.lora_b"), &[2, n_out], 0.02);
        }
    }
    let wide = load("wide.gguf", &wide);
    let sets: Vec<Vec<(Adapter, f32)>> = vec![
        vec![],
        vec![(small.clone(), 1.0)],
        vec![(wide.clone(), 1.0)],
        vec![(small.clone(), 0.5)],
        vec![(small, 1.0), (other, 1.0)],
    ];
    let mut alone = Vec::new();
    for set in &sets {
        let mut own = context(&model);
        own.set_adapters(set).unwrap();
        alone.push(logits(&mut own));
    }
    assert_eq!(alone[0], base);
    let different: HashSet<Vec<u32>> = alone.iter().map(|row| row.iter().map(|x| x.to_bits()).collect()).collect();
    assert_eq!(different.len(), sets.len());
    for step in 0..20 {
        // Some are set without being computed with.
        let skipped = &sets[(step * 2 + 1) % sets.len()];
        changing.set_adapters(skipped).unwrap();
        let which = (step * 3) % sets.len();
        changing.set_adapters(&sets[which]).unwrap();
        assert_eq!(logits(&mut changing), alone[which], "step {step}, set {which}");
    }
    // One more that is loaded, used and freed.
    for _ in 0..3 {
        let gone = load("gone.gguf", &lora("llama", "blk.1.attn_q.weight", [576, 576], 2.0));
        changing.set_adapters(&[(gone, 1.0)]).unwrap();
        assert_ne!(logits(&mut changing), base);
        changing.set_adapters(&[]).unwrap();
        assert_eq!(logits(&mut changing), base);
    }
}
