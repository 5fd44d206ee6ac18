//! Which models are known, and which of them are loaded.

mod adapters;
mod budget;
mod entry;
mod error;
mod keep_alive;
mod lease;
mod loader;
mod pool;
#[cfg(test)]
mod pool_tests;
mod residency;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

pub use adapters::{AdapterChange, AdapterError, AdapterSpec, AdapterStatus, NotSettled};
pub use budget::{BadBudget, MemoryBudget, UnknownDevice};
pub use entry::{ModelStatus, State};
pub use error::RegistryError;
pub use keep_alive::{BadKeepAlive, KeepAlive};
pub use lease::Lease;
pub use pool::Cancel;

use crate::library::{Facts, nearest, untagged};
use crate::placement::{MemoryPlan, NO_LIMIT};
use crate::runner::{self, LoadSpec, ModelSource};
use adapters::Adapters;
use entry::Entry;
use loader::RunnerLoader;
use pool::Pool;

/// All known models, of which as many stay loaded as there is room for. Shared by everything that serves them.
#[derive(Debug)]
pub struct Registry {
    entries: RwLock<BTreeMap<String, Arc<Entry>>>,
    aliases: RwLock<BTreeMap<String, String>>,
    /// Other names of models that were found. They are not listed, and names and aliases go before them.
    spellings: RwLock<BTreeMap<String, String>>,
    adapters: Adapters,
    pool: Pool,
    next_id: AtomicU64,
    look_again: OnceLock<LookAgain>,
}

/// Looks for models that are not known.
struct LookAgain(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for LookAgain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LookAgain")
    }
}

impl Registry {
    #[must_use]
    pub fn new(budget: MemoryBudget) -> Self {
        Self {
            entries: RwLock::default(),
            aliases: RwLock::default(),
            spellings: RwLock::default(),
            adapters: Adapters::default(),
            pool: Pool::new(Box::new(RunnerLoader), budget),
            next_id: AtomicU64::new(0),
            look_again: OnceLock::new(),
        }
    }

    /// What is done, once, before a name that nobody knows is answered with an error. It must not look names up itself.
    pub fn on_unknown(&self, look_again: impl Fn() + Send + Sync + 'static) {
        let _ = self.look_again.set(LookAgain(Box::new(look_again)));
    }

    /// Adds a model, or puts it in the place of the one that has its name, which leaves when nobody uses it any more. A
    /// model that is there already with the same settings stays, loaded or not. Returns whether anything changed.
    pub fn put(
        &self,
        name: &str,
        spec: LoadSpec,
        keep_alive: KeepAlive,
        size_bytes: u64,
        facts: Option<Facts>,
    ) -> bool {
        let same = |entry: &Arc<Entry>| entry.is(&spec, keep_alive, size_bytes);
        if self.entries.read().unwrap_or_else(PoisonError::into_inner).get(name).is_some_and(same) {
            return false;
        }
        let adapters = spec.adapters.clone();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(Entry::new(id, name.to_owned(), spec, keep_alive, size_bytes, facts));
        let old = self.entries.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), entry);
        if let Some(old) = &old {
            old.retire(&self.pool);
        }
        self.adapters.replace_usual(name, old.as_ref().map_or(&[], |old| &old.spec().adapters), &adapters);
        true
    }

    /// Forgets a model, which leaves when nobody uses it any more. Returns whether there was one.
    pub fn remove(&self, name: &str) -> bool {
        let old = self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(old) = &old {
            self.adapters.replace_usual(name, &old.spec().adapters, &[]);
            old.retire(&self.pool);
        }
        old.is_some()
    }

    /// What models answer to beside their names and aliases, in place of all that was known.
    pub fn set_spellings(&self, spellings: BTreeMap<String, String>) {
        *self.spellings.write().unwrap_or_else(PoisonError::into_inner) = spellings;
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

    /// Loads the model if it is not loaded, once however many ask at the same time, and keeps it loaded for as
    /// long as the lease lives. Waits for room where others have to go first. Blocks.
    ///
    /// # Errors
    /// All of [`RegistryError`].
    pub fn acquire(&self, name: &str) -> Result<Lease, RegistryError> {
        self.acquire_unless(name, &Cancel::default())
    }

    /// As [`Registry::acquire`], until [`Registry::cancel`].
    ///
    /// # Errors
    /// As [`Registry::acquire`].
    pub fn acquire_unless(&self, name: &str, cancel: &Cancel) -> Result<Lease, RegistryError> {
        self.lend(name, cancel, &mut |_| true)
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
        self.lend(name, &Cancel::default(), progress)
    }

    fn lend(&self, name: &str, cancel: &Cancel, progress: &mut dyn FnMut(f32) -> bool) -> Result<Lease, RegistryError> {
        let entry = self.find(name)?;
        let lease = self.pool.acquire(entry.wanted(), cancel, progress);
        lease.map_err(|why| RegistryError::not_lent(entry.name(), why))
    }

    /// Ends the waiting of whoever acquires with this.
    pub fn cancel(&self, cancel: &Cancel) {
        self.pool.cancel(cancel);
    }

    /// Ends all waiting, and unloads all models that nobody uses. Nothing can be acquired afterwards.
    pub fn close(&self) {
        self.pool.close();
    }

    /// What loading the model would take.
    ///
    /// # Errors
    /// As [`Registry::acquire`].
    pub fn plan(&self, name: &str) -> Result<MemoryPlan, RegistryError> {
        let entry = self.find(name)?;
        runner::plan(entry.spec(), NO_LIMIT)
            .map_err(|error| RegistryError::Load { model: entry.name().to_owned(), error })
    }

    /// Unloads the model, at once where nobody uses it, else when those are done who do. Blocks. Returns whether it was
    /// loaded.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn unload(&self, name: &str) -> Result<bool, RegistryError> {
        Ok(self.pool.unload(self.find(name)?.id()))
    }

    /// One model's state.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn status(&self, name: &str) -> Result<ModelStatus, RegistryError> {
        Ok(self.find(name)?.status(&self.pool))
    }

    /// Whether a model has this name itself, and not as an alias.
    #[must_use]
    pub fn has_model(&self, name: &str) -> bool {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        spellings(name).iter().any(|spelling| entries.contains_key(spelling))
    }

    /// Whether its file is yet to be fetched.
    #[must_use]
    pub fn is_absent(&self, name: &str) -> bool {
        self.find_known(name).is_ok_and(|entry| matches!(entry.spec().source, ModelSource::Absent { .. }))
    }

    /// All models, by name.
    #[must_use]
    pub fn list(&self) -> Vec<ModelStatus> {
        self.entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(|entry| entry.status(&self.pool))
            .collect()
    }

    fn find(&self, name: &str) -> Result<Arc<Entry>, RegistryError> {
        match (self.find_known(name), self.look_again.get()) {
            (Err(_), Some(look_again)) => {
                // Somebody else may have looked meanwhile, after which there is nothing new for us.
                (look_again.0)();
                self.find_known(name)
            }
            (found, _) => found,
        }
    }

    fn find_known(&self, name: &str) -> Result<Arc<Entry>, RegistryError> {
        self.known(name).ok_or_else(|| self.not_found(name))
    }

    /// `default` without an alias means the only model, where there is one only.
    fn known(&self, name: &str) -> Option<Arc<Entry>> {
        let bare = untagged(name);
        let aliased = self.aliases.read().unwrap_or_else(PoisonError::into_inner).get(&bare).cloned();
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let wanted = aliased.as_deref().unwrap_or(name);
        if let Some(entry) = spellings(wanted).iter().find_map(|spelling| entries.get(spelling)) {
            return Some(Arc::clone(entry));
        }
        let spellings = self.spellings.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = spellings.get(&untagged(wanted)).and_then(|name| entries.get(name)) {
            return Some(Arc::clone(entry));
        }
        match (bare.as_str(), entries.len(), entries.values().next()) {
            ("default", 1, Some(only)) => Some(Arc::clone(only)),
            _ => None,
        }
    }

    fn not_found(&self, name: &str) -> RegistryError {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let spellings = self.spellings.read().unwrap_or_else(PoisonError::into_inner);
        let known = entries.keys().chain(spellings.keys()).map(String::as_str);
        let near = nearest(name, known).into_iter().map(str::to_owned).collect();
        RegistryError::NotFound { asked: name.to_owned(), near, known: entries.keys().cloned().collect() }
    }
}

