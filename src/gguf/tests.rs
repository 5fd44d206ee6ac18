//! Tests of the reader and the checks, on files of our own writer.

use std::path::PathBuf;

use super::writer::{Writer, tiny_llama, tiny_lora};
use super::{GgufError, Header, Value, validate_adapter, validate_model};

/// A change that makes a file bad, and a part of the message that it must give.
type Refused<'a> = (&'a dyn Fn(&mut Writer), &'a str);

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn write(&self, name: &str, writer: &Writer) -> PathBuf {
        let path = self.0.path().join(name);
        writer.write(&path).expect("written");
        path
    }

    /// The error of checking this file as a model.
    fn refusal(&self, writer: &Writer) -> String {
        let path = self.write("model.gguf", writer);
        let result = Header::open(&path).and_then(|header| validate_model(&header));
        result.expect_err("refused").to_string()
    }

    fn adapter_refusal(&self, writer: &Writer) -> String {
        let base = Header::open(&self.write("base.gguf", &tiny_llama())).expect("a model");
        let path = self.write("adapter.gguf", writer);
        let result = Header::open(&path).and_then(|header| validate_adapter(&header, &base));
        result.expect_err("refused").to_string()
    }
}

#[test]
fn a_good_file_is_read_and_accepted() {
    let dir = Dir::new();
    let header = Header::open(&dir.write("tiny.gguf", &tiny_llama())).expect("readable");
    validate_model(&header).expect("accepted");
    assert_eq!(header.architecture(), "llama");
    assert_eq!(header.context_length(), Some(512));
    assert_eq!(header.quantization(), "F32");
    assert_eq!(header.get("tokenizer.ggml.tokens").and_then(Value::list_len), Some(286));
    assert_eq!(header.kv_elements_per_token(), Some(2 * 2 * 16));
    let adapter = Header::open(&dir.write("lora.gguf", &tiny_lora())).expect("readable");
    assert!(adapter.is_adapter());
    validate_adapter(&adapter, &header).expect("accepted");
}

#[test]
fn what_is_not_run_token_after_token_is_refused_and_tables_are_not() {
    let dir = Dir::new();
    let named = |name: &str| {
        let mut writer = tiny_llama();
        writer.string("general.architecture", name);
        dir.refusal(&writer)
    };
    assert!(named("t5").contains("reads with an encoder"), "{}", named("t5"));
    assert!(named("llada").contains("by diffusion"), "{}", named("llada"));
    let mut writer = tiny_llama();
    writer.tensor("blk.0.ffn_gate_tid2eid.weight", &[32, 286], 26, vec![0; 32 * 286 * 4]);
    validate_model(&Header::open(&dir.write("table.gguf", &writer)).expect("readable")).expect("it is looked up");
}

/// What a list shows is read of files that are not checked yet. Found by fuzzing.
#[test]
fn tensors_of_impossible_sizes_are_counted_to_an_end() {
    let mut writer = tiny_llama();
    for name in ["a", "b"] {
        writer.tensor(name, &[1 << 62, 3], 0, Vec::new());
    }
    writer.remove("general.file_type");
    let header = Header::parse(&writer.to_bytes()).expect("readable");
    assert_eq!((header.quantization().as_str(), header.parameter_count()), ("F32", u64::MAX));
}

#[test]
fn a_model_that_ranks_has_a_head_for_its_scores() {
    let dir = Dir::new();
    let mut ranks = tiny_llama();
    ranks.u32("llama.pooling_type", 4);
    assert!(dir.refusal(&ranks).contains("no head that makes a score (cls.output.weight)"));
    let labelled = |writer: &mut Writer, labels: &[&str]| {
        writer.strings("llama.classifier.output_labels", &labels.iter().map(|&label| label.into()).collect::<Vec<_>>());
    };
    ranks.tensor("cls.output.weight", &[32, 2], 0, vec![0; 32 * 2 * 4]);
    assert!(dir.refusal(&ranks).contains("its head makes 2 numbers"));
    labelled(&mut ranks, &["yes", "no"]);
    validate_model(&Header::open(&dir.write("two.gguf", &ranks)).expect("readable")).expect("a number for each label");
    ranks.tensor("cls.output.weight", &[32, 1], 0, vec![0; 32 * 4]);
    assert!(dir.refusal(&ranks).contains("makes 1 numbers"));
    labelled(&mut ranks, &[]);
    validate_model(&Header::open(&dir.write("one.gguf", &ranks)).expect("readable")).expect("a score");
}

