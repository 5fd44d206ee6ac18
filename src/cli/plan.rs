//! `shimmy plan`: what would go where, before anything is loaded.

use clap::Args;

use crate::config::Config;
use crate::placement::MemoryPlan;

use super::output;

/// Shows what loading a model would take on each device, whether it fits, and what would if not. Reads no weights.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  shimmy plan ./model.gguf
  shimmy --ctx-size 65536 --parallel 16 plan ./model.gguf --json
  shimmy --gpu-backend cuda --gpu-layers auto plan ./model.gguf")]
pub(super) struct PlanArgs {
    /// A model's name, or the path of a GGUF file.
    name: String,
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &PlanArgs, config: &Config) -> anyhow::Result<()> {
    let (registry, name) = config.registry_for(&args.name);
    let plan = registry.plan(&name)?;
    if args.json {
        return output::print_json(&serde_json::to_value(&plan)?);
    }
    show(&name, &plan)
}

fn show(name: &str, plan: &MemoryPlan) -> anyhow::Result<()> {
    let verdict = if plan.fits { "fits" } else { "does not fit" };
    let layers = match plan.gpu_layers {
        0 => format!("all {} layers on the CPU", plan.total_layers),
        n => format!("{n} of {} layers on {}", plan.total_layers, plan.backend),
    };
    let (context, parallel) = (plan.context_tokens, plan.parallel);
    output::print(format!(
        "{name} {verdict}: {layers}, ctx {context}, {parallel} requests at a time ({})\n\n",
        plan.why
    ))?;
    if let Some(refusal) = &plan.refusal {
        output::print(format!("{refusal}\n\n"))?;
        return show_alternatives(plan);
    }
    let rows = plan.devices.iter().map(|device| {
        let usage = &device.usage;
        let mut row = vec![usage.name.clone(), usage.layers.to_string()];
        row.extend(
            [usage.total_bytes() - usage.context_bytes - usage.compute_bytes, usage.context_bytes, usage.compute_bytes]
                .map(output::bytes),
        );
        row.extend([device.needed_bytes, device.free_bytes].map(output::bytes));
        row.push(if device.fits { "yes" } else { "no" }.into());
        row
    });
    output::print(output::table(
        &["DEVICE", "LAYERS", "WEIGHTS", "KV CACHE", "COMPUTE", "NEEDED", "FREE", "FITS"],
        &[1, 2, 3, 4, 5, 6],
        rows.collect(),
    ))?;
    show_alternatives(plan)
}

fn show_alternatives(plan: &MemoryPlan) -> anyhow::Result<()> {
    for alternative in &plan.alternatives {
        output::print(format!("  {}: {}", alternative.text, alternative.options))?;
    }
    Ok(())
}