/// The tag that a name without one has for Ollama and its clients.
const LATEST: &str = ":latest";

/// How a name may be listed: as it is, without that tag, or with it.
fn spellings(name: &str) -> [String; 3] {
    let bare = untagged(name);
    let tagged = format!("{bare}{LATEST}");
    [name.to_lowercase(), bare, tagged]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::testing::{registry_of, stub};
    use super::{Registry, RegistryError, State};

    fn registry() -> Registry {
        registry_of(&["stub"])
    }

    #[test]
    fn a_model_is_loaded_while_leased_and_leaves_on_unload() {
        let registry = registry();
        assert_eq!(registry.list()[0].state, State::Unloaded);
        let lease = registry.acquire("STUB").expect("names ignore case");
        assert_eq!(registry.list()[0].state, State::Loaded);
        assert!(registry.unload("stub").expect("known"));
        assert_eq!(registry.list()[0].state, State::Unloading);
        assert_eq!(lease.runner().info().description, "stub", "the lease still works");
        drop(lease);
        registry.unload("stub").expect("known");
        assert_eq!(registry.list()[0].state, State::Unloaded);
        assert!(!registry.unload("stub").expect("known"));
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
    fn what_was_found_answers_to_its_other_names() {
        let registry = registry_of(&["stub", "foo:7b-q4_0"]);
        let spellings = ["foo-7b", "stub", "lab/foo"].map(|alias| (alias.to_owned(), "foo:7b-q4_0".to_owned()));
        registry.set_spellings(BTreeMap::from(spellings));
        for name in ["foo:7b-q4_0", "FOO-7B", "foo-7b:latest", "lab/foo"] {
            assert_eq!(registry.status(name).expect(name).name, "foo:7b-q4_0");
        }
        assert_eq!(registry.status("stub").expect("known").name, "stub", "a name goes before an alias");
        let error = registry.acquire("fo-7b").expect_err("unknown").to_string();
        assert!(error.contains("did you mean \"foo-7b\"?"), "{error}");
    }

    /// What the one who looks again finds may have been put in already by another one who looked at the same time.
    #[test]
    fn what_came_meanwhile_is_found() {
        let registry = std::sync::Arc::new(registry());
        let other = std::sync::Arc::downgrade(&registry);
        registry.on_unknown(move || {
            let registry = other.upgrade().expect("in use");
            registry.put("late", stub("late"), super::KeepAlive::default(), 0, None);
        });
        assert_eq!(registry.status("late").expect("there by now").name, "late");
        assert!(registry.status("never").is_err());
    }

    #[test]
    fn an_unknown_name_says_what_is_known() {
        let error = registry().acquire("nothing").expect_err("unknown");
        assert!(matches!(&error, RegistryError::NotFound { known, .. } if known == &["stub"]));
        assert_eq!(error.to_string(), "model not found: \"nothing\" (known: stub)");
    }
}
