//! The per-token path after the model: stop strings, characters across tokens, frames.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shimmy::api::{Encoder, shimmy::SseEncoder};
use shimmy::engine::{Detokenizer, StopMatcher};
use shimmy::runner::Delta;

/// 1,000 pieces, as a tokeniser cuts text; every tenth ends inside a character.
fn pieces() -> Vec<Vec<u8>> {
    (0..1000)
        .flat_map(|n| match n % 10 {
            9 => vec!["é".as_bytes()[..1].to_vec(), "é".as_bytes()[1..].to_vec()],
            _ => vec![format!(" word{n}").into_bytes()],
        })
        .collect()
}

fn text(criterion: &mut Criterion) {
    let pieces = pieces();
    let mut group = criterion.benchmark_group("text");
    group.throughput(Throughput::Elements(pieces.len() as u64));
    for (name, stops) in [("no stop strings", vec![]), ("three stop strings", vec!["</s>", "\n\nUser:", " word999x"])] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut detokenizer = Detokenizer::default();
                let mut matcher = StopMatcher::new(stops.iter().map(|stop| (*stop).to_owned()));
                let (mut whole, mut shown) = (String::new(), String::new());
                for piece in &pieces {
                    detokenizer.buffer().extend_from_slice(piece);
                    whole.clear();
                    detokenizer.take(&mut whole);
                    matcher.push(&whole, &mut shown);
                }
                shown.len()
            });
        });
    }
    group.bench_function("server-sent events", |bencher| {
        let deltas: Vec<Delta> =
            pieces.iter().map(|piece| Delta::Content(String::from_utf8_lossy(piece).into())).collect();
        bencher.iter(|| {
            let (mut encoder, mut out) = (SseEncoder::default(), Vec::new());
            deltas.iter().for_each(|delta| encoder.delta(delta, &mut out));
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, text);
criterion_main!(benches);
