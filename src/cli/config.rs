//! `shimmy config`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::said::Said;
use super::serve::ServeArgs;
use super::{GlobalArgs, output};
use crate::config::{self, Config, ConfigError, File};

/// Checks and shows the settings. They come from ~/.config/shimmy/config.toml, variables and options.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  shimmy config check
  shimmy config check ./new.toml && mv ./new.toml \"$(shimmy config path)\"
  shimmy --ctx-size 4096 config show --bind 127.0.0.1:8080
  kill -HUP \"$(pidof shimmy)\"          # a server takes the changed file over")]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Says all that is wrong with a config file, with line and column. Exits with 2 where something is.
    Check {
        /// [default: the file that `shimmy config path` names].
        file: Option<PathBuf>,
    },
    /// Shows every setting as `serve` would have it, and who set it: an option, a variable, a line of the file or nobody.
    Show(Box<ServeArgs>),
    /// Prints where the config file is, or would be.
    Path,
}

pub(super) fn run(args: ConfigArgs, global: &GlobalArgs, said: &Said<'_>) -> anyhow::Result<()> {
    match args.command {
        ConfigCommand::Check { file } => check(file, global, said),
        ConfigCommand::Show(serve) => {
            let mut config = global.config(said)?;
            serve.add_to(&mut config.asked, said);
            output::print(config::show(&config))
        }
        ConfigCommand::Path => path(global),
    }
}

fn check(named: Option<PathBuf>, global: &GlobalArgs, said: &Said<'_>) -> anyhow::Result<()> {
    let named = named.or_else(|| global.config.clone());
    let file = File::read(named.as_deref())?;
    let config = Config { file, asked: global.asked(said) };
    let catalog = config.catalog();
    config.check(&catalog)?;
    if let Some(warning) = config.file.warning() {
        eprintln!("warning: {warning}");
    }
    let Some(path) = config.file.path.as_deref() else {
        return output::print("there is no home directory, and so no config file; name one with --config");
    };
    if !path.exists() {
        return output::print(format!("{}: not there, so every setting has its default", path.display()));
    }
    let models = config.file.settings.models.len();
    let plural = if models == 1 { "" } else { "s" };
    output::print(format!("{}: in order, with {models} section{plural} for models", path.display()))
}

fn path(global: &GlobalArgs) -> anyhow::Result<()> {
    match global.config.clone().or_else(config::default_path) {
        Some(path) => output::print(path.display()),
        None => anyhow::bail!("there is no home directory, and so no config file; name one with --config"),
    }
}

/// 2 where the config file is to blame, else `other`.
pub(super) fn exit_code(error: &anyhow::Error, other: ExitCode) -> ExitCode {
    if error.is::<ConfigError>() { ExitCode::from(2) } else { other }
}
