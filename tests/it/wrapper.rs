//! The safe wrapper and the engine on it, in this process.

use std::path::Path;
use std::process::Command;

use shimmy::engine::{AdapterSet, EngineConfig, EngineError, EngineHandle, Event, FinishReason, Job, SamplingParams};
use shimmy::llama::{Backend, Batch, Context, ContextParams, Model, ModelParams, Pos, Token};

use crate::support::{smollm2, tiny};

fn model() -> Model {
    Model::load(Backend::init().unwrap(), &smollm2(), &ModelParams::default(), &mut |_| true).unwrap()
}

fn engine(model: &Model, n_ctx: u32) -> EngineHandle {
    let context = ContextParams { n_ctx, n_seq_max: 2, ..ContextParams::default() };
    let config = EngineConfig { label: "test".into(), queue: 4, ..EngineConfig::default() };
    EngineHandle::start_llama(model, None, AdapterSet::default(), context, n_ctx, config).unwrap().0
}

fn job(model: &Model, text: &str, max_tokens: Option<u32>) -> Job {
    let prompt = model.vocab().unwrap().tokenize(text, true, true).unwrap().into_iter().map(Token::index).collect();
    Job { prompt, sampling: greedy(), max_tokens, ..Job::default() }
}

fn greedy() -> SamplingParams {
    SamplingParams { temperature: 0.0, ..SamplingParams::default() }
}

#[test]
fn the_stream_is_an_iterator_that_ends_with_one_summary() {
    let model = model();
    let engine = engine(&model, 512);
    let job = job(&model, "The capital of France is", Some(5));
    let n = job.prompt.len();
    let events: Vec<_> = engine.submit(job).unwrap().collect::<Result<_, _>>().unwrap();
    let (last, tokens) = events.split_last().unwrap();
    let text: String = tokens
        .iter()
        .map(|event| match event {
            Event::Token { text, .. } => text.as_str(),
            other => panic!("{other:?} before the end"),
        })
        .collect();
    assert!(text.starts_with(" Paris"), "{text}");
    let Event::Done(summary) = last else { panic!("{last:?} at the end") };
    assert_eq!(summary.reason, FinishReason::Length);
    assert_eq!((summary.usage.prompt_tokens as usize, summary.usage.completion_tokens), (n, 5));
    assert!(summary.timings.prefill_ms > 0.0 && summary.timings.decode_ms > 0.0);
}

/// Mamba and its like cannot go back in a sequence: what is shared must come from a state that was kept.
#[test]
fn a_recurrent_model_says_the_same_with_a_hot_and_a_cold_cache() {
    let files = tiny::Files::new();
    let path = files.write("recurrent.gguf", &tiny::recurrent());
    let model = Model::load(Backend::init().unwrap(), &path, &ModelParams::default(), &mut |_| true).unwrap();
    let ask = |engine: &EngineHandle, prompt: Vec<u32>| {
        let sampling = SamplingParams { ignore_eos: true, ..greedy() };
        let job = Job { prompt, sampling, max_tokens: Some(12), ..Job::default() };
        let (mut text, mut cached) = (String::new(), 0);
        for event in engine.submit(job).unwrap() {
            match event.unwrap() {
                Event::Token { text: more, .. } => text.push_str(&more),
                Event::Done(summary) => cached = summary.usage.cached_tokens,
                Event::Error(error) => panic!("{error}"),
            }
        }
        (text, cached)
    };
    let first: Vec<u32> = (20..60).collect();
    let longer: Vec<u32> = (20..59).chain(100..120).collect();
    let hot = engine(&model, 512);
    for prompt in [&first, &first, &longer, &first] {
        let (text, cached) = ask(&hot, prompt.clone());
        let (cold, nothing) = ask(&engine(&model, 512), prompt.clone());
        assert_eq!((text, nothing), (cold, 0), "{cached} tokens were shared");
    }
    let (_, cached) = ask(&hot, longer);
    assert!(cached >= 39, "only {cached} tokens were shared");
}

