//! Prompt and generation speed on each backend that is compiled in and finds a device.
//!
//! `cargo bench --bench decode` on the CPU; `cargo bench --features llama-vulkan --bench decode` adds Vulkan, and so on.
//! The model is `SHIMMY_BENCH_MODEL`, else the default one in the cache.

use std::path::PathBuf;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shimmy::engine::measure;
use shimmy::llama::{Backend, Context, ContextParams, Model, ModelParams};
use shimmy::placement::{GpuBackend, PlacementSpec};
use shimmy::runner::offload_for;

const PROMPT: usize = 512;
const GENERATION: usize = 32;

fn model_path() -> PathBuf {
    if let Some(path) = std::env::var_os("SHIMMY_BENCH_MODEL") {
        return path.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"), PathBuf::from);
    cache.join("shimmy/models/smollm2-135m-instruct.q4_1.gguf")
}

fn context(gpu: GpuBackend) -> Result<Context, String> {
    let backend = Backend::init().map_err(|e| e.to_string())?;
    let asked = PlacementSpec { gpu_backend: gpu, ..PlacementSpec::default() };
    let offload = offload_for(backend, &asked).map_err(|e| e.to_string())?;
    let params = ModelParams { offload, ..ModelParams::default() };
    let model = Model::load(backend, &model_path(), &params, &mut |_| true).map_err(|e| e.to_string())?;
    Context::new(&model, &ContextParams { n_ctx: 1024, ..ContextParams::default() }).map_err(|e| e.to_string())
}

fn decode(criterion: &mut Criterion) {
    for gpu in [GpuBackend::Cpu, GpuBackend::Cuda, GpuBackend::Vulkan, GpuBackend::OpenCl, GpuBackend::Metal] {
        let mut context = match context(gpu) {
            Ok(context) => context,
            Err(why) => {
                println!("{}: not measured: {why}", gpu.name());
                continue;
            }
        };
        let mut group = criterion.benchmark_group(gpu.name());
        group.sample_size(10).measurement_time(Duration::from_secs(20));
        group.throughput(Throughput::Elements(PROMPT as u64));
        group.bench_function(BenchmarkId::new("prompt", PROMPT), |bencher| {
            bencher.iter(|| measure::prompt_speed(&mut context, PROMPT).expect("decodes"));
        });
        group.throughput(Throughput::Elements(GENERATION as u64));
        group.bench_function(BenchmarkId::new("generation", GENERATION), |bencher| {
            bencher.iter(|| measure::generation_speed(&mut context, GENERATION).expect("decodes"));
        });
        group.finish();
    }
}

criterion_group!(benches, decode);
criterion_main!(benches);
