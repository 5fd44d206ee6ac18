//! Which models there are, where they come from, and which are loaded.

mod discover;
mod entry;
mod error;
mod name;
mod ollama_store;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

pub(crate) use discover::split_list;
pub use discover::{Found, SearchPath, discover, search_paths};
pub use entry::{Facts, Lease, ModelStatus, State};
pub use error::RegistryError;
pub use name::name_from_path;

use crate::gguf;
use crate::placement::{MemoryPlan, PlacementSpec};
use crate::runner::{LoadSpec, ModelSource, ServeSpec, StubSpeed};
use entry::Entry;

/// What every load shares.
#[derive(Clone, Debug, Default)]
pub struct LoadDefaults {
    pub placement: PlacementSpec,
    /// Tokens; see [`LoadSpec::context_tokens`].
    pub context_tokens: Option<u32>,
    pub threads: Option<u32>,
    pub template: Option<String>,
    pub serve: ServeSpec,
}

/// All known models. Shared by everything that serves them.
#[derive(Debug)]
pub struct Registry {
    entries: RwLock<BTreeMap<String, Arc<Entry>>>,
    aliases: RwLock<BTreeMap<String, String>>,
    defaults: LoadDefaults,
}

impl Registry {
    #[must_use]
    pub fn new(defaults: LoadDefaults) -> Self {
        Self { entries: RwLock::default(), aliases: RwLock::default(), defaults }
    }

    /// Adds what [`discover`] found. A name that is taken already keeps its first owner.
    pub fn add_found(&self, found: Vec<Found>) {
        for model in found {
            let spec = self.spec(&model.name, ModelSource::Gguf { path: model.path }, Vec::new());
            self.insert(Entry::new(model.name, spec, model.size_bytes, Some(model.facts)), false);
        }
    }

    /// Adds one file under its own name, in front of whatever has that name. Returns the name.
    pub fn add_file(&self, path: &Path, adapters: Vec<(PathBuf, f32)>) -> String {
        let name = name_from_path(path);
        let size = std::fs::metadata(path).map_or(0, |meta| meta.len());
        // Loading says what is wrong with a header that cannot be read.
        let facts = gguf::Header::open(path).ok().map(|header| Facts::of(&header));
        let spec = self.spec(&name, ModelSource::Gguf { path: path.to_owned() }, adapters);
        self.insert(Entry::new(name.clone(), spec, size, facts), true);
        name
    }

    /// Adds the stub under the name `stub`.
    pub fn add_stub(&self) {
        self.add_stub_as("stub", StubSpeed::Paced);
    }

    /// Adds a stub that takes no time under the name `stub-fast`: what is left is what engine and server cost.
    pub fn add_fast_stub(&self) {
        self.add_stub_as("stub-fast", StubSpeed::Fast);
    }

    fn add_stub_as(&self, name: &str, speed: StubSpeed) {
        let spec = self.spec(name, ModelSource::Stub(speed), Vec::new());
        self.insert(Entry::new(name.into(), spec, 0, None), true);
    }

    /// Lets `alias` mean `name` too.
    pub fn add_alias(&self, alias: &str, name: &str) {
        self.aliases.write().unwrap_or_else(PoisonError::into_inner).insert(untagged(alias), name.to_owned());
    }

    /// Forgets an alias. Returns whether there was one.
    pub fn remove_alias(&self, alias: &str) -> bool {
        self.aliases.write().unwrap_or_else(PoisonError::into_inner).remove(&untagged(alias)).is_some()
    }

    /// All aliases, each with the name that it stands for.
    #[must_use]
    pub fn aliases(&self) -> Vec<(String, String)> {
        let aliases = self.aliases.read().unwrap_or_else(PoisonError::into_inner);
        aliases.iter().map(|(alias, name)| (alias.clone(), name.clone())).collect()
    }

    fn spec(&self, name: &str, source: ModelSource, adapters: Vec<(PathBuf, f32)>) -> LoadSpec {
        LoadSpec {
            source,
            adapters,
            template: self.defaults.template.clone(),
            placement: self.defaults.placement.clone(),
            context_tokens: self.defaults.context_tokens,
            threads: self.defaults.threads,
            label: name.to_owned(),
            serve: self.defaults.serve.clone(),
        }
    }

