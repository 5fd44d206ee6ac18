//! `shimmy pull`.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::library::own_folder;
use crate::library::pull::{Event, MAX_CONNECTIONS, PullError, Pulled, Settings, Source, pull};

use super::output;

/// Fetches a model. What was interrupted goes on from where it was.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  shimmy pull hf:bartowski/SmolLM2-135M-Instruct-GGUF          # Q4_K_M, or what comes closest
  shimmy pull hf:bartowski/SmolLM2-135M-Instruct-GGUF:Q8_0
  shimmy pull ollama:smollm2:135m
  shimmy pull https://example.com/model.gguf#sha256=DIGEST

Environment:
  HF_TOKEN, HF_ENDPOINT, HTTPS_PROXY, HTTP_PROXY, NO_PROXY")]
pub(super) struct PullArgs {
    /// `hf:ORG/REPO[@REVISION][:QUANTIZATION]`, `ollama:NAME[:TAG]`, or the address of a GGUF file.
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Events as JSON, one a line.
    #[arg(long)]
    json: bool,
    /// Parts of a file that are fetched side by side.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=MAX_CONNECTIONS as i64))]
    connections: u8,
}

pub(super) fn run(args: &PullArgs) -> anyhow::Result<()> {
    let source: Source = args.source.parse()?;
    let root = own_folder().context("there is no home directory to keep models in; set XDG_CACHE_HOME")?;
    let settings = Settings { connections: args.connections.into(), ..Settings::from_env(root) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("starting the async runtime")?;
    let pulled = if args.json {
        let failed = Mutex::new(None);
        let report = |event: Event| {
            if let Err(error) = output::print(json!(event)) {
                failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
            }
        };
        let pulled = interruptible(&runtime, &source, &settings, &report);
        if let Err(error) = &pulled {
            output::print(json!({ "error": format!("{error:#}") }))?;
        }
        if let Some(error) = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            return Err(error);
        }
        pulled?
    } else {
        let screen = Mutex::new(Screen::new());
        let tell = |event: Event| screen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).show(&event);
        let pulled = interruptible(&runtime, &source, &settings, &tell);
        screen.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).bar.finish_and_clear();
        pulled?
    };
    let Pulled { name, path, size_bytes } = pulled;
    let name = name.to_string();
    if args.json {
        return output::print(json!({ "status": "success", "name": name, "path": path, "size_bytes": size_bytes }));
    }
    eprintln!("pulled {} into {}", output::bytes(size_bytes), path.display());
    output::print(name)
}

/// Until it is done or Ctrl-C comes. What is there stays, for the next pull.
fn interruptible(
    runtime: &tokio::runtime::Runtime,
    source: &Source,
    settings: &Settings,
    report: &(dyn Fn(Event) + Send + Sync),
) -> anyhow::Result<Pulled> {
    runtime.block_on(async {
        let pulled: Result<Pulled, PullError> = tokio::select! {
            pulled = pull(source, settings, report) => pulled,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted; the next pull goes on from here"),
        };
        Ok(pulled?)
    })
}

/// How often a line is written where there is no terminal.
const LINE: Duration = Duration::from_secs(5);

/// A bar for each file on a terminal, a line now and then where not.
struct Screen {
    bar: ProgressBar,
    last: Option<Event>,
    /// When the latest line was written.
    told: Instant,
    /// When the file's transfer began, and how many bytes were there then.
    began: (Instant, u64),
}

impl Screen {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let now = Instant::now();
        Self { bar, last: None, told: now, began: (now, 0) }
    }

    fn show(&mut self, event: &Event) {
        let goes_on = self.last.as_ref().is_some_and(|last| event.continues(last));
        if let Event::Fetching { total, completed, .. } | Event::Verifying { total, completed, .. } = event {
            if !goes_on {
                self.began = (Instant::now(), *completed);
                self.bar.reset();
                self.style(event);
            }
            self.bar.set_length(*total);
            self.bar.set_position(*completed);
            if !goes_on {
                // Its rate is that of this pull, without what was there before.
                self.bar.reset_eta();
            }
        }
        self.line(event, goes_on);
        // A word on a retry does not end the file that it is about.
        if !matches!(event, Event::Retrying { .. }) {
            self.last = Some(event.clone());
        }
    }

    fn style(&self, event: &Event) {
        let (what, unit) = match event {
            Event::Verifying { what, .. } => (format!("verifying {what}"), ""),
            other => (other.status(), "  {bytes_per_sec}  {eta} left"),
        };
        let template = format!("{{msg}} {{wide_bar:.cyan}} {{percent:>3}}% of {{total_bytes}}{unit}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            self.bar.set_style(style);
        }
        self.bar.set_message(what);
    }

    fn line(&mut self, event: &Event, goes_on: bool) {
        let is_whole = matches!(event, Event::Fetching { total, completed, .. } if total == completed);
        let was_whole = matches!(&self.last, Some(Event::Fetching { total, completed, .. }) if total == completed);
        let due = !goes_on || self.told.elapsed() >= LINE || (is_whole && !was_whole);
        let on_terminal = std::io::stderr().is_terminal();
        let text = match event {
            Event::Fetching { total, completed, .. } if !on_terminal => {
                format!(
                    "{}: {} of {}{}",
                    event.status(),
                    output::bytes(*completed),
                    output::bytes(*total),
                    self.pace(*total, *completed)
                )
            }
            Event::Verifying { what, .. } if !on_terminal && !goes_on => format!("verifying {what}"),
            Event::Retrying { .. } | Event::Waiting { .. } => event.status(),
            _ => return,
        };
        if due {
            self.told = Instant::now();
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }

    /// `, 12.5 MB/s, 40 s left`, from the second on.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn pace(&self, total: u64, completed: u64) -> String {
        let (since, before) = self.began;
        let seconds = since.elapsed().as_secs_f64();
        let rate = completed.saturating_sub(before) as f64 / seconds;
        if seconds < 1.0 || rate < 1.0 {
            return String::new();
        }
        let left = total.saturating_sub(completed) as f64 / rate;
        format!(", {}/s, {left:.0} s left", output::bytes(rate as u64))
    }
}
