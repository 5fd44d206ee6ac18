//! How long finding models takes when the file system's cache is warm.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use shimmy::gguf::writer::tiny_llama;
use shimmy::library::{Machine, Os, SearchPath, survey};

/// `dir` alone, with nothing of this machine's own.
fn only(dir: &Path) -> Vec<SearchPath> {
    let nothing = Machine { os: Os::MacOs, var: &|_| None, text: &|_| None };
    nothing.search_paths(&[dir.to_owned()])
}

/// A folder of `n` files, each `every`-th of them a model.
fn folder(n: usize, every: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let model = tiny_llama().to_bytes();
    for number in 0..n {
        let sub = dir.path().join(format!("{:02}", number % 50));
        fs::create_dir_all(&sub).expect("created");
        if number % every == 0 {
            fs::write(sub.join(format!("m-{number}-7b-q4_0.gguf")), &model).expect("written");
        } else {
            fs::write(sub.join(format!("{number}.safetensors")), "").expect("written");
        }
    }
    dir
}

/// A vocabulary as large as today's models have, which is most of a header.
fn large_vocabularies(n: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let tokens: Vec<String> = (0..150_000).map(|id| format!("token{id}")).collect();
    let merges: Vec<String> = (0..300_000).map(|id| format!("a{id} b{id}")).collect();
    let mut model = tiny_llama();
    model
        .strings("tokenizer.ggml.tokens", &tokens)
        .strings("tokenizer.ggml.merges", &merges)
        .i32s("tokenizer.ggml.token_type", &vec![1; tokens.len()]);
    let bytes = model.to_bytes();
    for number in 0..n {
        fs::write(dir.path().join(format!("m-{number}-7b.gguf")), &bytes).expect("written");
    }
    dir
}

fn discovery(c: &mut Criterion) {
    let cases = [
        ("10000_files_100_models", folder(10_000, 100), 100),
        ("10000_models", folder(10_000, 1), 10_000),
        ("40_models_large_vocabulary", large_vocabularies(40), 40),
    ];
    let mut group = c.benchmark_group("discovery");
    group.sample_size(10);
    for (name, dir, models) in &cases {
        let paths = only(dir.path());
        assert_eq!(survey(&paths).models.len(), *models, "{name}");
        group.bench_function(*name, |b| b.iter(|| survey(black_box(&paths))));
    }
    group.finish();
}

criterion_group!(benches, discovery);
criterion_main!(benches);
