//! What the engine does around the model, a thousand times smaller than the model's own work: planning, the prefix
//! tree, guessing ahead.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use shimmy::engine::{Limits, Plan, PrefixTree, View, Work, guess, plan};

fn scheduler(criterion: &mut Criterion) {
    let views: Vec<View> = (0..64)
        .map(|n| View {
            work: match n % 4 {
                0 => Work::Prefill { left: 500 + n as usize, cut: usize::MAX },
                _ => Work::Decode { guesses: 0 },
            },
            deadline: (n * 7919) % 64,
            served: n,
            set: 0,
            turn: 0,
            after_image: false,
        })
        .collect();
    let limits =
        Limits { n_batch: 512, n_image: 512, n_outputs: 64, prefill: 32, tile: 64, prompts_turn: 0, exclusive: false };
    let mut pass = Plan::default();
    criterion.bench_function("plan a pass of 64 sequences", |bencher| {
        bencher.iter(|| {
            plan(&views, limits, &mut pass);
            pass.shares.len()
        });
    });
}

/// A conversation's beginning that all share, and what each says of its own.
fn conversation(seq: u32, len: u32) -> Vec<u32> {
    (0..600).chain((0..len).map(|n| 1000 + seq * 10_000 + n)).collect()
}

fn prefix_tree(criterion: &mut Criterion) {
    let mut tree = PrefixTree::new(64);
    (0..32).for_each(|seq| tree.set(seq, 0, &conversation(seq, 400)));
    let mut group = criterion.benchmark_group("prefix tree of 32 conversations");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("find the longest beginning of 1,000 tokens", |bencher| {
        let asked = conversation(17, 400);
        bencher.iter(|| tree.matches(0, &asked).max_by_key(|found| found.len));
    });
    group.bench_function("enter and leave with 1,000 tokens", |bencher| {
        let tokens = conversation(40, 400);
        bencher.iter(|| {
            tree.set(40, 0, &tokens);
            tree.remove(40);
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("go on by a token", |bencher| {
        bencher.iter_batched_ref(
            || {
                let mut tree = PrefixTree::new(4);
                tree.set(0, 0, &conversation(0, 400));
                tree
            },
            |tree| tree.extend(0, &[7]),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn lookup(criterion: &mut Criterion) {
    let tokens: Vec<u32> = (0..4000).map(|n| (n * n) % 5003).collect();
    let mut guesses = Vec::new();
    criterion.bench_function("guess after 4,000 tokens that do not repeat", |bencher| {
        bencher.iter(|| {
            guesses.clear();
            guess(&tokens, 8, &mut guesses);
            guesses.len()
        });
    });
}

criterion_group!(benches, scheduler, prefix_tree, lookup);
criterion_main!(benches);
