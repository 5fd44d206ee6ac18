//! `shimmy show`.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use crate::config::Config;
use crate::library::{Found, OllamaLayers, Shards, examine, survey};
use crate::registry::ModelStatus;

use super::{list, output};

/// Shows what is known of a model without loading it: its file, its header, and what belongs to it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  shimmy show smollm2
  shimmy show ./model.gguf --json
  shimmy show smollm2 --chat-template")]
pub(super) struct ShowArgs {
    /// A name of `shimmy list`, one of its aliases, or a GGUF file.
    name: String,
    #[arg(long)]
    json: bool,
    /// The chat template alone.
    #[arg(long, conflicts_with = "json")]
    chat_template: bool,
}

pub(super) fn run(args: &ShowArgs, config: &Config) -> anyhow::Result<()> {
    let path = Path::new(&args.name);
    if path.is_file() || path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("gguf")) {
        return show(args, &whole(path)?);
    }
    let library = survey(&config.search_paths());
    let status = config.registry_of(&config.catalog_of(library.models.clone())).status(&args.name)?;
    let found = library.models.into_iter().find(|model| model.name == status.name);
    match (found, &status.path) {
        (Some(found), _) => show(args, &found),
        (None, Some(path)) => show(args, &whole(Path::new(path))?),
        (None, None) => show_made(args, &status),
    }
}

fn whole(path: &Path) -> anyhow::Result<Found> {
    examine(path).map_err(|problem| anyhow::anyhow!("{}: {}", problem.path.display(), problem.what))
}

fn show(args: &ShowArgs, model: &Found) -> anyhow::Result<()> {
    let template = model.facts.template.as_deref();
    if args.chat_template {
        let template = template.ok_or_else(|| anyhow::anyhow!("{} has no chat template", model.name))?;
        return output::print(template);
    }
    if args.json {
        let mut value = json!(model);
        value["template"] = template.map_or(Value::Null, Value::from);
        return output::print_json(&value);
    }
    let mut rows = vec![("name", model.name.clone())];
    let mut add = |label, value: String| {
        if !value.is_empty() {
            rows.push((label, value));
        }
    };
    let facts = &model.facts;
    add("also", model.aliases.join(", "));
    add("title", facts.title.clone().unwrap_or_default());
    add("file", model.path.display().to_string());
    add("found by", model.because.into());
    add("size", output::bytes(model.size_bytes));
    add("shards", model.shards.as_ref().map(shards).unwrap_or_default());
    add("architecture", facts.architecture.clone());
    add("parameters", output::count(facts.parameters));
    add("quantization", facts.quantization.clone());
    add("context", format!("{} tokens", facts.trained_context_tokens));
    add("capabilities", list::capabilities(facts));
    let length = |text: &str| format!("{} characters; --chat-template shows it", text.chars().count());
    add("chat template", template.map_or_else(|| "none".into(), length));
    add("projector", model.projector.iter().map(|path| path.display().to_string()).collect());
    for adapter in &model.adapters {
        add("adapter", adapter.display().to_string());
    }
    add("license", facts.license.clone().unwrap_or_default());
    model.ollama.iter().for_each(|layers| ollama(layers, &mut add));
    print_rows(&rows)
}

fn shards(shards: &Shards) -> String {
    shards.lack().unwrap_or_else(|| format!("{} files", shards.total))
}

/// What Ollama keeps beside the weights.
fn ollama(layers: &OllamaLayers, add: &mut impl FnMut(&'static str, String)) {
    let first_line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    add("Ollama system", layers.system.as_deref().map(first_line).unwrap_or_default());
    let parameters = layers.parameters.iter().map(|(key, value)| format!("{key}={value}"));
    add("Ollama options", parameters.collect::<Vec<_>>().join(" "));
    for adapter in &layers.adapters {
        add("with adapter", adapter.display().to_string());
    }
}

/// A model without a file, such as the stub.
fn show_made(args: &ShowArgs, status: &ModelStatus) -> anyhow::Result<()> {
    if args.json {
        return output::print_json(&json!(status));
    }
    print_rows(&[("name", status.name.clone()), ("file", "none".into())])
}

fn print_rows(rows: &[(&str, String)]) -> anyhow::Result<()> {
    let lines: Vec<_> = rows.iter().map(|(label, value)| format!("{label:<15} {value}")).collect();
    output::print(lines.join("\n"))
}
