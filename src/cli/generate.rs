//! `shimmy generate`.

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use crate::chat::{Image, Message, Role};
use crate::config::Config;
use crate::constrain::Constraint;
use crate::engine::{Priority, Summary};
use crate::runner::{Delta, GenerateSpec, Infill, Input, Sampling};

use super::output;

/// Generates text and streams it to stdout.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  shimmy generate smollm2-135m-instruct --prompt 'Why is the sky blue?'
  git diff | shimmy generate ./model.gguf --system 'Write a commit message.' --prompt -
  shimmy generate ./model.gguf --prompt 'Once upon a time' --raw --max-tokens 64 --seed 1
  shimmy generate ./model.gguf --image ./cat.jpg --prompt 'What is this?'
  shimmy generate ./model.gguf --prompt 'Hi' --json | jq .timings")]
pub(super) struct GenerateArgs {
    /// A model's name, or the path of a GGUF file.
    #[arg(required_unless_present = "model_name", value_name = "NAME")]
    model: Option<String>,
    /// The same, as 1.x spelled it.
    #[arg(long = "name", value_name = "NAME", conflicts_with = "model", id = "model_name")]
    name: Option<String>,
    /// What to ask. `-` reads it from stdin.
    #[arg(long, short, allow_hyphen_values = true)]
    prompt: String,
    /// Instructions in front of the prompt.
    #[arg(long, conflicts_with = "raw", allow_hyphen_values = true)]
    system: Option<String>,
    /// An image in front of the prompt, for models that look at some. Can be given more than once.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["raw", "suffix"])]
    image: Vec<PathBuf>,
    /// Send the prompt as it is, without the model's chat template.
    #[arg(long)]
    raw: bool,
    /// What stands behind a gap that follows the prompt; the model fills it.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["system", "raw"], allow_hyphen_values = true)]
    suffix: Option<String>,
    /// Most tokens to generate [default: to the end of the context].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_tokens: Option<u32>,
    /// 0 always takes the most likely token [default: 0.8].
    #[arg(long, allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Keep the K most likely tokens, 0 keeps all [default: 40].
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    top_k: Option<u32>,
    /// Keep the most likely tokens up to this probability [default: 0.95].
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Drop tokens less likely than this share of the best [default: 0.05].
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Locally typical sampling, 1 is off [default: 1].
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    typical_p: Option<f32>,
    /// Divides the logits of repeated tokens, 1 is off [default: 1].
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repeat_penalty: Option<f32>,
    /// Subtracted once per occurrence, 0 is off [default: 0].
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Subtracted from tokens that occurred, 0 is off [default: 0].
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// The same seed gives the same text again.
    #[arg(long, allow_negative_numbers = true)]
    seed: Option<u32>,
    /// Ends the text before this string. Can be given more than once.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// A regular expression that the whole text must match.
    #[arg(long, value_name = "REGEX", group = "form", allow_hyphen_values = true)]
    regex: Option<String>,
    /// A file with a JSON schema that the text must match.
    #[arg(long, value_name = "FILE", group = "form")]
    json_schema: Option<PathBuf>,
    /// A file with a grammar in Lark's syntax that the text must keep to.
    #[arg(long, value_name = "FILE", group = "form")]
    lark: Option<PathBuf>,
    /// A file with a grammar in llama.cpp's syntax, GBNF.
    #[arg(long, value_name = "FILE", group = "form")]
    grammar: Option<PathBuf>,
    /// Print one JSON object with text, usage and timings instead of streaming.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &GenerateArgs, config: &Config) -> anyhow::Result<()> {
    let asked = args.model.as_deref().or(args.name.as_deref()).unwrap_or_default();
    let mut spec = spec(args, prompt_text(&args.prompt)?, images(args)?);
    spec.constraint = form(args)?;
    spec.sampling.validate().map_err(anyhow::Error::msg)?;
    let (registry, name) = alone(args, &spec, config).registry_for(asked);
    let lease = output::load(&registry, &name)?;
    let deltas = lease.runner().generate(&spec)?;