#[test]
fn what_llama_cpp_would_abort_on_is_refused() {
    let dir = Dir::new();
    let refusal = |change: &dyn Fn(&mut Writer)| {
        let mut writer = tiny_llama();
        change(&mut writer);
        dir.refusal(&writer)
    };
    let cases: &[Refused] = &[
        (
            &|w| {
                w.u32("llama.block_count", 0);
            },
            "llama.block_count is U32(0)",
        ),
        (
            &|w| {
                w.u32("llama.block_count", 513);
            },
            "llama.block_count is U32(513)",
        ),
        (
            &|w| {
                w.string("llama.block_count", "2");
            },
            "llama.block_count is String",
        ),
        (
            &|w| {
                w.remove("llama.block_count");
            },
            "no llama.block_count",
        ),
        (
            &|w| {
                w.remove("general.architecture");
            },
            "no general.architecture",
        ),
        (
            &|w| {
                w.u32("general.architecture", 1);
            },
            "must be a name",
        ),
        (
            &|w| {
                w.string("general.architecture", "clip");
            },
            "projector",
        ),
        (
            &|w| {
                w.string("general.type", "adapter");
            },
            "is a LoRA adapter",
        ),
        (
            &|w| {
                w.string("tokenizer.ggml.model", "none");
            },
            "no vocabulary",
        ),
        (
            &|w| {
                w.remove("tokenizer.ggml.tokens");
            },
            "must be a list of strings, found nothing",
        ),
        (
            &|w| {
                w.strings("tokenizer.ggml.tokens", &["a".into(), "b".into(), "a".into()]);
            },
            "holds \"a\" twice",
        ),
        (
            &|w| {
                w.f32s("tokenizer.ggml.scores", &[0.0]);
            },
            "tokenizer.ggml.scores must have one number",
        ),
        (
            &|w| {
                w.bool("tokenizer.ggml.add_bos_token", true).u32("tokenizer.ggml.bos_token_id", 999);
            },
            "bos_token_id",
        ),
        (
            &|w| {
                w.u32("llama.expert_count", 513).u32("llama.expert_used_count", 1);
            },
            "experts",
        ),
        (
            &|w| {
                w.u32("llama.expert_count", 4).u32("llama.expert_used_count", 0);
            },
            "experts",
        ),
        (
            &|w| {
                w.tensor("output_norm.weight", &[32], 26, vec![0; 128]);
            },
            "computes norms with floats only",
        ),
        (
            &|w| {
                w.tensor("output.weight", &[32, 286], 26, vec![0; 32 * 286 * 4]);
            },
            "computes no layer with that",
        ),
        (
            &|w| {
                w.tensor("output.weight", &[32, 0], 0, vec![]);
            },
            "has the shape [32, 0]",
        ),
        (
            &|w| {
                w.tensor("output.weight", &[u64::MAX, 3], 0, vec![]);
            },
            "impossible shape",
        ),
        (
            &|w| {
                w.tensor("output.weight", &[33, 2], 2, vec![0; 64]);
            },
            "rows of 33 elements, which Q4_0 cannot store",
        ),
        (
            &|w| {
                w.tensor("output.weight", &[32, 2], 99, vec![0; 64]);
            },
            "unknown type 99",
        ),
        (
            &|w| {
                w.tensor("output.weight", &[32, 286], 0, vec![0; 64]);
            },
            "truncated",
        ),
        (
            &|w| {
                w.string("llama.rope.scaling.type", "magic");
            },
            "rope.scaling.type",
        ),
        (
            &|w| {
                w.f32("llama.attention.layer_norm_rms_epsilon", f32::NAN);
            },
            "attention.layer_norm_rms_epsilon is F32(NaN)",
        ),
        (
            &|w| {
                w.f32("llama.attention.layer_norm_epsilon", -1e-5);
            },
            "attention.layer_norm_epsilon is F32(-1e-5)",
        ),
        (
            &|w| {
                w.f32s("llama.attention.head_count", &[4.0, 4.0]);
            },
            "llama.attention.head_count must be a list of whole numbers",
        ),
        (
            &|w| {
                w.i32s("tokenizer.ggml.merges", &[1]);
            },
            "tokenizer.ggml.merges is of a wrong kind",
        ),
        (
            &|w| {
                w.raw("split.count", 2, vec![2, 0]).raw("split.no", 2, vec![0, 0]);
            },
            "its name must end in -00001-of-00002.gguf",
        ),
        (
            &|w| {
                w.u32("general.alignment", 24);
            },
            "power of two",
        ),
    ];
    for (change, expected) in cases {
        let found = refusal(change);
        assert!(found.contains(expected), "expected {expected:?} in {found:?}");
    }
}