/// Of its 286 tokens all but `k`, and those without a text, are never to be written.
#[test]
fn tokens_that_the_file_suppresses_are_not_written() {
    let mut writer = shimmy::gguf::writer::tiny_llama();
    let suppressed: Vec<i32> = (3..286).filter(|id| *id != 270).chain([100_000, -1]).collect();
    writer.i32s("tokenizer.ggml.suppress_tokens", &suppressed);
    let files = tiny::Files::new();
    let path = files.write("model.gguf", &writer);
    let model = Model::load(Backend::init().unwrap(), &path, &ModelParams::default(), &mut |_| true).unwrap();
    let engine = engine(&model, 64);
    for seed in 0..4 {
        let sampling = SamplingParams { ignore_eos: true, seed: Some(seed), ..SamplingParams::default() };
        let job = Job { prompt: vec![1, 270], sampling, max_tokens: Some(8), ..Job::default() };
        for event in engine.submit(job).unwrap() {
            if let Event::Token { text, .. } = event.unwrap() {
                assert!(text.chars().all(|letter| letter == 'k'), "{text}");
            }
        }
    }
}

#[test]
fn the_same_stream_serves_async_code() {
    use futures_util::StreamExt;
    let model = model();
    let engine = engine(&model, 512);
    let stream = engine.submit(job(&model, "One two three", Some(3))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let events: Vec<_> = runtime.block_on(StreamExt::collect(stream));
    assert!(matches!(events.last(), Some(Ok(Event::Done(_)))));
}

#[test]
fn an_answer_ends_where_the_context_does() {
    let model = model();
    let engine = engine(&model, 256);
    let job = job(&model, &"word ".repeat(200), None);
    let n = job.prompt.len();
    let last = engine.submit(job).unwrap().last().unwrap().unwrap();
    let Event::Done(summary) = last else { panic!("{last:?}") };
    assert!(summary.reason != FinishReason::Length || n + summary.usage.completion_tokens as usize == engine.n_ctx());
}

#[test]
fn requests_that_cannot_work_are_refused_before_the_queue() {
    let model = model();
    let engine = engine(&model, 256);
    let submit = |text: &str, sampling| engine.submit(Job { sampling, ..job(&model, text, None) });
    assert_eq!(submit("", greedy()).unwrap_err(), EngineError::EmptyPrompt);
    let too_long = submit(&"word ".repeat(400), greedy()).unwrap_err();
    assert!(
        matches!(too_long, EngineError::PromptTooLong { context_tokens: 256, prompt_tokens } if prompt_tokens >= 400)
    );
    let hot = SamplingParams { temperature: f32::NAN, ..greedy() };
    assert!(matches!(submit("x", hot), Err(EngineError::Parameter(what)) if what.contains("temperature")));
}

#[test]
fn dropping_the_engine_ends_what_runs() {
    let model = model();
    let engine = engine(&model, 2048);
    let mut stream = engine.submit(job(&model, "Tell me a story", None)).unwrap();
    assert!(matches!(stream.next(), Some(Ok(Event::Token { .. }))));
    drop(engine);
    assert_eq!(stream.last().unwrap().unwrap_err(), EngineError::Stopped);
}

/// Logits after each of the prompt's tokens, which are decoded `chunk` at a time, beside another sequence.
fn logits(model: &Model, accelerate: bool, chunk: usize) -> Vec<Vec<f32>> {
    let params = ContextParams { n_ctx: 512, n_seq_max: 2, accelerate, ..ContextParams::default() };
    let mut context = Context::new(model, &params).unwrap();
    let text = "The quick brown fox jumps over the lazy dog. In the beginning there was a river, and the river was wide. \
                Seven sailors crossed it with 42 barrels of salt, and none of them could swim.";
    let tokens = model.vocab().unwrap().tokenize(text, true, true).unwrap();
    let (mut batch, first, second) = (Batch::new(&context), context.seq(0).unwrap(), context.seq(1).unwrap());
    let mut all = Vec::new();
    for (number, part) in tokens.chunks(chunk).enumerate() {
        batch.clear();
        for (offset, token) in part.iter().enumerate() {
            let pos = Pos::new(number * chunk + offset).unwrap();
            batch.add(*token, pos, first, true).unwrap();
            // Mixed among the others, as sequences that decode together are. It must not be seen.
            if chunk > 1 {
                batch.add(tokens[(number + offset) % 7], pos, second, false).unwrap();
            }
        }
        context.decode(&mut batch).unwrap();
        all.extend(
            (0..part.len())
                .map(|row| context.logits(if chunk > 1 { 2 * row } else { row }).unwrap().as_slice().to_vec()),
        );
    }
    all
}

#[test]
fn our_own_kernels_compute_what_llama_cpp_computes() {
    let model = model();
    // llama.cpp's own results differ from one size of batch to another; ours must not differ more.
    let wanted = logits(&model, false, 16);
    let own = [1, 5, 60].map(|chunk| distance(&logits(&model, false, chunk), &wanted));
    let ours = [1, 5, 16, 60].map(|chunk| distance(&logits(&model, true, chunk), &wanted));
    println!("llama.cpp from itself {own:.4?}, our kernels from it {ours:.4?}");
    let limit = 1.5 * own.into_iter().fold(0.01, f64::max);
    assert!(ours.iter().all(|distance| *distance < limit), "{ours:?} against {own:?}");
}

/// The median difference of a row, as a share of the row.
fn distance(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let row =
        |(a, b): (&Vec<f32>, &Vec<f32>)| norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied());
    let mut all: Vec<f64> = a.iter().zip(b).map(row).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

#[test]
fn progress_is_heard_in_order_up_to_the_end() {
    let mut heard = Vec::new();
    Model::load(Backend::init().unwrap(), &smollm2(), &ModelParams::default(), &mut |fraction| {
        heard.push(fraction);
        true
    })
    .unwrap();
    assert!(heard.is_sorted() && heard.last() == Some(&1.0), "{heard:?}");
}

#[test]
fn a_model_and_its_vocabulary_cross_threads() {
    let vocab = model().vocab().unwrap();
    let tokens = std::thread::spawn(move || vocab.tokenize("Hello <|im_end|>", false, true).unwrap()).join().unwrap();
    assert_eq!(tokens.len(), 3, "the control token is read as one: {tokens:?}");
}

/// What llama.cpp logs reaches `tracing` with its level and target. In a process of its own, since tracing decides once for
/// each place that logs whether somebody listens, and other tests may come first.
#[test]
fn the_log_goes_to_tracing_level_for_level() {
    let mut command = crate::support::shimmy();
    let output = command.env("RUST_LOG", "llama.cpp=info").arg("probe").arg(smollm2()).output().unwrap();
    let log = crate::support::stderr(&output);
    assert!(log.lines().any(|line| line.contains(" INFO llama.cpp: llama_model_loader: loaded meta data")), "{log}");
    assert!(!log.contains("DEBUG"), "{log}");
}

/// Whether a file compiles against the library at `lib`, and the first lines of what the compiler says otherwise.
fn compile(lib: &Path, file: &Path) -> Result<(), Vec<String>> {
    let out = tempfile::tempdir().unwrap();
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition=2024", "--crate-type=bin", "--emit=metadata", "--color=never", "--out-dir"]).arg(out.path());
    rustc.arg("-L").arg(format!("dependency={}", lib.parent().unwrap().display()));
    rustc.arg("--extern").arg(format!("shimmy={}", lib.display())).arg(file);
    let output = rustc.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let errors = said.lines().filter(|line| line.starts_with("error[")).map(str::to_owned).collect();
    if output.status.success() { Ok(()) } else { Err(errors) }
}

/// What must not compile, each file with the errors that it must give. The library that this test is linked with lies beside it; the
/// newest one that a sound program compiles against is it.
#[test]
fn misuse_that_the_compiler_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let sound = dir.path().join("sound.rs");
    std::fs::write(&sound, "fn size(c: &shimmy::llama::Context) -> usize { c.n_ctx() }\nfn main() { let _ = size; }\n")
        .unwrap();
    let files = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let mut libs = files(std::env::current_exe().unwrap().parent().unwrap());
    libs.retain(|path| {
        path.file_name().unwrap().to_string_lossy().starts_with("libshimmy-")
            && path.extension().is_some_and(|end| end == "rlib")
    });
    libs.sort_by_key(|path| path.metadata().unwrap().modified().unwrap());
    let lib =
        libs.iter().rev().find(|lib| compile(lib, &sound).is_ok()).expect("the library that this test is linked with");
    let misuses = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fail"));
    assert_eq!(misuses.len(), 4);
    for file in misuses {
        let source = std::fs::read_to_string(&file).unwrap();
        let expected: Vec<_> = source.lines().filter_map(|line| line.strip_prefix("//~ ")).map(str::to_owned).collect();
        assert_eq!(compile(lib, &file), Err(expected), "{}", file.display());
    }
}
