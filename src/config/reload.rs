//! Taking a changed config file over while models are served.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::setting::{Entry, Section};
use super::{Catalog, Config, ConfigError, File, ServerSettings, as_file};
use crate::library::{Found, untagged};
use crate::registry::Registry;

/// Settings of the server that take effect at once.
const LIVE: &[&str] = &["model_dirs"];
/// What was decided at the start, for good.
const AT_START: &[&str] = &["model"];

/// The configuration that is in force, and the registry that follows it.
#[derive(Debug)]
pub struct Live {
    /// What the server runs with.
    started: ServerSettings,
    config: Config,
    catalog: Catalog,
    registry: Arc<Registry>,
    /// Whether somebody named the file, so that it must be there.
    named: bool,
}

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Vec<String>,
    /// Loaded again when they are asked for the next time; what runs goes on with the old settings.
    pub changed: Vec<String>,
    pub removed: Vec<String>,
    /// Whether some alias means something else now.
    pub aliases: bool,
    /// Settings that the server does not run with before it is started anew.
    pub needs_restart: Vec<&'static str>,
}

impl Live {
    /// Looks for models and puts them into a registry. `named` tells whether somebody named the config file.
    ///
    /// # Errors
    /// Files and models that the config file names and that are not there.
    pub fn start(config: Config, named: bool) -> Result<Self, ConfigError> {
        let catalog = config.catalog();
        config.check(&catalog)?;
        warn(&config.file);
        let registry = Arc::new(config.empty_registry());
        catalog.fill(&registry);
        Ok(Self { started: config.server(), config, catalog, registry, named })
    }

    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Reads the config file again, and looks for models again. Models whose settings are the same stay loaded.
    ///
    /// # Errors
    /// What is wrong with the file. Then nothing changes.
    pub fn reload(&mut self) -> Result<Changes, ConfigError> {
        let path = self.config.file.path.as_deref().filter(|path| self.named || path.exists());
        let file = match path {
            Some(path) => File::read(Some(path))?,
            None => File { path: self.config.file.path.clone(), ..File::default() },
        };
        let config = Config { asked: self.config.asked.clone(), file };
        let catalog = config.catalog();
        config.check(&catalog)?;
        warn(&config.file);
        let needs_restart = needs_restart(&self.started, &config.server());
        self.config = config;
        Ok(Changes { needs_restart, ..self.follow(catalog) })
    }

    /// Looks for models again where files or folders changed since the last look. Cheap where nothing did.
    pub fn refresh(&mut self) -> Option<Changes> {
        (!self.catalog.seen.is_current()).then(|| self.look_again())
    }

    /// Looks for models again, with the settings that are in force.
    pub fn look_again(&mut self) -> Changes {
        let catalog = self.config.catalog();
        let changes = self.follow(catalog);
        if changes != Changes::default() {
            tracing::info!("models were looked for again: {changes}");
        }
        changes
    }

    /// A model that was found, by the name that it is listed under.
    #[must_use]
    pub fn found(&self, name: &str) -> Option<Arc<Found>> {
        self.catalog.found.get(name).cloned()
    }

    /// SHA-256 of the manifest that a model came with, where it came with one. It may be another one for the same settings.
    #[must_use]
    pub fn manifest(&self, name: &str) -> Option<String> {
        self.catalog.models.get(name)?.manifest.clone()
    }

    /// The file that is served alone, where one was named. Nothing else is looked for then.
    #[must_use]
    pub fn only(&self) -> Option<PathBuf> {
        self.config.asked.model.as_deref().and_then(as_file)
    }

    fn follow(&mut self, catalog: Catalog) -> Changes {
        let mut changes = Changes::default();
        for name in self.catalog.models.keys().filter(|name| !catalog.models.contains_key(*name)) {
            self.registry.remove(name);
            changes.removed.push(name.clone());
        }
        for (name, model) in &catalog.models {
            let is_new = !self.registry.has_model(name);
            // A name that a client gave to another model would go first. That of the config file is meant to.
            if is_new && !catalog.aliases.keys().any(|alias| untagged(alias) == untagged(name)) {
                self.registry.remove_alias(name);
            }
            if model.put(name, &self.registry) {
                if is_new { &mut changes.added } else { &mut changes.changed }.push(name.clone());
            }
        }
        self.registry.set_spellings(catalog.spellings.clone());
        self.registry.set_found_adapters(&catalog.adapters);
        changes.aliases = self.realias(&catalog.aliases);
        self.catalog = catalog;
        changes
    }

    /// Aliases that came from elsewhere, e.g. from a client, stay as they are.
    fn realias(&self, aliases: &BTreeMap<String, String>) -> bool {
        let old = &self.catalog.aliases;
        for alias in old.keys().filter(|alias| !aliases.contains_key(*alias)) {
            self.registry.remove_alias(alias);
        }
        for (alias, name) in aliases.iter().filter(|(alias, name)| old.get(*alias) != Some(name)) {
            self.registry.add_alias(alias, name);
        }
        old != aliases
    }
}

fn warn(file: &File) {
    if let Some(warning) = file.warning() {
        tracing::warn!("{warning}");
    }
}

fn needs_restart(started: &ServerSettings, new: &ServerSettings) -> Vec<&'static str> {
    let (old, new) = (started.entries(), new.entries());
    let value = |entry: &Entry| entry.set.as_ref().map(|(toml, _)| toml.clone());
    let differ = old.iter().zip(&new).filter(|(old, new)| value(old) != value(new)).map(|(_, new)| new.key);
    differ.filter(|key| !LIVE.contains(key) && !AT_START.contains(key)).collect()
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [("added", &self.added), ("changed", &self.changed), ("removed", &self.removed)];
        let mut parts: Vec<String> = lists
            .iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what}: {}", names.join(", ")))
            .collect();
        if self.aliases {
            parts.push("other aliases".into());
        }
        if parts.is_empty() {
            parts.push("no model changed".into());
        }
        if !self.needs_restart.is_empty() {
            parts.push(format!("after a restart: {}", self.needs_restart.join(", ")));
        }
        f.write_str(&parts.join("; "))
    }
}
