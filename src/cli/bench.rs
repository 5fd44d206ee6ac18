//! `shimmy bench`: raw speed of a model, to compare with llama.cpp's own `llama-bench`.

use clap::Args;
use serde_json::{Value, json};

use crate::config::Config;
use crate::runner::{Measure, Runner};

use super::output;

/// Measures prompt and generation speed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  shimmy bench ./model.gguf
  shimmy --threads 4 bench smollm2-135m-instruct --repetitions 10 --json

The numbers mean what llama-bench's pp512 and tg128 mean, on one context that is reused.")]
pub(super) struct BenchArgs {
    /// A model's name, or the path of a GGUF file.
    name: String,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 512, value_name = "N")]
    prompt_tokens: usize,
    /// Tokens to generate.
    #[arg(long, default_value_t = 128, value_name = "N")]
    max_tokens: usize,
    /// How often each is measured, after one run to warm up.
    #[arg(long, short, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &BenchArgs, config: &Config) -> anyhow::Result<()> {
    let (registry, name) = config.alone("bench").registry_for(&args.name);
    let lease = output::load(&registry, &name)?;
    let runner = lease.runner();
    let prompt = measure(runner, Measure::Prompt(args.prompt_tokens), args.repetitions)?;
    let generation = measure(runner, Measure::Generation(args.max_tokens), args.repetitions)?;
    let info = runner.info();
    if args.json {
        let one = |tokens: usize, speeds: &[f64]| -> Value {
            let (mean, deviation) = spread(speeds);
            json!({ "tokens": tokens, "tokens_per_second": mean, "deviation": deviation, "runs": speeds })
        };
        return output::print_json(&json!({
            "model": name,
            "description": info.description,
            "threads": info.threads,
            "placement": info.placement,
            "prompt": one(args.prompt_tokens, &prompt),
            "generation": one(args.max_tokens, &generation),
        }));
    }
    let row = |test: String, speeds: &[f64]| {
        let (mean, deviation) = spread(speeds);
        vec![
            info.description.clone(),
            info.placement.backend.clone(),
            info.threads.to_string(),
            test,
            format!("{mean:.2} ± {deviation:.2}"),
        ]
    };
    let rows =
        vec![row(format!("pp{}", args.prompt_tokens), &prompt), row(format!("tg{}", args.max_tokens), &generation)];
    output::print(output::table(&["MODEL", "BACKEND", "THREADS", "TEST", "TOKENS/S"], &[2, 4], rows))
}

fn measure(runner: &dyn Runner, what: Measure, repetitions: u32) -> anyhow::Result<Vec<f64>> {
    runner.measure(what)?;
    (0..repetitions).map(|_| Ok(runner.measure(what)?)).collect()
}

/// Mean and standard deviation.
fn spread(values: &[f64]) -> (f64, f64) {
    #[allow(clippy::cast_precision_loss)]
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn spread_is_mean_and_sample_deviation() {
        assert_eq!(spread(&[1.0, 2.0, 3.0]), (2.0, 1.0));
        assert_eq!(spread(&[4.0]), (4.0, 0.0));
    }
}