#[test]
fn adapters_that_llama_cpp_would_abort_on_are_refused() {
    let dir = Dir::new();
    let a = "blk.0.attn_q.weight.lora_a";
    let cases: &[Refused] = &[
        (
            &|w| {
                w.u32("adapter.lora.alpha", 2);
            },
            "adapter.lora.alpha must be a 32-bit float",
        ),
        (
            &|w| {
                w.u32("adapter.type", 1);
            },
            "adapter.type must be a text",
        ),
        (
            &|w| {
                w.string("adapter.type", "ia3");
            },
            "not \"lora\"",
        ),
        (
            &|w| {
                w.remove("general.type");
            },
            "general.type must be a text",
        ),
        (
            &|w| {
                w.string("general.architecture", "gemma3");
            },
            "the base model is \"llama\"",
        ),
        (
            &|w| {
                w.tensor(a, &[32, 1, 2], 0, vec![0; 256]);
            },
            "has 3 dimensions",
        ),
        (
            &|w| {
                w.tensor(a, &[32, 2], 26, vec![0; 256]);
            },
            "must be float or quantised",
        ),
        (
            &|w| {
                w.tensor(a, &[16, 2], 0, vec![0; 128]);
            },
            "do not fit",
        ),
        (
            &|w| {
                w.random("blk.9.attn_q.weight.lora_a", &[32, 2], 0.0).random(
                    "blk.9.attn_q.weight.lora_b",
                    &[2, 32],
                    0.0,
                );
            },
            "no tensor \"blk.9.attn_q.weight\"",
        ),
        (
            &|w| {
                w.random("blk.0.attn_k.weight.lora_a", &[32, 2], 0.0);
            },
            "beside it",
        ),
        (
            &|w| {
                w.random("strange", &[32, 2], 0.0);
            },
            "neither in .lora_a nor in .lora_b",
        ),
        (
            &|w| {
                w.i32s("adapter.alora.invocation_tokens", &[1]);
            },
            "must be a list of 32-bit counts",
        ),
    ];
    for (change, expected) in cases {
        let mut writer = tiny_lora();
        change(&mut writer);
        let found = dir.adapter_refusal(&writer);
        assert!(found.contains(expected), "expected {expected:?} in {found:?}");
    }
}

#[test]
fn files_that_are_no_gguf_say_what_they_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = |bytes: &[u8]| {
        let path = dir.path().join("x.gguf");
        std::fs::write(&path, bytes).expect("written");
        Header::open(&path).expect_err("refused")
    };
    assert!(matches!(Header::open(&dir.path().join("none")), Err(GgufError::NotFound(_))));
    assert!(matches!(open(b""), GgufError::NotGguf { .. }));
    assert!(matches!(open(b"hello world"), GgufError::NotGguf { start, .. } if start == "hell"));
    assert!(matches!(open(b"GGUF\x01\0\0\0"), GgufError::Version { version: 1, .. }));
    assert!(matches!(open(b"GGUF\0\0\0\x03"), GgufError::Invalid { .. }));
    assert!(matches!(open(b"GGUF\x03\0\0\0"), GgufError::Truncated { .. }));
    assert!(matches!(Header::open(dir.path()), Err(GgufError::Invalid { .. })));
}

/// Whatever the bytes, the reader answers; a claimed length never makes it allocate.
#[test]
fn damaged_files_never_panic() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("x.gguf");
    let good = tiny_llama().to_bytes();
    let header_len = 12_000.min(good.len());
    for at in (0..header_len).step_by(7) {
        for value in [0x00, 0x7f, 0xff] {
            let mut bytes = good[..header_len + 64].to_vec();
            bytes[at] = value;
            std::fs::write(&path, &bytes).expect("written");
            if let Ok(header) = Header::open(&path) {
                let _ = validate_model(&header);
                let _ = header.parameter_count();
            }
        }
    }
    for len in (0..header_len).step_by(97) {
        std::fs::write(&path, &good[..len]).expect("written");
        assert!(Header::open(&path).and_then(|header| validate_model(&header)).is_err());
    }
}

#[test]
fn shards_are_checked_with_their_first() {
    let dir = Dir::new();
    let mut first = tiny_llama();
    first.raw("split.count", 2, vec![2, 0]).raw("split.no", 2, vec![0, 0]);
    let path = dir.write("tiny-00001-of-00002.gguf", &first);
    let check = || Header::open(&path).and_then(|header| validate_model(&header));
    assert!(matches!(check(), Err(GgufError::NotFound(missing)) if missing.ends_with("tiny-00002-of-00002.gguf")));

    let mut second = Writer::new();
    second.raw("split.count", 2, vec![2, 0]).u32("split.no", 1).random("more.weight", &[32, 2], 0.0);
    dir.write("tiny-00002-of-00002.gguf", &second);
    assert!(check().expect_err("refused").to_string().contains("split.no must be 1, found Some(U32(1))"));
    second.raw("split.no", 2, vec![1, 0]);
    dir.write("tiny-00002-of-00002.gguf", &second);
    check().expect("accepted");
}

/// Some vocabularies leave numbers unused; llama.cpp names them itself.
#[test]
fn many_empty_tokens_are_no_duplicates() {
    let dir = Dir::new();
    let mut writer = tiny_llama();
    let tokens: Vec<String> =
        (0..286).map(|id| if id < 200 { format!("<0x{id:02X}>") } else { String::new() }).collect();
    writer.strings("tokenizer.ggml.tokens", &tokens);
    let path = dir.write("model.gguf", &writer);
    Header::open(&path).and_then(|header| validate_model(&header)).expect("accepted");
}
