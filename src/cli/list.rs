//! `shimmy list` and `shimmy discover`.

use clap::Args;
use serde_json::{Value, json};

use crate::config::Config;
use crate::library::{Capability, Facts, Found, Library, PartKind, Shards, survey};
use crate::registry::ModelStatus;

use super::output;

/// Lists the models that can be served, and the space that they take.
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

/// Shows where models are looked for, what is found in each place, and what could not be used.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  SHIMMY_MODEL_PATHS=/models shimmy discover")]
pub(super) struct DiscoverArgs {
    #[arg(long)]
    json: bool,
}

pub(super) fn list(args: &ListArgs, config: &Config) -> anyhow::Result<()> {
    let library = survey(&config.search_paths());
    let statuses = config.registry_of(&config.catalog_of(library.models.clone())).list();
    if args.json {
        let models: Vec<_> = statuses.iter().map(|status| listed(status, found(&library, status))).collect();
        return output::print_json(&json!({
            "models": models,
            "parts": library.parts,
            "disk_bytes": library.disk_bytes,
        }));
    }
    if args.short {
        let names: Vec<_> = statuses.iter().map(|status| status.name.as_str()).collect();
        return if names.is_empty() { Ok(()) } else { output::print(names.join("\n")) };
    }
    if statuses.is_empty() {
        return nothing_found(config);
    }
    let headers = ["NAME", "SIZE", "PARAMETERS", "QUANTIZATION", "CONTEXT", "ARCHITECTURE", "CAPABILITIES"];
    output::print(output::table(&headers, &[1, 2, 4], statuses.iter().map(row).collect()))?;
    for model in &library.models {
        if let Some(lack) = model.shards.as_ref().and_then(Shards::lack) {
            output::print(format!("{}: {lack}", model.name))?;
        }
    }
    output::print(format!("\n{}", disk_use(&library)))
}

/// `3 models, 1 projector: 12.3 GB on disk`.
fn disk_use(library: &Library) -> String {
    let of = |kind| library.parts.iter().filter(|part| part.kind == kind).count();
    let counts =
        [(library.models.len(), "model"), (of(PartKind::Projector), "projector"), (of(PartKind::Adapter), "adapter")];
    let counted = |(n, what): &(usize, &str)| format!("{n} {what}{}", if *n == 1 { "" } else { "s" });
    let shown: Vec<_> = counts.iter().filter(|(n, what)| *n > 0 || *what == "model").map(counted).collect();
    format!("{}: {} on disk", shown.join(", "), output::bytes(library.disk_bytes))
}

fn found<'a>(library: &'a Library, status: &ModelStatus) -> Option<&'a Found> {
    let at = library.models.binary_search_by(|model| model.name.cmp(&status.name)).ok()?;
    Some(&library.models[at])
}

/// A model's state, and where it comes from.
fn listed(status: &ModelStatus, found: Option<&Found>) -> Value {
    let mut value = json!(status);
    if let (Some(fields), Some(found)) = (value.as_object_mut(), found) {
        fields.insert("aliases".into(), json!(found.aliases));
        fields.insert("because".into(), json!(found.because));
        if let Some(shards) = &found.shards {
            fields.insert("shards".into(), json!(shards));
        }
        if let Some(projector) = &found.projector {
            fields.insert("projector".into(), json!(projector));
        }
        if !found.adapters.is_empty() {
            fields.insert("adapters".into(), json!(found.adapters));
        }
    }
    value
}

fn row(status: &ModelStatus) -> Vec<String> {
    let fact = |show: fn(&Facts) -> String| status.facts.as_ref().map_or_else(|| "-".into(), show);
    vec![
        status.name.clone(),
        output::bytes(status.size_bytes),
        fact(|facts| output::count(facts.parameters)),
        fact(|facts| facts.quantization.clone()),
        fact(|facts| facts.trained_context_tokens.to_string()),
        fact(|facts| facts.architecture.clone()),
        fact(capabilities),
    ]
}

/// Every model that chats goes on with texts, so that need not be said.
pub(super) fn capabilities(facts: &Facts) -> String {
    let told = |capability: &&Capability| **capability != Capability::Completion || !facts.can(Capability::Chat);
    facts.capabilities.iter().filter(told).map(|capability| capability.name()).collect::<Vec<_>>().join(" ")
}

pub(super) fn discover(args: &DiscoverArgs, config: &Config) -> anyhow::Result<()> {
    let places = config.search_paths();
    let library = survey(&places);
    if args.json {
        let places: Vec<_> = places
            .iter()
            .map(|place| json!({ "dir": place.dir, "because": place.because, "exists": place.dir.exists() }))
            .collect();
        return output::print_json(&json!({
            "searched": places,
            "models": library.models,
            "parts": library.parts,
            "problems": library.problems,
            "disk_bytes": library.disk_bytes,
        }));
    }
    let rows = places.iter().map(|place| {
        let state = if place.dir.exists() { "searched" } else { "absent" };
        vec![place.dir.display().to_string(), place.because.into(), state.into()]
    });
    output::print(output::table(&["DIRECTORY", "BECAUSE OF", "STATE"], &[], rows.collect()))?;
    output::print("\n")?;
    if library.models.is_empty() {
        nothing_found(config)?;
    } else {
        let row = |model: &Found| {
            let path = model.path.display().to_string();
            vec![model.name.clone(), output::bytes(model.size_bytes), model.facts.architecture.clone(), path]
        };
        let rows = library.models.iter().map(row);
        output::print(output::table(&["NAME", "SIZE", "ARCHITECTURE", "PATH"], &[1], rows.collect()))?;
    }
    show_parts(&library)?;
    show_problems(&library)
}

fn show_parts(library: &Library) -> anyhow::Result<()> {
    if library.parts.is_empty() {
        return Ok(());
    }
    let rows = library.parts.iter().map(|part| {
        let kind = match part.kind {
            PartKind::Projector => "projector",
            PartKind::Adapter => "adapter",
        };
        let models = if part.models.is_empty() { "no model here".into() } else { part.models.join(", ") };
        vec![kind.into(), output::bytes(part.size_bytes), models, part.path.display().to_string()]
    });
    output::print("\n")?;
    output::print(output::table(&["PART", "SIZE", "OF", "PATH"], &[1], rows.collect()))
}

fn show_problems(library: &Library) -> anyhow::Result<()> {
    if library.problems.is_empty() {
        return Ok(());
    }
    let rows = library.problems.iter().map(|problem| vec![problem.path.display().to_string(), problem.what.clone()]);
    output::print("\n")?;
    output::print(output::table(&["NOT USED", "WHY"], &[], rows.collect()))
}

fn nothing_found(config: &Config) -> anyhow::Result<()> {
    let dirs: Vec<_> = config.search_paths().iter().map(|place| place.dir.display().to_string()).collect();
    eprintln!("no model found in {}", dirs.join(", "));
    eprintln!("put a .gguf file in one of them, or name its directory: shimmy --model-dirs DIR list");
    Ok(())
}
