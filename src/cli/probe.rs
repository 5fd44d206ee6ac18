//! `shimmy probe`: does this model really work here?

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use crate::config::Config;
use crate::engine::Priority;
use crate::runner::{Delta, GenerateSpec, Input, Sampling};
use crate::{gguf, system};

use super::output;

/// Loads a model, decodes one token and reports. Exits with 2 where that fails.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  shimmy probe ./model.gguf
  shimmy --gpu-backend vulkan probe smollm2-135m-instruct --json")]
pub(super) struct ProbeArgs {
    /// A model's name, or the path of a GGUF file.
    name: String,
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ProbeArgs, config: &Config) -> ExitCode {
    match probe(args, config).and_then(|report| show(args, &report)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            output::exit_code(&error, ExitCode::from(2))
        }
    }
}

fn probe(args: &ProbeArgs, config: &Config) -> anyhow::Result<Value> {
    let (registry, name) = config.registry_for(&args.name);
    let start = Instant::now();
    let lease = output::load(&registry, &name)?;
    let load_ms = start.elapsed().as_secs_f64() * 1e3;

    let start = Instant::now();
    let spec = GenerateSpec {
        sampling: Sampling { temperature: Some(0.0), ..Sampling::default() },
        max_tokens: Some(1),
        priority: Priority::Interactive,
        ..GenerateSpec::new(name.clone(), Input::Raw("Hello".into()))
    };
    for delta in lease.runner().generate(&spec)? {
        if let Delta::Done(summary) = delta? {
            anyhow::ensure!(summary.usage.prompt_tokens > 0, "the model decoded nothing");
        }
    }
    let decode_ms = start.elapsed().as_secs_f64() * 1e3;

    let status = registry.status(&name)?;
    let info = lease.runner().info();
    let predicted = status.path.as_deref().and_then(|path| predicted_memory(Path::new(path), info.context_tokens));
    Ok(json!({
        "name": name,
        "path": status.path,
        "description": info.description,
        "size_mb": status.size_bytes >> 20,
        "context_tokens": info.context_tokens,
        "template": info.template,
        "adapters": info.adapters,
        "placement": info.placement,
        "placement_text": info.placement.to_string(),
        "load_ms": load_ms.round(),
        "first_token_ms": decode_ms.round(),
        "peak_memory_mb": system::peak_memory().map(|bytes| bytes >> 20),
        "predicted_memory_mb": predicted.map(|bytes| bytes >> 20),
    }))
}

/// The file and the KV cache in 16-bit floats; compute buffers come on top.
fn predicted_memory(path: &Path, context_tokens: usize) -> Option<u64> {
    let header = gguf::Header::open(path).ok()?;
    let cells = u64::try_from(context_tokens).ok()?;
    let per_cell = header.kv_elements_per_token()?;
    Some(header.file_len() + cells * per_cell * 2)
}

fn show(args: &ProbeArgs, report: &Value) -> anyhow::Result<()> {
    if args.json {
        return output::print_json(report);
    }
    let text = |key: &str| match &report[key] {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".into(),
        other => other.to_string(),
    };
    let rows = [
        ("model", text("description")),
        ("file", format!("{} ({} MB)", text("path"), text("size_mb"))),
        ("context", format!("{} tokens", text("context_tokens"))),
        ("chat template", text("template")),
        ("placement", text("placement_text")),
        ("load", format!("{} ms", text("load_ms"))),
        ("first token", format!("{} ms", text("first_token_ms"))),
        (
            "peak memory",
            format!("{} MB (file and KV cache predict {} MB)", text("peak_memory_mb"), text("predicted_memory_mb")),
        ),
    ];
    for (label, value) in rows {
        output::print(format!("{label:<14} {value}"))?;
    }
    output::print("\n")?;
    super::gpu_info::show_placement(&serde_json::from_value(report["placement"].clone())?)
}
