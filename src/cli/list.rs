//! `shimmy list` and `shimmy discover`.

use clap::Args;
use serde_json::json;

use crate::config::Config;
use crate::registry::{Facts, ModelStatus, discover as find, search_paths};

use super::output;

/// Lists the models that can be served.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  shimmy list
  shimmy list --short | head -1
  shimmy --model-dirs '/models;/more' list --json")]
pub(super) struct ListArgs {
    /// Names only.
    #[arg(long, conflicts_with = "json")]
    short: bool,
    #[arg(long)]
    json: bool,
}

/// Shows where models are looked for, and what is found in each place.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  SHIMMY_MODEL_PATHS=/models shimmy discover")]
pub(super) struct DiscoverArgs {
    #[arg(long)]
    json: bool,
}

pub(super) fn list(args: &ListArgs, config: &Config) -> anyhow::Result<()> {
    let registry = config.registry();
    let statuses = registry.list();
    if args.json {
        return output::print_json(&json!({ "models": statuses }));
    }
    if args.short {
        let names: Vec<_> = statuses.iter().map(|status| status.name.as_str()).collect();
        return if names.is_empty() { Ok(()) } else { output::print(names.join("\n")) };
    }
    if statuses.is_empty() {
        return nothing_found(config);
    }
    let rows = statuses.iter().map(row);
    output::print(output::table(&["NAME", "SIZE", "PARAMETERS", "QUANTIZATION", "CONTEXT"], &[1, 2, 4], rows.collect()))
}

fn row(status: &ModelStatus) -> Vec<String> {
    let fact = |show: fn(&Facts) -> String| status.facts.as_ref().map_or_else(|| "-".into(), show);
    vec![
        status.name.clone(),
        output::bytes(status.size_bytes),
        fact(|facts| output::count(facts.parameters)),
        fact(|facts| facts.quantization.clone()),
        fact(|facts| facts.trained_context_tokens.to_string()),
    ]
}

pub(super) fn discover(args: &DiscoverArgs, config: &Config) -> anyhow::Result<()> {
    let places = search_paths(&config.model_dirs);
    let found = find(&places);
    if args.json {
        let places: Vec<_> = places
            .iter()
            .map(|place| json!({ "dir": place.dir, "because": place.because, "exists": place.dir.is_dir() }))
            .collect();
        return output::print_json(&json!({ "searched": places, "models": found }));
    }
    let rows = places.iter().map(|place| {
        let state = if place.dir.is_dir() { "searched" } else { "absent" };
        vec![place.dir.display().to_string(), place.because.into(), state.into()]
    });
    output::print(output::table(&["DIRECTORY", "BECAUSE OF", "STATE"], &[], rows.collect()))?;
    output::print("\n")?;
    if found.is_empty() {
        return nothing_found(config);
    }
    let rows = found.iter().map(|model| {
        vec![
            model.name.clone(),
            output::bytes(model.size_bytes),
            model.facts.architecture.clone(),
            model.path.display().to_string(),
        ]
    });
    output::print(output::table(&["NAME", "SIZE", "ARCHITECTURE", "PATH"], &[1], rows.collect()))
}

fn nothing_found(config: &Config) -> anyhow::Result<()> {
    let dirs: Vec<_> = search_paths(&config.model_dirs).iter().map(|place| place.dir.display().to_string()).collect();
    eprintln!("no model found in {}", dirs.join(", "));
    eprintln!("put a .gguf file in one of them, or name its directory: shimmy --model-dirs DIR list");
    Ok(())
}
