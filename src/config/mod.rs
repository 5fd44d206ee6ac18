//! What the command line, the environment and the config file say, and which of them wins.
//!
//! An option wins over a variable, both over a model's section in the file, that over the file's settings for all models,
//! and these over the defaults.

mod catalog;
mod check;
mod drafts;
mod error;
mod file;
mod keys;
mod kinds;
mod layers;
mod reload;
mod setting;
mod show;
mod source;
#[cfg(test)]
mod tests;

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use catalog::{Catalog, Planned};
pub use error::{ConfigError, Problem};
pub use file::{Model, Settings, parse, print};
pub use keys::{CACHE_TYPES, FLASH_ATTENTION, LoadSettings, ModelSettings, NONE, SamplingSettings, ServerSettings};
pub use kinds::{Adapter, ApiKey};
pub use layers::{Kept, is_jinja};
pub use reload::{Changes, Live};
pub use setting::{Entry, Fallback, Origin, Set};
pub use show::show;

use crate::library::{SearchPath, search_paths};
use crate::placement::PlacementSpec;
use crate::registry::Registry;
use crate::system;

/// What the command line and the environment say.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub server: ServerSettings,
    pub load: LoadSettings,
    /// LoRA adapters of the model that the command names.
    pub adapters: Vec<Adapter>,
    /// The model that the command names.
    pub model: Option<String>,
    /// `SHIMMY_BASE_GGUF`.
    pub base: Option<PathBuf>,
    /// `SHIMMY_LORA_GGUF`, the base's adapter.
    pub base_adapter: Option<PathBuf>,
    /// All tokens that the command will ever ask for, where it knows.
    pub needed_tokens: Option<u32>,
}

/// The config file, as it was read.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// Where it is, or would be; `None` where there is no home directory and nobody named one.
    pub path: Option<PathBuf>,
    pub text: String,
    pub settings: Settings,
}

/// Everything that decides how models are served.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub asked: Asked,
    pub file: File,
}

/// Longer files are a mistake.
const MAX_BYTES: u64 = 1 << 20;

/// Where the config file is looked for when nobody names one: `~/.config/shimmy/config.toml`.
#[must_use]
pub fn default_path() -> Option<PathBuf> {
    system::config_dir().map(|dir| dir.join("config.toml"))
}

impl File {
    /// Reads the file that was named, or the default one, which need not be there.
    ///
    /// # Errors
    /// A named file that is not there; one that cannot be read or does not parse.
    pub fn read(named: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = named.map(Path::to_owned).or_else(default_path) else { return Ok(Self::default()) };
        // What it names lies relative to it, wherever the program goes.
        let path = std::path::absolute(&path).unwrap_or(path);
        let unreadable = |why: String| ConfigError::Unreadable { path: path.clone(), why };
        let bytes = match std::fs::File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => {
                return Ok(Self { path: Some(path), ..Self::default() });
            }
            opened => opened.and_then(|file| {
                let mut bytes = Vec::new();
                file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map(|_| bytes)
            }),
        };
        let bytes = bytes.map_err(|error| unreadable(error.to_string()))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(unreadable(format!("this is no config file: it is longer than {MAX_BYTES} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let problem = Problem::new(&text, at..at + 1, "this is not UTF-8");
            ConfigError::Invalid { path: Some(path.clone()), problems: vec![problem] }
        })?;
        let mut settings = parse(&text).map_err(|error| error.in_file(&path))?;
        check::locate(&mut settings, path.parent().unwrap_or(Path::new("")));
        Ok(Self { path: Some(path), text, settings })
    }

    /// That others can read the API keys in this file, if so.
    #[cfg(unix)]
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        use std::os::unix::fs::MetadataExt;

        const READ_BY_ALL: u32 = 0o004;
        self.settings.server.api_key.as_ref()?;
        let path = self.path.as_ref()?;
        let is_open = path.metadata().is_ok_and(|meta| meta.mode() & READ_BY_ALL != 0);
        is_open.then(|| {
            format!(
                "{0} has API keys in it, and every user of this machine can read it: chmod 600 {0}, or keep hashes only with `shimmy key`",
                path.display()
            )
        })
    }

    /// Permissions are another matter here.
    #[cfg(not(unix))]
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        None
    }
}

impl Config {
    /// The same for a command that has a model to itself. What the config file says of parallel requests is meant for a server.
    #[must_use]
    pub fn alone(&self, command: &str) -> Self {
        let mut config = self.clone();
        config.asked.load.parallel.get_or_insert_with(|| Set { value: 1, origin: Origin::Option(command.into()) });
        config
    }

    /// A registry with everything that is known, not yet loaded.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.registry_of(&self.catalog())
    }

    /// As [`Config::registry`], where somebody has looked already.
    #[must_use]
    pub fn registry_of(&self, catalog: &Catalog) -> Arc<Registry> {
        let registry = self.empty_registry();
        catalog.fill(&registry);
        Arc::new(registry)
    }

    /// A registry for a command that names a model: a file, which is then the only one, or a name that has to be looked
    /// up. Returns the name to use.
    #[must_use]
    pub fn registry_for(&self, name: &str) -> (Arc<Registry>, String) {
        let (config, name) = self.with_model(name);
        (config.registry(), name)
    }

    /// The same for a command that names a model, and the name to use for it.
    #[must_use]
    pub fn with_model(&self, name: &str) -> (Self, String) {
        let mut config = self.clone();
        config.asked.model = Some(name.to_owned());
        (config, as_file(name).map_or_else(|| name.to_owned(), |path| catalog::name_of(&path)))
    }

    fn empty_registry(&self) -> Registry {
        Registry::new(keys::get(&self.server().memory_budget).unwrap_or_default())
    }

    /// The settings of models that have no section.
    #[must_use]
    pub fn load(&self) -> LoadSettings {
        self.file.settings.load.clone().override_with(self.asked.load.clone())
    }

    /// The server's settings.
    #[must_use]
    pub fn server(&self) -> ServerSettings {
        self.asked.server.clone().over(self.file.settings.server.clone())
    }

    /// Where models without a section run.
    #[must_use]
    pub fn placement(&self) -> PlacementSpec {
        self.load().placement()
    }

    /// Where models are looked for.
    #[must_use]
    pub fn search_paths(&self) -> Vec<SearchPath> {
        let dirs = self.server().model_dirs;
        let from_file = dirs.as_ref().is_some_and(|set| matches!(set.origin, Origin::File(_)));
        let mut paths = search_paths(&dirs.map(|set| set.value).unwrap_or_default());
        for path in paths.iter_mut().filter(|path| from_file && path.because == "--model-dirs") {
            path.because = "the config file";
        }
        paths
    }

    /// All that is wrong with what the file names, in the words of [`ConfigError`].
    ///
    /// # Errors
    /// Files and models that are not there.
    pub fn check(&self, catalog: &Catalog) -> Result<(), ConfigError> {
        let mut problems = check::files(&self.file.text, &self.file.settings, catalog);
        problems.extend(catalog.problems.iter().cloned());
        ConfigError::check(problems).map_err(|error| match &self.file.path {
            Some(path) => error.in_file(path),
            None => error,
        })
    }
}

/// The path that a model's name is, if it is one.
fn as_file(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(name);
    (path.is_file() || path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("gguf"))).then_some(path)
}