    let mut out = std::io::stdout().lock();
    let (mut text, mut summary): (String, Option<Summary>) = (String::new(), None);
    for delta in deltas {
        match delta {
            Ok(Delta::Content(more)) if args.json => text.push_str(&more),
            Ok(Delta::Content(more)) => {
                out.write_all(more.as_bytes())?;
                out.flush()?;
            }
            Ok(Delta::Done(done)) => summary = Some(done),
            // Its answer is all text.
            Ok(Delta::Reasoning(_) | Delta::ToolCall(_) | Delta::Logprobs(_)) => {}
            Err(error) => {
                // What was written so far ends in a line of its own.
                writeln!(out)?;
                return Err(error.into());
            }
        }
    }
    let Some(summary) = summary else { bail!("the generation ended without a final event") };
    drop(out);
    if args.json {
        return output::print_json(&json!({
            "model": name,
            "text": text,
            "done_reason": summary.reason,
            "seed": summary.seed,
            "usage": summary.usage,
            "timings": summary.timings,
            "placement": lease.runner().info().placement,
        }));
    }
    output::print("\n")?;
    eprintln!(
        "{} tokens at {:.1} tokens/s, first after {:.0} ms",
        summary.usage.completion_tokens, summary.timings.tokens_per_second, summary.timings.ttft_ms
    );
    Ok(())
}

/// The settings for one request that has the model to itself.
fn alone(args: &GenerateArgs, spec: &GenerateSpec, config: &Config) -> Config {
    /// What a chat template may put around the messages.
    const TEMPLATE_TOKENS: usize = 1024;
    let mut config = config.alone("generate");
    // No tokeniser makes more tokens than there are bytes.
    let bytes = match &spec.input {
        Input::Raw(text) => text.len(),
        Input::Tokens(tokens) => tokens.len(),
        Input::Messages(messages) => messages.iter().map(|message| message.content.len()).sum(),
        Input::Infill(gap) => gap.before.len() + gap.behind.len(),
    };
    // What an image takes is known when it was looked at.
    config.asked.needed_tokens = args
        .max_tokens
        .filter(|_| args.image.is_empty())
        .map(|max_tokens| u32::try_from(bytes + TEMPLATE_TOKENS).unwrap_or(u32::MAX).saturating_add(max_tokens));
    config
}

/// The form that is asked for.
fn form(args: &GenerateArgs) -> anyhow::Result<Option<Constraint>> {
    let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    Ok(match args {
        GenerateArgs { regex: Some(regex), .. } => Some(Constraint::Regex(regex.clone())),
        GenerateArgs { json_schema: Some(path), .. } => {
            let schema = serde_json::from_str(&read(path)?);
            Some(Constraint::JsonSchema(schema.with_context(|| format!("{} is no JSON", path.display()))?))
        }
        GenerateArgs { lark: Some(path), .. } => Some(Constraint::Lark(read(path)?)),
        GenerateArgs { grammar: Some(path), .. } => Some(Constraint::Gbnf(read(path)?)),
        _ => None,
    })
}

fn prompt_text(prompt: &str) -> anyhow::Result<String> {
    if prompt != "-" {
        return Ok(prompt.to_owned());
    }
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).context("reading the prompt from stdin")?;
    String::from_utf8(bytes).map_err(|e| {
        anyhow::anyhow!(
            "the prompt from stdin is not UTF-8: byte {} is the first that does not fit",
            e.utf8_error().valid_up_to()
        )
    })
}

/// Of an image's file: as many as a request may have.
const MOST_BYTES: u64 = 32 << 20;

fn images(args: &GenerateArgs) -> anyhow::Result<Vec<Image>> {
    let read = |path: &PathBuf| {
        let mut file = Vec::new();
        let mut source = std::fs::File::open(path)?.take(MOST_BYTES + 1);
        source.read_to_end(&mut file)?;
        if file.len() as u64 > MOST_BYTES {
            Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge))
        } else {
            Ok(file)
        }
    };
    let image = |path| Ok(Image::new(read(path).with_context(|| format!("reading {}", path.display()))?));
    args.image.iter().map(image).collect()
}

fn spec(args: &GenerateArgs, prompt: String, images: Vec<Image>) -> GenerateSpec {
    let input = if let Some(suffix) = &args.suffix {
        Input::Infill(Infill { before: prompt, behind: suffix.clone(), ..Infill::default() })
    } else if args.raw {
        Input::Raw(prompt)
    } else {
        let system = args.system.as_ref().map(|text| Message::new(Role::System, text));
        let user = Message { images, ..Message::new(Role::User, prompt) };
        Input::Messages(system.into_iter().chain([user]).collect())
    };
    GenerateSpec {
        sampling: Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            typical_p: args.typical_p,
            repeat_penalty: args.repeat_penalty,
            frequency_penalty: args.frequency_penalty,
            presence_penalty: args.presence_penalty,
            seed: args.seed,
            ignore_eos: false,
            ..Sampling::default()
        },
        max_tokens: args.max_tokens,
        stop: args.stop.clone(),
        priority: Priority::Interactive,
        ..GenerateSpec::new("", input)
    }
}
