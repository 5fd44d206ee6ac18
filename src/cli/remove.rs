//! `shimmy rm` and `shimmy cp`: models of shimmy's own folder.

use std::cell::LazyCell;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use crate::config::{Catalog, Config};
use crate::library::pull::{ModelName, Store, remove_unfinished};
use crate::library::{Found, own_folder};
use crate::registry::{Registry, RegistryError};

use super::output;

/// Removes models that were fetched or made, and the files that no other model needs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  shimmy rm llama3:8b org/model-gguf:q4_k_m
  shimmy rm --unfinished              # what pulls that did not end left behind

Models in folders of yours, and in those of other programs, are not removed: shimmy says where they lie.")]
pub(super) struct RemoveArgs {
    /// Names of `shimmy list`.
    #[arg(value_name = "NAME", required_unless_present = "unfinished")]
    names: Vec<String>,
    /// Also what pulls that did not end left behind.
    #[arg(long)]
    unfinished: bool,
    /// A line of JSON for each.
    #[arg(long)]
    json: bool,
}

/// Gives a fetched model another name. Both share their files.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  shimmy cp llama3:8b mine")]
pub(super) struct CopyArgs {
    /// A name of `shimmy list`.
    source: String,
    /// The new name, `MODEL[:TAG]`.
    destination: String,
}

/// A blob without a model that is younger than this may be one of a pull that runs.
const UNTOUCHED: Duration = Duration::from_secs(3600);

fn store() -> anyhow::Result<Store> {
    Ok(Store::new(own_folder().context("there is no home directory that models are kept in; set XDG_CACHE_HOME")?))
}

/// Each model by itself: one that cannot be removed does not keep the others.
pub(super) fn remove(args: &RemoveArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let store = store()?;
    let mut code = ExitCode::SUCCESS;
    let known = LazyCell::new(|| Known::look(config));
    for name in &args.names {
        match known.named(&store, name).and_then(|name| Ok(store.remove(&name)?)) {
            Ok(removed) => tell(args, "removed", Some(&removed.name), removed.freed_bytes)?,
            Err(error) => {
                output::error(&error);
                code = ExitCode::FAILURE;
            }
        }
    }
    if args.unfinished {
        let freed = remove_unfinished(&store)? + store.remove_orphans(UNTOUCHED)?;
        tell(args, "removed what was unfinished", None, freed)?;
    }
    Ok(code)
}

fn tell(args: &RemoveArgs, done: &str, name: Option<&str>, freed_bytes: u64) -> anyhow::Result<()> {
    if args.json {
        return output::print(json!({ "status": done, "name": name, "freed_bytes": freed_bytes }));
    }
    let what = name.map_or_else(|| done.to_owned(), |name| format!("{done} {name}"));
    output::print(format!("{what}: {} freed", output::bytes(freed_bytes)))
}

pub(super) fn copy(args: &CopyArgs, config: &Config) -> anyhow::Result<()> {
    let store = store()?;
    let to: ModelName = args.destination.parse()?;
    store.copy(&Known::look(config).owned(&store, &args.source)?.0, &to)?;
    output::print(to)
}

/// What is on this machine, as a server sees it.
struct Known {
    catalog: Catalog,
    registry: Arc<Registry>,
}

impl Known {
    fn look(config: &Config) -> Self {
        let catalog = config.catalog();
        let registry = config.registry_of(&catalog);
        Self { catalog, registry }
    }

    /// As [`Known::owned`], by a name that says which one it is: others may mean another model tomorrow.
    fn named(&self, store: &Store, asked: &str) -> anyhow::Result<String> {
        let (full, found) = self.owned(store, asked)?;
        if found.is_none_or(|found| found.is_called(asked)) {
            return Ok(full);
        }
        // One whose files are damaged is not listed.
        let found = store.find(asked).map(|(name, _)| name.full());
        found.map_err(|_| anyhow::anyhow!("model not found: {asked:?}; to remove {full}, give its whole name"))
    }

    /// The whole name of a model of ours by any of its names, and what was found of it.
    fn owned(&self, store: &Store, asked: &str) -> anyhow::Result<(String, Option<&Found>)> {
        let status = match self.registry.status(asked) {
            // One whose files are damaged is not listed, and can be removed.
            Err(error @ RegistryError::NotFound { .. }) => {
                return store.find(asked).map(|(name, _)| (name.full(), None)).map_err(|_| error.into());
            }
            status => status?,
        };
        let found = self.catalog.found.get(&status.name).with_context(|| {
            format!(
                "{} is a model of the config file; name the one that it stands for, or remove its section",
                status.name
            )
        })?;
        Ok((store.owned(found)?.full(), Some(found)))
    }
}