    fn insert(&self, entry: Entry, replace: bool) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if replace || !entries.contains_key(entry.name()) {
            entries.insert(entry.name().to_owned(), Arc::new(entry));
        }
    }

    /// Loads the model if it is not loaded, once however many ask at the same time, and keeps it loaded for as
    /// long as the lease lives. Blocks.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Load`].
    pub fn acquire(&self, name: &str) -> Result<Lease, RegistryError> {
        self.acquire_with_progress(name, &mut |_| true)
    }

    /// As [`Registry::acquire`]. `progress` hears the loaded fraction and cancels with `false`.
    ///
    /// # Errors
    /// As [`Registry::acquire`].
    pub fn acquire_with_progress(
        &self,
        name: &str,
        progress: &mut dyn FnMut(f32) -> bool,
    ) -> Result<Lease, RegistryError> {
        self.find(name)?.acquire(progress)
    }

    /// What loading the model would take.
    ///
    /// # Errors
    /// As [`Registry::acquire`].
    pub fn plan(&self, name: &str) -> Result<MemoryPlan, RegistryError> {
        self.find(name)?.plan()
    }

    /// Forgets the loaded model. Generations that run keep it until they end. Returns whether it was loaded.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn unload(&self, name: &str) -> Result<bool, RegistryError> {
        Ok(self.find(name)?.unload())
    }

    /// One model's state.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn status(&self, name: &str) -> Result<ModelStatus, RegistryError> {
        Ok(self.find(name)?.status())
    }

    /// Whether a model has this name itself, and not as an alias.
    #[must_use]
    pub fn has_model(&self, name: &str) -> bool {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        spellings(name).iter().any(|spelling| entries.contains_key(spelling))
    }

    /// All models, by name.
    #[must_use]
    pub fn list(&self) -> Vec<ModelStatus> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).values().map(|entry| entry.status()).collect()
    }

    /// `default` without an alias means the only model, where there is one only.
    fn find(&self, name: &str) -> Result<Arc<Entry>, RegistryError> {
        let bare = untagged(name);
        let aliased = self.aliases.read().unwrap_or_else(PoisonError::into_inner).get(&bare).cloned();
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let wanted = aliased.as_deref().unwrap_or(name);
        if let Some(entry) = spellings(wanted).iter().find_map(|spelling| entries.get(spelling)) {
            return Ok(Arc::clone(entry));
        }
        match (bare.as_str(), entries.len(), entries.values().next()) {
            ("default", 1, Some(only)) => Ok(Arc::clone(only)),
            _ => Err(RegistryError::NotFound { asked: name.to_owned(), known: entries.keys().cloned().collect() }),
        }
    }
}

/// The tag that a name without one has for Ollama and its clients.
const LATEST: &str = ":latest";

fn untagged(name: &str) -> String {
    let lower = name.to_lowercase();
    lower.strip_suffix(LATEST).map_or(lower.clone(), str::to_owned)
}

/// How a name may be listed: as it is, without that tag, or with it.
fn spellings(name: &str) -> [String; 3] {
    let bare = untagged(name);
    let tagged = format!("{bare}{LATEST}");
    [name.to_lowercase(), bare, tagged]
}

#[cfg(test)]
mod tests {
    use super::{LoadDefaults, Registry, RegistryError, State};

    fn registry() -> Registry {
        let registry = Registry::new(LoadDefaults::default());
        registry.add_stub();
        registry
    }

    #[test]
    fn a_model_is_loaded_while_leased_and_forgotten_on_unload() {
        let registry = registry();
        assert_eq!(registry.list()[0].state, State::Unloaded);
        let lease = registry.acquire("STUB").expect("names ignore case");
        assert_eq!(registry.list()[0].state, State::Loaded);
        assert!(registry.unload("stub").expect("known"));
        assert!(!registry.unload("stub").expect("known"), "it was loaded once only");
        assert_eq!(lease.runner().info().description, "stub", "the lease still works");
    }

    #[test]
    fn default_is_the_only_model_or_an_alias() {
        let registry = registry();
        assert_eq!(registry.acquire("default").expect("the only one").name(), "stub");
        registry.add_alias("phi3-lora", "stub");
        assert_eq!(registry.acquire("phi3-lora").expect("an alias").name(), "stub");
    }

    /// Open WebUI appends the tag to every name that has none.
    #[test]
    fn the_tag_latest_may_be_left_out_or_added() {
        let registry = registry();
        registry.add_alias("copy:latest", "stub");
        for name in ["stub:latest", "Copy", "copy:latest"] {
            assert_eq!(registry.status(name).expect("known").name, "stub");
        }
        assert!(registry.status("stub:8b").is_err());
        assert!(registry.has_model("stub:latest") && !registry.has_model("copy"));
        assert!(registry.remove_alias("copy"));
        assert!(!registry.remove_alias("stub"), "that is no alias");
        assert!(registry.status("copy:latest").is_err());
    }

    #[test]
    fn an_unknown_name_says_what_is_known() {
        let error = registry().acquire("nothing").expect_err("unknown");
        assert!(matches!(&error, RegistryError::NotFound { known, .. } if known == &["stub"]));
        assert_eq!(error.to_string(), "model not found: \"nothing\" (known: stub)");
    }
}
