//! The command line. One file a command; the only writer of stdout.

mod bench;
mod engine_args;
mod generate;
mod gpu_info;
mod list;
mod output;
mod placement_args;
mod plan;
mod probe;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Config;

use engine_args::EngineArgs;
use placement_args::PlacementArgs;

/// Runs local GGUF language models: on the command line, and over HTTP, SSE and WebSocket.
#[derive(Debug, Parser)]
#[command(name = "shimmy", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct GlobalArgs {
    /// More directories to look for models in, separated by `;`.
    #[arg(long, global = true, value_name = "A;B", help_heading = "Models")]
    model_dirs: Option<String>,
    /// KV cache in tokens, shared by all that runs [default: what the model was trained for, at most 8192].
    #[arg(long, global = true, value_name = "N", help_heading = "Models")]
    ctx_size: Option<u32>,
    /// Threads that compute [default: physical cores, fewer while other programs need them].
    #[arg(
        long,
        global = true,
        env = "SHIMMY_THREADS",
        value_name = "N",
        help_heading = "Models",
        value_parser = clap::value_parser!(u32).range(1..=1024)
    )]
    threads: Option<u32>,
    /// Chat template: a built-in name (chatml, llama3, openchat, …), a file, or the Jinja text [default: the model's own].
    #[arg(long, global = true, value_name = "TEMPLATE", help_heading = "Models")]
    template: Option<String>,
    /// LoRA adapter for the named model, with its scale [default scale: 1]. Can be given more than once.
    #[arg(long, global = true, value_name = "PATH[:SCALE]", help_heading = "Models", value_parser = parse_lora)]
    lora: Vec<(PathBuf, f32)>,
    /// The base model of `default` and `phi3-lora`.
    #[arg(long, global = true, env = "SHIMMY_BASE_GGUF", value_name = "PATH", hide = true)]
    base_gguf: Option<PathBuf>,
    /// The LoRA adapter of that base model.
    #[arg(long, global = true, env = "SHIMMY_LORA_GGUF", value_name = "PATH", hide = true)]
    lora_gguf: Option<PathBuf>,
    #[command(flatten)]
    placement: PlacementArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Generate(generate::GenerateArgs),
    List(list::ListArgs),
    Discover(list::DiscoverArgs),
    Plan(plan::PlanArgs),
    Probe(probe::ProbeArgs),
    Bench(bench::BenchArgs),
    GpuInfo(gpu_info::GpuInfoArgs),
}

impl GlobalArgs {
    fn config(&self) -> Config {
        Config {
            placement: self.placement.spec(),
            model_dirs: self.model_dirs.as_deref().map(crate::registry::split_list).unwrap_or_default(),
            context_tokens: self.ctx_size,
            threads: self.threads,
            template: self.template.clone(),
            adapters: self.lora.clone(),
            serve: self.engine.spec(),
            base: self.base_gguf.clone(),
            base_adapter: self.lora_gguf.clone(),
        }
    }
}

/// `PATH` or `PATH:SCALE`. A colon that no number follows is part of the path.
fn parse_lora(text: &str) -> Result<(PathBuf, f32), String> {
    let (path, scale) = match text.rsplit_once(':') {
        Some((path, number)) if number.parse::<f32>().is_ok() => (path, number.parse().unwrap_or(1.0)),
        _ => (text, 1.0),
    };
    if !f32::is_finite(scale) {
        return Err(format!("the scale of {path} is {scale}; it must be a finite number"));
    }
    Ok((PathBuf::from(path), scale))
}

/// Parses the arguments and runs the command. 0 for success, 1 for failure, 2 for bad usage and a failed probe, 3 where
/// a model cannot run where it was asked to.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    crate::logging::init(matches!(cli.command, Command::Serve(_)));
    let config = cli.global.config();
    let result = match cli.command {
        Command::Serve(args) => serve::run(&args, &config),
        Command::Generate(args) => generate::run(&args, &config),
        Command::List(args) => list::list(&args, &config),
        Command::Discover(args) => list::discover(&args, &config),
        Command::Plan(args) => plan::run(&args, &config),
        Command::Probe(args) => return probe::run(&args, &config),
        Command::Bench(args) => bench::run(&args, &config),
        Command::GpuInfo(args) => gpu_info::run(&args, &config),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads us has left, e.g. `| head`. That is not an error of ours.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            output::exit_code(&error, ExitCode::FAILURE)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::CommandFactory;

    use super::{Cli, parse_lora};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_adapter_may_carry_a_scale() {
        assert_eq!(parse_lora("a.gguf"), Ok((PathBuf::from("a.gguf"), 1.0)));
        assert_eq!(parse_lora("a.gguf:0.5"), Ok((PathBuf::from("a.gguf"), 0.5)));
        assert_eq!(parse_lora("C:\\a.gguf"), Ok((PathBuf::from("C:\\a.gguf"), 1.0)));
        assert!(parse_lora("a.gguf:inf").is_err());
    }
}
