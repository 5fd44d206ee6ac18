//! `shimmy key`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::server::access::{ApiKey, KeyFile, KeyFileError, KeyName, NamedKey, default_key_file};

use super::output;

/// Makes, lists and removes API keys.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  shimmy key new laptop               # prints the key, once
  SHIMMY_KEY=$(shimmy key new phone)
  shimmy key list
  shimmy key rm laptop                # a running server refuses it from now on")]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    action: Action,
    /// The file of keys [default: ~/.config/shimmy/keys].
    #[arg(long, global = true, env = "SHIMMY_API_KEY_FILE", value_name = "PATH")]
    api_key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes a key and prints it. It cannot be shown again: the file has its hash alone.
    New {
        /// Who will use it.
        name: KeyName,
        #[arg(long)]
        json: bool,
    },
    /// Lists the names of all keys, with the beginning of their hashes.
    List {
        #[arg(long)]
        json: bool,
    },
    /// Removes a key.
    Rm { name: KeyName },
}

pub(super) fn run(args: &KeyArgs) -> anyhow::Result<()> {
    let path = args.api_key_file.clone().or_else(default_key_file);
    let path = path.context(
        "no directory for the key file: neither HOME nor XDG_CONFIG_HOME is set; name it with --api-key-file PATH",
    )?;
    match &args.action {
        Action::New { name, json } => {
            let key = ApiKey::random().context("the system has no random numbers")?;
            KeyFile::add(&path, NamedKey { name: name.clone(), hash: key.hash() })?;
            if *json {
                return output::print_json(&json!({ "name": name.to_string(), "key": key.reveal(), "file": path }));
            }
            eprintln!("{name} is in {}; its key, which is shown this once:", path.display());
            output::print(key.reveal())
        }
        Action::List { json } => list(&path, *json),
        Action::Rm { name } => {
            KeyFile::remove(&path, name)?;
            eprintln!("{name} is no longer in {}", path.display());
            Ok(())
        }
    }
}

fn list(path: &std::path::Path, json: bool) -> anyhow::Result<()> {
    let file = match KeyFile::read(path) {
        Err(KeyFileError::Missing(_)) => KeyFile::default(),
        read => read?,
    };
    if json {
        let keys: Vec<_> =
            file.keys().map(|key| json!({ "name": key.name.to_string(), "sha256": key.hash.to_string() })).collect();
        return output::print_json(&json!({ "file": path, "keys": keys }));
    }
    if file.keys().next().is_none() {
        eprintln!("no key in {}; make one with `shimmy key new NAME`", path.display());
        return Ok(());
    }
    let rows = file.keys().map(|key| vec![key.name.to_string(), key.hash.to_string()[..12].to_owned()]);
    output::print(output::table(&["NAME", "SHA-256"], &[], rows.collect()))
}
