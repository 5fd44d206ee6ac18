//! The command line. One file a command; the only writer of stdout.

mod access_args;
mod bench;
mod config;
mod engine_args;
mod generate;
mod gpu_info;
mod key;
mod list;
mod output;
mod placement_args;
mod plan;
mod probe;
mod ps;
mod pull;
mod reload;
mod remove;
mod said;
mod serve;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Adapter, Asked, Config, ConfigError, File, LoadSettings, ServerSettings};

use engine_args::EngineArgs;
use placement_args::PlacementArgs;
use said::Said;

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
    /// The config file [default: ~/.config/shimmy/config.toml, which need not be there].
    #[arg(long, global = true, env = "SHIMMY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
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
    #[arg(long, global = true, value_name = "PATH[:SCALE]", help_heading = "Models")]
    lora: Vec<Adapter>,
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
    Show(show::ShowArgs),
    Discover(list::DiscoverArgs),
    Plan(plan::PlanArgs),
    Probe(probe::ProbeArgs),
    Ps(ps::PsArgs),
    Pull(pull::PullArgs),
    Rm(remove::RemoveArgs),
    Cp(remove::CopyArgs),
    Bench(bench::BenchArgs),
    GpuInfo(gpu_info::GpuInfoArgs),
    Key(key::KeyArgs),
    Config(config::ConfigArgs),
}

impl GlobalArgs {
    /// What the options and variables say that all commands have.
    fn asked(&self, said: &Said<'_>) -> Asked {
        let models = LoadSettings {
            ctx_size: said.set("ctx_size", self.ctx_size),
            threads: said.set("threads", self.threads),
            template: said.set("template", self.template.clone()),
            ..LoadSettings::default()
        };
        Asked {
            server: ServerSettings {
                model_dirs: said.set("model_dirs", self.model_dirs.as_deref().map(crate::library::split_list)),
                ..ServerSettings::default()
            },
            load: models.over(self.placement.settings(said)).over(self.engine.settings(said)),
            adapters: self.lora.clone(),
            base: self.base_gguf.clone(),
            base_adapter: self.lora_gguf.clone(),
            ..Asked::default()
        }
    }

    fn config(&self, said: &Said<'_>) -> Result<Config, ConfigError> {
        Ok(Config { asked: self.asked(said), file: File::read(self.config.as_deref())? })
    }
}

/// Parses the arguments and runs the command. 0 for success, 1 for failure, 2 for bad usage, a wrong config file, a failed
/// probe and access that is not safe, 3 where a model cannot run where it was asked to.
#[must_use]
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(cli, &Said::new(&matches)) {
        Ok(code) => code,
        // Whoever reads us has left, e.g. `| head`. That is not an error of ours.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            config::exit_code(&error, output::exit_code(&error, ExitCode::FAILURE))
        }
    }
}

fn run(cli: Cli, said: &Said<'_>) -> anyhow::Result<ExitCode> {
    if let Command::Config(args) = cli.command {
        crate::logging::init(false, None);
        return config::run(args, &cli.global, said).map(|()| ExitCode::SUCCESS);
    }
    let mut config = cli.global.config(said)?;
    if let Command::Serve(args) = &cli.command {
        args.add_to(&mut config.asked, said);
    }
    let log = config.server().log.map(|set| set.value);
    crate::logging::init(matches!(cli.command, Command::Serve(_)), log.as_deref());
    match cli.command {
        Command::Serve(_) => serve::run(&config, cli.global.config.is_some()),
        Command::Generate(args) => generate::run(&args, &config),
        Command::List(args) => list::list(&args, &config),
        Command::Show(args) => show::run(&args, &config),
        Command::Discover(args) => list::discover(&args, &config),
        Command::Plan(args) => plan::run(&args, &config),
        Command::Probe(args) => return Ok(probe::run(&args, &config)),
        Command::Ps(args) => ps::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Rm(args) => return remove::remove(&args, &config),
        Command::Cp(args) => remove::copy(&args, &config),
        Command::Bench(args) => bench::run(&args, &config),
        Command::GpuInfo(args) => gpu_info::run(&args, &config),
        Command::Key(args) => key::run(&args),
        Command::Config(_) => Ok(()),
    }?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::{Args, CommandFactory};

    use super::{Cli, serve};
    use crate::config::{LoadSettings, ServerSettings};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Options of `serve` that are no key of the config file, with the reason.
    const NO_KEYS: &[(&str, &str)] = &[
        ("config", "names the file itself"),
        ("lora", "belongs to one model: `adapters` in its section"),
        ("base_gguf", "is 1.x's word for a section with `path` and `alias`"),
        ("lora_gguf", "is 1.x's word for `adapters` in that section"),
    ];

    #[test]
    fn each_option_of_serve_is_a_key_of_the_config_file() {
        let serve = serve::ServeArgs::augment_args(clap::Command::new("serve"));
        let global = Cli::command();
        let ids: Vec<String> =
            global.get_arguments().chain(serve.get_arguments()).map(|arg| arg.get_id().to_string()).collect();
        let has_key = |id: &str| ServerSettings::KEYS.contains(&id) || LoadSettings::KEYS.contains(&id);
        for id in &ids {
            let excepted = NO_KEYS.iter().any(|(name, _)| name == id);
            assert!(has_key(id) != excepted, "--{}: give it a key in config/keys.rs, or a reason here", id);
        }
        for key in LoadSettings::KEYS.iter().chain(ServerSettings::KEYS).filter(|key| **key != "log") {
            assert!(ids.iter().any(|id| id == key), "{key} has no option; RUST_LOG is that of `log`");
        }
    }
}
