//! What an image takes on the CPU by the size of a projector's heads, at the same number of floats in all:
//! `cargo bench --bench projector`. Prints what heads of 72 take for one of 64.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use shimmy::gguf::writer::tiny_llama;
use shimmy::llama::{Backend, CutImage, ImagePart, Model, ModelParams, Projector, ProjectorParams};

#[path = "../tests/it/support"]
#[allow(dead_code, clippy::unwrap_used)]
mod support {
    pub mod tiny;
    pub mod vision;
}

use support::tiny::Files;
use support::vision;

/// Floats of a patch: nine heads of 64, or eight of 72.
const WIDTH: u32 = 576;
/// Patches on a side.
const SIDE: u32 = 48;

fn encode(image: &CutImage) {
    for part in image.parts() {
        if let ImagePart::Rows(rows) = part {
            image.encode(rows).expect("it computes");
        }
    }
}

fn heads(criterion: &mut Criterion) {
    let files = Files::new();
    let backend = Backend::init().expect("llama.cpp");
    let path = files.write("model.gguf", &tiny_llama());
    let model = Model::load(backend, &path, &ModelParams::default(), &mut |_| true).expect("a model");
    let params = ProjectorParams { device: None, threads: shimmy::engine::default_threads() };
    let side = SIDE * vision::PATCH;
    let rgb: Vec<u8> = (0..side * side * 3).map(|at| (at * 7 % 251) as u8).collect();
    let images: Vec<(u32, CutImage)> = [64, 72]
        .map(|size| {
            let path = files.write("mmproj.gguf", &vision::of_width(WIDTH, WIDTH / size, SIDE));
            let (projector, _) = Projector::load(&model, &path, &params).expect("a projector");
            (size, projector.cut(&rgb, side, side).expect("an image"))
        })
        .into();
    let mut group = criterion.benchmark_group("heads");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    for (size, image) in &images {
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| bencher.iter(|| encode(image)));
    }
    group.finish();
    // In turn, as the machine's speed drifts.
    let mut took = [Duration::ZERO; 2];
    for _ in 0..5 {
        for ((_, image), took) in images.iter().zip(&mut took) {
            let begun = Instant::now();
            encode(image);
            *took += begun.elapsed();
        }
    }
    println!("heads of 72 take {:.2} of what heads of 64 take", took[1].as_secs_f64() / took[0].as_secs_f64());
}

criterion_group!(benches, heads);
criterion_main!(benches);
