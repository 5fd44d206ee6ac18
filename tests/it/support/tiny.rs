//! Tiny models of certain shapes, made with the library's own writer, for what no real model at hand can show.

use std::path::PathBuf;

use shimmy::gguf::writer::{TINY_EMBD, Writer, tiny_llama};

/// A directory with files that live as long as it does.
pub struct Files(tempfile::TempDir);

impl Files {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, writer: &Writer) -> PathBuf {
        let path = self.0.path().join(name);
        writer.write(&path).unwrap();
        path
    }
}

/// Attends to later tokens too, as embedding models do.
pub fn bidirectional() -> Writer {
    let mut w = tiny_llama();
    w.bool("llama.attention.causal", false);
    w
}

/// Goes on from token to token, and takes the last one's embedding for the text's.
pub fn embedder() -> Writer {
    let mut w = tiny_llama();
    w.u32("llama.pooling_type", 3);
    w
}

/// No byte tokens: most texts cannot be written with this vocabulary.
pub fn without_byte_tokens() -> Writer {
    let mut w = tiny_llama();
    let tokens: Vec<String> = (0..286).map(|id| if id < 3 { format!("<{id}>") } else { format!("word{id}") }).collect();
    w.strings("tokenizer.ggml.tokens", &tokens).i32s("tokenizer.ggml.token_type", &vec![1; 286]);
    w
}

/// A BPE vocabulary with the pre-tokenizer that recurses once a character.
pub fn gpt4o_vocabulary() -> Writer {
    let mut w = tiny_llama();
    let tokens: Vec<String> =
        (0..286).map(|id| if id < 26 { char::from(b'a' + id as u8).into() } else { format!("#{id}") }).collect();
    w.string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", "gpt-4o")
        .strings("tokenizer.ggml.tokens", &tokens)
        .strings("tokenizer.ggml.merges", &["a b".into()])
        .i32s("tokenizer.ggml.token_type", &vec![1; 286]);
    w
}

/// A state-space model: its memory cannot go back part of the way.
pub fn recurrent() -> Writer {
    const INNER: u64 = 64;
    let mut w = tiny_llama();
    w.string("general.architecture", "mamba");
    for (key, value) in [
        ("block_count", 1),
        ("context_length", 512),
        ("embedding_length", 32),
        ("feed_forward_length", 0),
        ("attention.head_count", 0),
        ("ssm.conv_kernel", 4),
        ("ssm.inner_size", 64),
        ("ssm.state_size", 16),
        ("ssm.time_step_rank", 2),
    ] {
        w.u32(&format!("mamba.{key}"), value);
    }
    w.f32("mamba.attention.layer_norm_rms_epsilon", 1e-5);
    let mut only = Writer::new();
    only.take_keys(&w);
    only.random("token_embd.weight", &[TINY_EMBD, 286], 0.0)
        .random("output_norm.weight", &[TINY_EMBD], 1.0)
        .random("output.weight", &[TINY_EMBD, 286], 0.0)
        .random("blk.0.attn_norm.weight", &[TINY_EMBD], 1.0)
        .random("blk.0.ssm_in.weight", &[TINY_EMBD, 2 * INNER], 0.0)
        .random("blk.0.ssm_conv1d.weight", &[4, INNER], 0.0)
        .random("blk.0.ssm_conv1d.bias", &[INNER], 0.0)
        .random("blk.0.ssm_x.weight", &[INNER, 2 + 2 * 16], 0.0)
        .random("blk.0.ssm_dt.weight", &[2, INNER], 0.0)
        .random("blk.0.ssm_dt.bias", &[INNER], 0.0)
        .random("blk.0.ssm_a", &[16, INNER], -1.0)
        .random("blk.0.ssm_d", &[INNER], 0.0)
        .random("blk.0.ssm_out.weight", &[INNER, TINY_EMBD], 0.0);
    only
}

/// Positions of several dimensions, which cannot be shifted.
pub fn multi_rope() -> Writer {
    let mut w = tiny_llama();
    w.string("general.architecture", "qwen2vl");
    for (key, value) in [
        ("block_count", 2),
        ("context_length", 512),
        ("embedding_length", 32),
        ("feed_forward_length", 64),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
    ] {
        w.u32(&format!("qwen2vl.{key}"), value);
    }
    w.f32("qwen2vl.attention.layer_norm_rms_epsilon", 1e-5).i32s("qwen2vl.rope.dimension_sections", &[2, 1, 1, 0]);
    for layer in 0..2 {
        for (part, size) in [("attn_q", 32), ("attn_k", 16), ("attn_v", 16)] {
            w.random(&format!("blk.{layer}.{part}.bias"), &[size], 0.0);
        }
    }
    w
}
