//! The LoRA adapters of a loaded model, by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use crate::engine::{AdapterSet, EngineAdapter, EngineHandle};

use super::error::RunnerError;
use super::spec::LoraUse;
use crate::placement::Bytes;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Adapters {
    loaded: RwLock<BTreeMap<String, Loaded>>,
    /// Two requests that need the same file read it once.
    loading: Mutex<()>,
}

#[derive(Debug)]
struct Loaded {
    path: PathBuf,
    adapter: EngineAdapter,
    bytes: Bytes,
}

impl Adapters {
    /// Where the adapter of this name was loaded from.
    pub fn path_of(&self, name: &str) -> Option<PathBuf> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.get(name).map(|adapter| adapter.path.clone())
    }

    /// What they hold on each device. One that was replaced or unloaded no longer counts, although what runs may keep it.
    pub fn held(&self) -> Bytes {
        let mut held = Bytes::new();
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        for (device, bytes) in loaded.values().flat_map(|adapter| &adapter.bytes) {
            *held.entry(device.clone()).or_default() += bytes;
        }
        held
    }

    /// Has `load` read the file, unless that is done already and not to be done `again`. It says what the adapter takes, too.
    /// Returns the adapter whose place the new one took.
    pub fn load<E>(
        &self,
        name: &str,
        path: &Path,
        again: bool,
        load: impl FnOnce() -> Result<(EngineAdapter, Bytes), E>,
    ) -> Result<Option<EngineAdapter>, E> {
        let is_there = || !again && self.path_of(name).as_deref() == Some(path);
        if is_there() {
            return Ok(None);
        }
        let _one = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if is_there() {
            return Ok(None);
        }
        let (adapter, bytes) = load()?;
        let new = Loaded { path: path.to_owned(), adapter, bytes };
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        Ok(loaded.insert(name.to_owned(), new).map(|old| old.adapter))
    }

    /// [`load`](Self::load) beside an engine, which lets go of the adapter that was replaced.
    pub fn load_into<E>(
        &self,
        engine: &EngineHandle,
        name: &str,
        path: &Path,
        again: bool,
        load: impl FnOnce() -> Result<(EngineAdapter, Bytes), E>,
    ) -> Result<(), E> {
        if let Some(old) = self.load(name, path, again, load)? {
            engine.unload_adapter(&old);
        }
        Ok(())
    }

    /// Has the engine let go of the adapter. `false` where none has the name.
    pub fn unload(&self, engine: &EngineHandle, name: &str) -> bool {
        let old = self.take(name);
        old.inspect(|adapter| engine.unload_adapter(adapter)).is_some()
    }

    fn take(&self, name: &str) -> Option<EngineAdapter> {
        self.loaded.write().unwrap_or_else(PoisonError::into_inner).remove(name).map(|old| old.adapter)
    }

    /// What a request that names these is computed with.
    ///
    /// # Errors
    /// A name that none has.
    pub fn set(&self, named: &[LoraUse]) -> Result<AdapterSet, RunnerError> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let find = |LoraUse { name, scale }: &LoraUse| match loaded.get(name) {
            Some(found) => Ok((found.adapter.clone(), scale.unwrap_or(1.0))),
            None => Err(RunnerError::BadRequest(format!("there is no adapter {name:?} ({})", listed(loaded.keys())))),
        };
        Ok(AdapterSet::new(named.iter().map(find).collect::<Result<Vec<_>, _>>()?))
    }
}

/// Names of adapters for a message.
pub fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() { "there are none".into() } else { format!("there are: {}", names.join(", ")) }
}

/// The name of an adapter that is given as a file only: that of the file.
#[must_use]
pub fn adapter_name(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    // A plus stands between names, a slash in a path of HTTP.
    stem.replace(|c: char| c == '+' || c == '/' || c.is_whitespace(), "-")
}

/// The names of several, with a number where two have the same.
#[must_use]
pub fn adapter_names(paths: &[&Path]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(paths.len());
    for path in paths {
        let bare = adapter_name(path);
        let numbered = (2..).map(|n| format!("{bare}-{n}"));
        let free = std::iter::once(bare.clone()).chain(numbered).find(|name| !names.contains(name));
        names.extend(free);
    }
    names
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Adapters, adapter_names};
    use crate::engine::EngineAdapter;
    use crate::placement::Bytes;
    use crate::runner::LoraUse;

    #[test]
    fn names_are_those_of_the_files() {
        let names = adapter_names(&["/a/Poet v2.gguf", "/b/c+d.gguf", "/c/poet-v2.gguf"].map(Path::new));
        assert_eq!(names, ["poet-v2", "c-d", "poet-v2-2"]);
    }

    #[test]
    fn a_file_is_read_once_unless_it_is_to_be_read_again() {
        let adapters = Adapters::default();
        let bytes = |n: u64| Bytes::from([("CPU".to_owned(), n)]);
        let load = |path: &str, again| {
            adapters.load("a", Path::new(path), again, || Ok::<_, ()>((EngineAdapter::new(()), bytes(7))))
        };
        assert!(load("x", false).expect("loads").is_none());
        assert!(load("x", false).expect("is there").is_none());
        assert!(load("x", true).expect("loads").is_some(), "the old one's place is taken");
        assert!(load("y", false).expect("another file").is_some());
        assert_eq!(adapters.held(), bytes(7), "those that were replaced no longer count");
        let unread = adapters.load("a", Path::new("z"), false, || Err("unreadable")).expect_err("the old one stays");
        assert_eq!((unread, adapters.path_of("a").as_deref()), ("unreadable", Some(Path::new("y"))));
        let named = |name: &str| [LoraUse { name: name.into(), scale: None }];
        assert!(adapters.set(&named("a")).is_ok());
        let error = adapters.set(&named("b")).expect_err("unknown").to_string();
        assert_eq!(error, "there is no adapter \"b\" (there are: a)");
        assert!(adapters.take("a").is_some() && adapters.take("a").is_none());
        assert!(adapters.set(&named("a")).expect_err("gone").to_string().ends_with("(there are none)"));
    }
}
