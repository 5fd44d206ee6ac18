//! Which adapters there are for which model: those that somebody added, and those that were found beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::AdapterSpec;
use crate::runner::{LoraUse, adapter_name, adapter_names};

#[derive(Debug, Default)]
pub(in crate::registry) struct Adapters {
    /// By model.
    known: Mutex<BTreeMap<String, OfModel>>,
    /// Held while the table and what a model has loaded are brought together.
    changing: Mutex<()>,
}

#[derive(Debug, Default)]
struct OfModel {
    added: BTreeMap<String, AdapterSpec>,
    /// By the names of their files, which several may have.
    found: BTreeMap<String, BTreeSet<PathBuf>>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Named {
    Nothing,
    One(AdapterSpec),
    /// Files that were found, of one name.
    Several(Vec<PathBuf>),
}

impl AdapterSpec {
    fn found(path: &Path) -> Self {
        Self { path: path.to_owned(), scale: 1.0, default: false }
    }
}

impl OfModel {
    fn get(&self, name: &str) -> Named {
        if let Some(spec) = self.added.get(name) {
            return Named::One(spec.clone());
        }
        let files: Vec<&PathBuf> = self.found.get(name).into_iter().flatten().collect();
        match files[..] {
            [] => Named::Nothing,
            [path] => Named::One(AdapterSpec::found(path)),
            _ => Named::Several(files.into_iter().cloned().collect()),
        }
    }

    /// Those that were added hide those of the same name that were found.
    fn all(&self) -> impl Iterator<Item = (&String, AdapterSpec)> {
        let hidden = |name: &String| self.added.contains_key(name);
        let found = self.found.iter().filter(move |(name, _)| !hidden(name));
        let found = found.flat_map(|(name, files)| files.iter().map(move |path| (name, AdapterSpec::found(path))));
        self.added.iter().map(|(name, spec)| (name, spec.clone())).chain(found)
    }
}

impl Adapters {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, OfModel>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, model: &str, name: &str) -> Named {
        self.lock().get(model).map_or(Named::Nothing, |of| of.get(name))
    }

    pub(super) fn insert(&self, model: &str, name: String, spec: AdapterSpec) {
        self.lock().entry(model.to_owned()).or_default().added.insert(name, spec);
    }

    /// Forgets one that was added.
    pub(super) fn remove(&self, model: &str, name: &str) {
        if let Some(of) = self.lock().get_mut(model) {
            of.added.remove(name);
        }
    }

    pub(super) fn names(&self, model: &str) -> BTreeSet<String> {
        let known = self.lock();
        known.get(model).into_iter().flat_map(OfModel::all).map(|(name, _)| name.clone()).collect()
    }

    /// All that are known, of one model or of all, with their models and names.
    pub(super) fn all(&self, model: Option<&str>) -> Vec<(String, String, AdapterSpec)> {
        let known = self.lock();
        let wanted = known.iter().filter(|(of, _)| model.is_none_or(|model| model == of.as_str()));
        let each = wanted.flat_map(|(of, all)| all.all().map(move |(name, spec)| (of.clone(), name.clone(), spec)));
        let mut all: Vec<_> = each.collect();
        all.sort_by(|a, b| (&a.0, &a.1, &a.2.path).cmp(&(&b.0, &b.1, &b.2.path)));
        all
    }

    /// The models for which somebody added an adapter of this name.
    pub(super) fn owners(&self, name: &str) -> Vec<String> {
        let known = self.lock();
        known.iter().filter(|(_, of)| of.added.contains_key(name)).map(|(of, _)| of.clone()).collect()
    }

    /// Those for requests that name none.
    pub(super) fn usual(&self, model: &str) -> Vec<LoraUse> {
        let known = self.lock();
        let added = known.get(model).into_iter().flat_map(|of| &of.added);
        added.filter(|(_, spec)| spec.default).map(|(name, _)| LoraUse { name: name.clone(), scale: None }).collect()
    }

    /// Other adapters than before are the ones that a model is loaded with. Those that somebody else added stay.
    pub fn replace_usual(&self, model: &str, old: &[(PathBuf, f32)], new: &[(PathBuf, f32)]) {
        let mut known = self.lock();
        if old.is_empty() && new.is_empty() {
            return;
        }
        let added = &mut known.entry(model.to_owned()).or_default().added;
        added.retain(|_, spec| old.iter().all(|(path, _)| *path != spec.path));
        let names = adapter_names(&new.iter().map(|(path, _)| path.as_path()).collect::<Vec<_>>());
        for (name, (path, scale)) in names.into_iter().zip(new) {
            added.insert(name, AdapterSpec { path: path.clone(), scale: *scale, default: true });
        }
    }

    /// Those that were found for each model, in place of all that were.
    pub fn set_found(&self, found: &BTreeMap<String, Vec<PathBuf>>) {
        let mut known = self.lock();
        known.values_mut().for_each(|of| of.found.clear());
        for (model, paths) in found {
            let of = &mut known.entry(model.clone()).or_default().found;
            for path in paths {
                of.entry(adapter_name(path)).or_default().insert(path.clone());
            }
        }
    }
}
