//! Each way in which llama.cpp aborts, crashes or hangs, tried through the safe wrapper in a child process: it must
//! come back as an `Err` (or be harmless), and the process must end normally.

use std::process::Command;

use shimmy::constrain::TokenFilter;
use shimmy::gguf::writer::{tiny_llama, tiny_lora};
use shimmy::llama::{
    Adapter, Backend, Batch, Context, ContextParams, Extent, FlashAttention, KvType, LlamaError, Model, ModelParams,
    Pos, Sampler, SamplerConfig, SeqState, Token,
};

use crate::support::tiny::{self, Files};

type Row = (&'static str, fn(&Files));

/// The rows of the list of hazards, by name. What is left to runner isolation is not here: a model file truncated
/// while it is mapped, and CUDA errors.
const ROWS: &[Row] = &[
    ("tokens_beyond_n_batch", tokens_beyond_n_batch),
    ("bidirectional_prompt_beyond_n_ubatch", bidirectional_prompt_beyond_n_ubatch),
    ("encode_on_a_decoder", encode_on_a_decoder),
    ("every_row_asks_for_outputs", every_row_asks_for_outputs),
    ("batch_and_sequence_of_another_context", batch_and_sequence_of_another_context),
    ("position_beyond_i32", position_beyond_i32),
    ("position_beyond_those_learned", position_beyond_those_learned),
    ("sequence_beyond_n_seq_max", sequence_beyond_n_seq_max),
    ("partial_seq_cp", partial_seq_cp),
    ("shift_where_impossible", shift_where_impossible),
    ("partial_seq_rm_on_recurrent_memory", partial_seq_rm_on_recurrent_memory),
    ("token_out_of_range", token_out_of_range),
    ("no_vocabulary", no_vocabulary),
    ("missing_byte_token", missing_byte_token),
    ("sampling_hopeless_logits", sampling_hopeless_logits),
    ("a_form_that_allows_nothing", a_form_that_allows_nothing),
    ("long_run_in_the_pre_tokenizer", long_run_in_the_pre_tokenizer),
    ("lora_with_a_wrong_key_type", lora_with_a_wrong_key_type),
    ("lora_with_a_wrong_tensor", lora_with_a_wrong_tensor),
    ("lora_dropped_while_attached", lora_dropped_while_attached),
    ("model_with_impossible_layers", model_with_impossible_layers),
    ("model_with_a_token_twice", model_with_a_token_twice),
    ("model_with_an_integer_norm", model_with_an_integer_norm),
    ("state_from_outside", state_from_outside),
    ("logits_of_a_row_without", logits_of_a_row_without),
    ("kv_cache_full", kv_cache_full),
    ("abort_then_reuse", abort_then_reuse),
    ("quantised_cache_without_flash_attention", quantised_cache_without_flash_attention),
    ("progress_callback_panics", progress_callback_panics),
    ("zero_sizes", zero_sizes),
    ("threads_replaced_between_passes", threads_replaced_between_passes),
    ("decoding_a_simulated_model", decoding_a_simulated_model),
];

#[test]
fn every_row_ends_in_order() {
    let mut failed = Vec::new();
    for (name, _) in ROWS {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["hazards::child", "--exact", "--nocapture"])
            .env("SHIMMY_TEST_HAZARD", name)
            // What is freed is overwritten (glibc), so that whoever still reads it does not get away with it.
            .env("MALLOC_PERTURB_", "165")
            .output()
            .unwrap();
        println!("{name}: {}", output.status);
        // A filter that matches no test would succeed too.
        let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
        if !output.status.success() || !ran {
            failed.push(format!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// What the child processes run. By itself it does nothing.
#[test]
fn child() {
    if let Ok(wanted) = std::env::var("SHIMMY_TEST_HAZARD") {
        let (_, row) = ROWS.iter().find(|(name, _)| *name == wanted).unwrap();
        row(&Files::new());
    }
}

fn load(files: &Files, writer: &shimmy::gguf::writer::Writer) -> Result<Model, LlamaError> {
    let path = files.write("model.gguf", writer);
    Model::load(Backend::init().unwrap(), &path, &ModelParams::default(), &mut |_| true)
}

fn params() -> ContextParams {
    ContextParams {
        n_ctx: 256,
        n_batch: 64,
        n_ubatch: 32,
        n_seq_max: 4,
        n_threads: 1,
        n_threads_batch: 1,
        ..Default::default()
    }
}

fn context(files: &Files) -> Context {
    Context::new(&load(files, &tiny_llama()).unwrap(), &params()).unwrap()
}

fn token(id: u32) -> Token {
    Token::new(id).unwrap()
}

/// Decodes `n` tokens of sequence 0 from position `start`, the last one with logits.
fn decode(context: &mut Context, start: usize, n: usize) -> Result<(), LlamaError> {
    let mut batch = Batch::new(context);
    let seq = context.seq(0)?;
    for at in start..start + n {
        batch.add(token(10 + (at % 50) as u32), Pos::new(at)?, seq, at + 1 == start + n)?;
    }
    context.decode(&mut batch)
}

/// llama.cpp looks at the pool of its last pass once more when it gets a new one, so that pool must live until then, and
/// no longer.
fn threads_replaced_between_passes(files: &Files) {
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let mut context = context(files);
    for _ in 0..20 {
        context.set_threads(4, 4).unwrap();
        context.kv().clear().unwrap();
        decode(&mut context, 0, 20).unwrap();
        let four = threads();
        context.set_threads(1, 1).unwrap();
        assert_eq!(threads(), four, "the old threads went before a pass with the new ones");
        decode(&mut context, 20, 1).unwrap();
        if cfg!(target_os = "linux") {
            assert_eq!(threads(), four - 3, "the old threads stay for good");
        }
    }
}

fn decoding_a_simulated_model(files: &Files) {
    let path = files.write("simulated.gguf", &tiny_llama());
    let params_of = ModelParams { simulated: true, ..ModelParams::default() };
    let model = Model::load(Backend::init().unwrap(), &path, &params_of, &mut |_| true).unwrap();
    let mut context = Context::new(&model, &params()).unwrap();
    assert!(context.memory_use().unwrap().iter().any(|memory| memory.context > 0));
    assert!(matches!(decode(&mut context, 0, 4), Err(LlamaError::Simulated)));
}

fn tokens_beyond_n_batch(files: &Files) {
    let mut context = context(files);
    assert_eq!(context.n_batch(), 64);
    assert!(matches!(decode(&mut context, 0, 65), Err(LlamaError::BatchFull { capacity: 64 })));
    decode(&mut context, 0, 64).unwrap();
    // n_batch is lowered to n_ctx, and the batch follows.
    let small = Context::new(context.model(), &ContextParams { n_ctx: 32, n_batch: 4096, ..params() }).unwrap();
    assert_eq!(Batch::new(&small).capacity(), small.n_batch());
}

fn bidirectional_prompt_beyond_n_ubatch(files: &Files) {
    let model = load(files, &tiny::bidirectional()).unwrap();
    assert!(model.is_bidirectional());
    let mut context = Context::new(&model, &params()).unwrap();
    assert_eq!(context.n_ubatch(), context.n_batch(), "raised, so that a whole batch is one pass");
    decode(&mut context, 0, 64).unwrap();
    assert!(matches!(decode(&mut context, 0, 65), Err(LlamaError::BatchFull { .. })));
}

fn encode_on_a_decoder(files: &Files) {
    let mut context = context(files);
    let mut batch = Batch::new(&context);
    batch.add(token(5), Pos::ZERO, context.seq(0).unwrap(), true).unwrap();
    assert!(matches!(context.encode(&mut batch), Err(LlamaError::NoEncoder)));
}

fn every_row_asks_for_outputs(files: &Files) {
    let mut context = context(files);
    let mut batch = Batch::new(&context);
    let seq = context.seq(0).unwrap();
    for at in 0..64 {
        batch.add(token(20), Pos::new(at).unwrap(), seq, true).unwrap();
    }
    context.decode(&mut batch).unwrap();
    assert_eq!(context.logits(63).unwrap().as_slice().len(), 286);
    let few = ContextParams { n_outputs_max: 8, ..params() };
    let mut context = Context::new(context.model(), &few).unwrap();
    let (mut batch, seq) = (Batch::new(&context), context.seq(0).unwrap());
    for at in 0..9 {
        batch.add(token(20), Pos::new(at).unwrap(), seq, true).unwrap();
    }
    let refused = context.decode(&mut batch).unwrap_err();
    assert!(matches!(refused, LlamaError::TooManyOutputs { outputs: 9, n_outputs_max: 8 }), "{refused}");
}

fn batch_and_sequence_of_another_context(files: &Files) {
    let mut context = context(files);
    let other = Context::new(context.model(), &params()).unwrap();
    let mut foreign = Batch::new(&other);
    foreign.add(token(5), Pos::ZERO, other.seq(3).unwrap(), true).unwrap();
    assert!(matches!(context.decode(&mut foreign), Err(LlamaError::ForeignObject)));
    let mut own = Batch::new(&context);
    assert!(matches!(own.add(token(5), Pos::ZERO, other.seq(0).unwrap(), true), Err(LlamaError::ForeignObject)));
    assert!(matches!(context.kv().seq_rm(other.seq(0).unwrap(), Pos::ZERO), Err(LlamaError::ForeignObject)));
    assert!(matches!(context.decode(&mut own), Err(LlamaError::BatchEmpty)));
}

fn position_beyond_i32(_: &Files) {
    assert!(matches!(Pos::new(usize::MAX), Err(LlamaError::PosRange(_))));
    assert!(matches!(Pos::new(1 << 31), Err(LlamaError::PosRange(_))));
}

fn position_beyond_those_learned(_: &Files) {
    let minilm = crate::support::cached("all-minilm-l6-v2.f32.gguf");
    let model = Model::load(Backend::init().unwrap(), &minilm, &ModelParams::default(), &mut |_| true).unwrap();
    let context = Context::new(&model, &ContextParams { n_ctx: 1024, ..params() }).unwrap();
    let (mut batch, seq) = (Batch::new(&context), context.seq(0).unwrap());
    batch.add(token(101), Pos::new(511).unwrap(), seq, true).unwrap();
    let added = batch.add(token(101), Pos::new(512).unwrap(), seq, true);
    assert!(matches!(added, Err(LlamaError::PosUnlearned { pos: 512, n_positions: 512 })));
}

fn sequence_beyond_n_seq_max(files: &Files) {
    let context = context(files);
    assert!(matches!(context.seq(4), Err(LlamaError::SeqRange { id: 4, n_seq_max: 4 })));
    assert!(matches!(context.seq(u32::MAX), Err(LlamaError::SeqRange { .. })));
}

fn partial_seq_cp(files: &Files) {
    let mut context = context(files);
    decode(&mut context, 0, 10).unwrap();
    let (from, to) = (context.seq(0).unwrap(), context.seq(1).unwrap());
    context.kv().seq_cp(from, to, Pos::new(4).unwrap()).unwrap();
    assert_eq!(context.kv().seq_range(to).unwrap(), Some((0, 3)));
    let mut apart = Context::new(context.model(), &ContextParams { kv_unified: false, ..params() }).unwrap();
    let (from, to) = (apart.seq(0).unwrap(), apart.seq(1).unwrap());
    assert!(matches!(apart.kv().seq_cp(from, to, Pos::new(4).unwrap()), Err(LlamaError::NotUnified)));
}

fn shift_where_impossible(files: &Files) {
    let model = load(files, &tiny::multi_rope()).unwrap();
    let mut multi = Context::new(&model, &params()).unwrap();
    let seq = multi.seq(0).unwrap();
    assert!(matches!(multi.kv().seq_add(seq, Pos::ZERO, 1), Err(LlamaError::CannotShift)));
    let mut plain = context(files);
    decode(&mut plain, 0, 10).unwrap();
    let seq = plain.seq(0).unwrap();
    assert!(matches!(plain.kv().seq_add(seq, Pos::ZERO, -1), Err(LlamaError::PosRange(-1))));
    assert!(matches!(plain.kv().seq_add(seq, Pos::ZERO, i32::MAX), Err(LlamaError::PosRange(_))));
    plain.kv().seq_add(seq, Pos::ZERO, 5).unwrap();
    decode(&mut plain, 15, 1).unwrap();
}

fn partial_seq_rm_on_recurrent_memory(files: &Files) {
    let model = load(files, &tiny::recurrent()).unwrap();
    assert!(model.is_recurrent());
    let mut context = Context::new(&model, &params()).unwrap();
    decode(&mut context, 0, 10).unwrap();
    let seq = context.seq(0).unwrap();
    assert!(matches!(context.kv().seq_rm(seq, Pos::new(5).unwrap()), Err(LlamaError::PartialRemove { .. })));
    context.kv().seq_rm(seq, Pos::ZERO).unwrap();
    decode(&mut context, 0, 3).unwrap();
}

fn token_out_of_range(files: &Files) {
    let context = context(files);
    let mut batch = Batch::new(&context);
    let vocab = context.model().vocab().unwrap();
    for id in [286, 1 << 20, i32::MAX as u32] {
        let added = batch.add(token(id), Pos::ZERO, context.seq(0).unwrap(), true);
        assert!(matches!(added, Err(LlamaError::TokenRange { n_tokens: 286, .. })));
        assert!(matches!(vocab.append_piece(token(id), true, &mut Vec::new()), Err(LlamaError::TokenRange { .. })));
        assert!(matches!(vocab.is_end_of_generation(token(id)), Err(LlamaError::TokenRange { .. })));
    }
    assert_eq!(Token::new(1 << 31), None);
}

fn no_vocabulary(files: &Files) {
    let mut writer = tiny_llama();
    writer.string("tokenizer.ggml.model", "none").u32("llama.vocab_size", 286);
    assert!(matches!(load(files, &writer), Err(LlamaError::Gguf(_))));
}

fn missing_byte_token(files: &Files) {
    let model = load(files, &tiny::without_byte_tokens()).unwrap();
    let result = model.vocab().unwrap().tokenize("\u{7f}é", true, true);
    assert!(matches!(&result, Err(LlamaError::Native { message, .. }) if !message.is_empty()), "{result:?}");
}

fn greedy() -> SamplerConfig {
    SamplerConfig {
        ignore_end: false,
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        typical_p: 1.0,
        penalty_last_n: 0,
        repeat_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        seed: 1,
        bias: Vec::new(),
    }
}

/// A model whose output weights are NaN gives logits that nothing can be chosen from.
fn sampling_hopeless_logits(files: &Files) {
    let mut writer = tiny_llama();
    writer.tensor("output.weight", &[32, 286], 0, f32::NAN.to_le_bytes().repeat(32 * 286));
    let model = load(files, &writer).unwrap();
    let mut context = Context::new(&model, &params()).unwrap();
    decode(&mut context, 0, 3).unwrap();
    let vocab = model.vocab().unwrap();
    for temperature in [0.0, 0.8] {
        let mut sampler = Sampler::new(&vocab, &SamplerConfig { temperature, ..greedy() }).unwrap();
        let first = sampler.sample(context.logits(2).unwrap());
        assert!(matches!(first, Err(LlamaError::NanLogits)), "{first:?}");
        assert!(matches!(sampler.sample(context.logits(2).unwrap()), Err(LlamaError::Poisoned)));
    }
    for (name, config) in [
        ("temperature", SamplerConfig { temperature: f32::NAN, ..greedy() }),
        ("top_p", SamplerConfig { top_p: -0.1, ..greedy() }),
        ("repeat_penalty", SamplerConfig { repeat_penalty: 0.0, ..greedy() }),
        ("frequency_penalty", SamplerConfig { frequency_penalty: f32::INFINITY, ..greedy() }),
    ] {
        assert!(
            matches!(Sampler::new(&vocab, &config), Err(LlamaError::Parameter { name: found, .. }) if found == name)
        );
    }
}

/// Only what the filter allows comes out, then the end; a filter that allows nothing is an error and no abort.
fn a_form_that_allows_nothing(files: &Files) {
    #[derive(Debug)]
    struct Nothing;
    impl TokenFilter for Nothing {
        fn allows(&mut self, _: u32) -> Result<bool, String> {
            Ok(false)
        }
        fn allowed(&mut self) -> Result<&[u32], String> {
            Ok(&[])
        }
        fn accept(&mut self, _: u32) -> Result<(), String> {
            Ok(())
        }
    }
    let model = load(files, &tiny_llama()).unwrap();
    let vocab = model.vocab().unwrap();
    let mut context = Context::new(&model, &params()).unwrap();
    decode(&mut context, 0, 1).unwrap();
    for temperature in [0.0, 1.0] {
        let config = SamplerConfig { temperature, ..SamplerConfig::default() };
        let mut sampler = Sampler::new(&vocab, &config).unwrap().with_filter(Box::new(Nothing));
        let logits = context.logits(0).unwrap();
        assert!(matches!(sampler.sample(logits), Err(LlamaError::Form(_))));
        assert!(matches!(sampler.sample(logits), Err(LlamaError::Poisoned)));
    }
}

fn long_run_in_the_pre_tokenizer(files: &Files) {
    let vocab = load(files, &tiny::gpt4o_vocabulary()).unwrap().vocab().unwrap();
    assert_eq!(vocab.tokenize(&"a".repeat(200_000), false, false).unwrap().len(), 200_000);
    let too_long = "a".repeat(5 << 20);
    assert!(matches!(vocab.tokenize(&too_long, false, false), Err(LlamaError::TextTooLong { .. })));
}

fn lora_with_a_wrong_key_type(files: &Files) {
    let model = load(files, &tiny_llama()).unwrap();
    let mut writer = tiny_lora();
    writer.u32("adapter.lora.alpha", 2);
    assert!(matches!(Adapter::load(&model, &files.write("a.gguf", &writer)), Err(LlamaError::Gguf(_))));
}

fn lora_with_a_wrong_tensor(files: &Files) {
    let model = load(files, &tiny_llama()).unwrap();
    let (a, b) = ("blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b");
    let mut cube = tiny_lora();
    cube.tensor(a, &[32, 2, 2], 0, vec![0; 512]).tensor(b, &[2, 32, 2], 0, vec![0; 512]);
    assert!(matches!(Adapter::load(&model, &files.write("cube.gguf", &cube)), Err(LlamaError::Gguf(_))));
    let mut integer = tiny_lora();
    integer.tensor(a, &[32, 2], 26, vec![0; 256]);
    assert!(matches!(Adapter::load(&model, &files.write("integer.gguf", &integer)), Err(LlamaError::Gguf(_))));
}

fn lora_dropped_while_attached(files: &Files) {
    let model = load(files, &tiny_llama()).unwrap();
    let adapter = Adapter::load(&model, &files.write("a.gguf", &tiny_lora())).unwrap();
    let mut context = Context::new(&model, &params()).unwrap();
    context.set_adapters(&[(adapter.clone(), 1.0)]).unwrap();
    drop(adapter);
    decode(&mut context, 0, 3).unwrap();
    // The last handle of the model goes before the adapter and the context do.
    let adapter = Adapter::load(&model, &files.write("b.gguf", &tiny_lora())).unwrap();
    drop(model);
    context.set_adapters(&[]).unwrap();
    decode(&mut context, 3, 3).unwrap();
    drop(context);
    drop(adapter);
    let other = load(files, &tiny_llama()).unwrap();
    let foreign = Adapter::load(&other, &files.write("c.gguf", &tiny_lora())).unwrap();
    let mut context = self::context(files);
    assert!(matches!(context.set_adapters(&[(foreign, 1.0)]), Err(LlamaError::ForeignAdapter)));
}

fn model_with_impossible_layers(files: &Files) {
    for layers in [0, 513, u32::MAX] {
        let mut writer = tiny_llama();
        writer.u32("llama.block_count", layers);
        assert!(matches!(load(files, &writer), Err(LlamaError::Gguf(_))));
    }
}

fn model_with_a_token_twice(files: &Files) {
    let mut writer = tiny_llama();
    writer.strings("tokenizer.ggml.tokens", &vec!["same".to_owned(); 286]);
    assert!(matches!(load(files, &writer), Err(LlamaError::Gguf(_))));
}

fn model_with_an_integer_norm(files: &Files) {
    let mut writer = tiny_llama();
    writer.tensor("blk.1.ffn_norm.weight", &[32], 26, vec![1; 128]);
    assert!(matches!(load(files, &writer), Err(LlamaError::Gguf(_))));
}

fn state_from_outside(files: &Files) {
    let mut context = context(files);
    decode(&mut context, 0, 20).unwrap();
    let (from, to) = (context.seq(0).unwrap(), context.seq(1).unwrap());
    let state = SeqState::save(&mut context, from, Extent::Whole).unwrap();
    let bytes = state.to_bytes();
    SeqState::from_bytes(&bytes).unwrap().restore(&mut context, to).unwrap();
    assert_eq!(context.kv().seq_range(to).unwrap(), Some((0, 19)));
    for at in (0..bytes.len()).step_by(3) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x41;
        assert!(SeqState::from_bytes(&damaged).is_err(), "byte {at}");
    }
    assert!(SeqState::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    let mut writer = tiny_llama();
    writer.u32("llama.attention.head_count_kv", 2).string("general.name", "other");
    let other_path = files.write("other.gguf", &writer);
    let other = Model::load(Backend::init().unwrap(), &other_path, &ModelParams::default(), &mut |_| true).unwrap();
    let mut other = Context::new(&other, &params()).unwrap();
    let seq = other.seq(0).unwrap();
    assert!(matches!(state.restore(&mut other, seq), Err(LlamaError::State(_))));
}

fn logits_of_a_row_without(files: &Files) {
    let mut context = context(files);
    assert!(matches!(context.logits(0), Err(LlamaError::NoOutput { row: 0 })));
    decode(&mut context, 0, 3).unwrap();
    for row in [0, 1, 3, usize::MAX] {
        assert!(matches!(context.logits(row), Err(LlamaError::NoOutput { .. })), "row {row}");
    }
    context.logits(2).unwrap();
}

fn kv_cache_full(files: &Files) {
    let mut context = context(files);
    for start in (0..256).step_by(64) {
        decode(&mut context, start, 64).unwrap();
    }
    assert!(matches!(decode(&mut context, 256, 1), Err(LlamaError::NoCells)));
    context.kv().clear().unwrap();
    decode(&mut context, 0, 64).unwrap();
}

fn abort_then_reuse(files: &Files) {
    let mut context = context(files);
    context.abort_flag().abort();
    assert!(matches!(decode(&mut context, 0, 10), Err(LlamaError::Aborted)));
    context.kv().clear().unwrap();
    decode(&mut context, 0, 10).unwrap();
}

fn quantised_cache_without_flash_attention(files: &Files) {
    let model = load(files, &tiny_llama()).unwrap();
    for (kv_type_k, kv_type_v) in [(KvType::Q8_0, KvType::F16), (KvType::F16, KvType::Q8_0)] {
        let params = ContextParams { kv_type_k, kv_type_v, flash_attention: FlashAttention::Off, ..params() };
        assert!(matches!(Context::new(&model, &params), Err(LlamaError::Native { .. })));
    }
}

fn progress_callback_panics(files: &Files) {
    let path = files.write("model.gguf", &tiny_llama());
    let result = Model::load(Backend::init().unwrap(), &path, &ModelParams::default(), &mut |_| panic!("on purpose"));
    assert!(result.is_err());
    let result = Model::load(Backend::init().unwrap(), &path, &ModelParams::default(), &mut |_| false);
    assert!(matches!(result, Err(LlamaError::LoadCancelled(_))));
}

fn zero_sizes(files: &Files) {
    let model = load(files, &tiny_llama()).unwrap();
    for params in [
        ContextParams { n_batch: 0, ..params() },
        ContextParams { n_ubatch: 0, ..params() },
        ContextParams { n_seq_max: 0, ..params() },
    ] {
        assert!(matches!(Context::new(&model, &params), Err(LlamaError::Parameter { .. })));
    }
    let too_many = ContextParams { n_seq_max: 100_000, ..params() };
    assert!(Context::new(&model, &too_many).is_err());
}
