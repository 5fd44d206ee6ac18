//! Which LoRA adapters requests can name, for which model, loaded or not.
//!
//! They outlive the loaded model: whoever names one after the model was unloaded finds it again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::error::RegistryError;
use super::{Lease, Registry};
use crate::gguf;
use crate::library::nearest;
use crate::runner::{GenerateSpec, LoraUse, RunnerError, adapter_names, listed};

/// An adapter that requests for a model can name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterSpec {
    pub path: PathBuf,
    /// For requests that name none.
    pub scale: f32,
    /// Used by requests that name no adapters at all.
    pub default: bool,
}

/// What `/api/adapters` shows.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "shimmy.Adapter")]
pub struct AdapterStatus {
    pub name: String,
    /// The model that it is for.
    pub model: String,
    pub path: String,
    pub scale: f32,
    pub default: bool,
    /// Whether it is in memory. If not, the first request that names it loads it.
    pub loaded: bool,
}

/// What to change about an adapter. What is `None` stays, or takes its default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdapterChange {
    /// Absent, the file's name.
    pub name: Option<String>,
    /// The file is read, also where it is the same as before.
    pub path: Option<PathBuf>,
    pub scale: Option<f32>,
    pub default: Option<bool>,
}

/// Why an adapter cannot be loaded or unloaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdapterError {
    #[error("{0}")]
    Model(#[from] RegistryError),
    #[error("{0}")]
    Unknown(String),
    #[error("{0}")]
    Refused(String),
}

/// By model and name.
type Table = BTreeMap<(String, String), AdapterSpec>;

#[derive(Debug, Default)]
pub(super) struct Adapters {
    table: Mutex<Table>,
    /// Held while the table and what a model has loaded are brought together.
    changing: Mutex<()>,
}

impl Adapters {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, model: &str, name: &str) -> Option<AdapterSpec> {
        self.lock().get(&(model.to_owned(), name.to_owned())).cloned()
    }

    pub fn insert(&self, model: &str, name: String, spec: AdapterSpec) {
        self.lock().insert((model.to_owned(), name), spec);
    }

    fn names(&self, model: &str) -> Vec<String> {
        self.lock().keys().filter(|(of, _)| of == model).map(|(_, name)| name.clone()).collect()
    }

    /// Those for requests that name none.
    fn usual(&self, model: &str) -> Vec<LoraUse> {
        let table = self.lock();
        let usual = table.iter().filter(|((of, _), spec)| of == model && spec.default);
        usual.map(|((_, name), _)| LoraUse { name: name.clone(), scale: None }).collect()
    }

    /// Other adapters than before are the ones that a model is loaded with. Those that somebody else added stay.
    pub fn replace_usual(&self, model: &str, old: &[(PathBuf, f32)], new: &[(PathBuf, f32)]) {
        self.lock().retain(|(of, _), spec| of != model || old.iter().all(|(path, _)| *path != spec.path));
        self.insert_usual(model, new);
    }

    /// The adapters that a model is loaded with.
    fn insert_usual(&self, model: &str, files: &[(PathBuf, f32)]) {
        let names = adapter_names(&files.iter().map(|(path, _)| path.as_path()).collect::<Vec<_>>());
        for (name, (path, scale)) in names.into_iter().zip(files) {
            self.insert(model, name, AdapterSpec { path: path.clone(), scale: *scale, default: true });
        }
    }
}

impl Registry {
    /// Lets requests for this model name an adapter, which is loaded when one does.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn add_adapter(&self, model: &str, name: &str, spec: AdapterSpec) -> Result<(), RegistryError> {
        let model = self.status(model)?.name;
        self.adapters.insert(&model, name.to_owned(), spec);
        Ok(())
    }

    /// All adapters that are known, or those of one model.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn adapters(&self, model: Option<&str>) -> Result<Vec<AdapterStatus>, RegistryError> {
        let model = model.map(|model| self.status(model).map(|status| status.name)).transpose()?;
        let table = self.adapters.lock().clone();
        let wanted = table.into_iter().filter(|((of, _), _)| model.as_ref().is_none_or(|model| model == of));
        Ok(wanted.map(|((of, name), spec)| self.adapter_status(of, name, spec)).collect())
    }

    fn adapter_status(&self, model: String, name: String, spec: AdapterSpec) -> AdapterStatus {
        let of_model = |entry: Arc<Entry>| self.pool.look_at_loaded(entry.id(), |runner| runner.adapter(&name));
        let loaded = self.find(&model).ok().and_then(of_model).flatten().is_some_and(|path| path == spec.path);
        let path = spec.path.display().to_string();
        AdapterStatus { name, model, path, scale: spec.scale, default: spec.default, loaded }
    }

    fn lend_loaded(&self, model: &str) -> Option<Lease> {
        self.find(model).ok().and_then(|entry| self.pool.lend_loaded(entry.id()))
    }

    /// Loads an adapter, loads one again, or changes how one is used. A model that is not loaded stays so: then the file is
    /// checked, and loaded when a request names it. Blocks.
    ///
    /// # Errors
    /// An unknown model, a file that does not fit it, a value that is out of range.
    pub fn load_adapter(&self, model: &str, change: AdapterChange) -> Result<AdapterStatus, AdapterError> {
        let base = self.status(model)?;
        let name = match (&change.name, &change.path) {
            (Some(name), _) => checked_name(name)?,
            (None, Some(path)) => adapter_names(&[path]).concat(),
            (None, None) => return Err(AdapterError::Refused("give `path`, the adapter's GGUF file".into())),
        };
        if let Some(scale) = change.scale.filter(|scale| !scale.is_finite()) {
            return Err(AdapterError::Refused(format!("scale is {scale}; it must be a finite number")));
        }
        let _changing = self.adapters.change();
        let known = self.adapters.get(&base.name, &name);
        let Some(path) = change.path.clone().or_else(|| known.as_ref().map(|known| known.path.clone())) else {
            let there = self.adapters.names(&base.name);
            return Err(AdapterError::Unknown(format!(
                "there is no adapter {name:?} for {} ({}); give `path` to load it",
                base.name,
                listed(there.iter())
            )));
        };
        if change.path.is_some() {
            let refused = |why: String| AdapterError::Refused(why);
            match self.lend_loaded(&base.name) {
                Some(lease) => {
                    self.bring(&lease, &name, &path, true).map_err(|error| match error {
                        RegistryError::Load { error, .. } => refused(error.to_string()),
                        error => error.into(),
                    })?;
                    tracing::info!(model = base.name, adapter = name, path = %path.display(), "adapter loaded");
                }
                None => check(&path, base.path.as_deref().map(Path::new)).map_err(|e| refused(e.to_string()))?,
            }
        }
        let spec = AdapterSpec {
            path,
            scale: change.scale.or(known.as_ref().map(|known| known.scale)).unwrap_or(1.0),
            default: change.default.or(known.as_ref().map(|known| known.default)).unwrap_or(false),
        };
        self.adapters.insert(&base.name, name.clone(), spec.clone());
        Ok(self.adapter_status(base.name, name, spec))
    }

    /// Forgets an adapter. Generations with it go on to their end. `model` is needed where several models have one of this
    /// name. Returns the model's name.
    ///
    /// # Errors
    /// An adapter that is unknown, or known for several models.
    pub fn unload_adapter(&self, name: &str, model: Option<&str>) -> Result<String, AdapterError> {
        let model = model.map(|model| self.status(model).map(|status| status.name)).transpose()?;
        let name = name.to_lowercase();
        let _changing = self.adapters.change();
        let mut table = self.adapters.lock();
        let fits = |of: &str| model.as_deref().is_none_or(|model| model == of);
        let owners: Vec<String> =
            table.keys().filter(|(of, own)| *own == name && fits(of)).map(|(of, _)| of.clone()).collect();
        match &owners[..] {
            [owner] => {
                table.remove(&(owner.clone(), name.clone()));
                drop(table);
                if let Some(lease) = self.lend_loaded(owner) {
                    lease.runner().unload_adapter(&name);
                    self.pool.recount(&lease);
                }
                tracing::info!(model = owner, adapter = name, "adapter unloaded");
                Ok(owner.clone())
            }
            [] => {
                let there: Vec<String> =
                    table.keys().filter(|(of, _)| fits(of)).map(|(of, own)| format!("{of}+{own}")).collect();
                Err(AdapterError::Unknown(format!("there is no adapter {name:?} ({})", listed(there.iter()))))
            }
            several => Err(AdapterError::Refused(format!(
                "several models have an adapter {name:?}: {}; say which with ?model=",
                several.join(", ")
            ))),
        }
    }

    /// The model that `name` names, with the adapters that stand behind it: `base+adapter`, `base+one+another`. A model
    /// that has the whole name itself goes first.
    #[must_use]
    pub fn split_name<'a>(&self, name: &'a str) -> (&'a str, Option<Vec<String>>) {
        if !name.contains('+') || self.find(name).is_ok() {
            return (name, None);
        }
        let pluses = name.match_indices('+').map(|(at, _)| at);
        let base = pluses.rev().map(|at| name.split_at(at)).find(|(base, _)| self.find(base).is_ok());
        match base {
            Some((base, rest)) => {
                let rest = rest.strip_suffix(super::LATEST).unwrap_or(rest);
                (base, Some(rest[1..].split('+').map(str::to_lowercase).collect()))
            }
            None => (name, None),
        }
    }

    /// Settles which adapters a request is computed with, and loads those that are not loaded yet. `named` are those of
    /// the model's name.
    ///
    /// # Errors
    /// Adapters that are unknown, or cannot be loaded.
    pub fn settle_adapters(
        &self,
        lease: &Lease,
        named: Option<&[String]>,
        spec: &mut GenerateSpec,
    ) -> Result<(), NotSettled> {
        let model = lease.name();
        let mut wanted = match (named, spec.lora.take()) {
            (Some(_), Some(_)) => {
                let why = "adapters are named in `model` and in `lora`; name them in one of the two";
                return Err(RunnerError::BadRequest(why.into()).into());
            }
            (Some(names), None) => names.iter().map(|name| LoraUse { name: name.clone(), scale: None }).collect(),
            (None, Some(uses)) => uses,
            (None, None) => self.adapters.usual(model),
        };
        for LoraUse { name, scale } in &mut wanted {
            name.make_ascii_lowercase();
            let known = self.brought_together(lease, name)?;
            let Some(known) = known else {
                return Err(self.unknown(model, name, named.is_some().then_some(spec.model.as_str())));
            };
            scale.get_or_insert(known.scale);
        }
        spec.lora = Some(wanted);
        Ok(())
    }

    /// What is known of an adapter, which the lent model has loaded then.
    fn brought_together(&self, lease: &Lease, name: &str) -> Result<Option<AdapterSpec>, RegistryError> {
        let model = lease.name();
        let is_loaded = |known: &AdapterSpec| lease.runner().adapter(name).as_ref() == Some(&known.path);
        let known = self.adapters.get(model, name);
        if known.as_ref().is_none_or(is_loaded) {
            return Ok(known);
        }
        let _changing = self.adapters.change();
        let Some(known) = self.adapters.get(model, name) else { return Ok(None) };
        if !is_loaded(&known) {
            self.bring(lease, name, &known.path, false)?;
        }
        Ok(Some(known))
    }

    /// Loads an adapter beside its model, where there is room for it.
    fn bring(&self, lease: &Lease, name: &str, path: &Path, again: bool) -> Result<(), RegistryError> {
        let failed = |error| RegistryError::Load { model: format!("{}+{name}", lease.name()), error };
        let need = lease.runner().adapter_need(path).map_err(failed)?;
        self.pool.grow(lease, &need).map_err(|why| RegistryError::not_grown(lease.name(), name, why))?;
        let loaded = lease.runner().load_adapter(name, path, again);
        self.pool.recount(lease);
        loaded.map_err(failed)
    }

    fn unknown(&self, model: &str, name: &str, asked: Option<&str>) -> NotSettled {
        let there = self.adapters.names(model);
        match asked {
            Some(asked) if !there.is_empty() => {
                let known: Vec<String> = there.iter().map(|name| format!("{model}+{name}")).collect();
                let near = nearest(asked, known.iter().map(String::as_str)).into_iter().map(str::to_owned).collect();
                RegistryError::NotFound { asked: asked.to_owned(), near, known }.into()
            }
            _ => {
                let why = format!("there is no adapter {name:?} for {model} ({})", listed(there.iter()));
                RunnerError::BadRequest(why).into()
            }
        }
    }
}

/// Why a request's adapters are not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSettled {
    #[error("{0}")]
    Model(#[from] RegistryError),
    #[error("{0}")]
    Request(#[from] RunnerError),
}

fn checked_name(name: &str) -> Result<String, AdapterError> {
    let name = name.trim().to_lowercase();
    let odd = name.find(|c: char| c == '+' || c == '/' || c.is_whitespace() || c.is_control());
    if name.is_empty() || odd.is_some() {
        let why = format!("{name:?} is no name for an adapter: it may not be empty, nor hold spaces, `+` or `/`");
        return Err(AdapterError::Refused(why));
    }
    Ok(name)
}

/// What can be told of an adapter by its file and that of its base, without loading either.
fn check(path: &Path, base: Option<&Path>) -> Result<(), gguf::GgufError> {
    let header = gguf::Header::open(path)?;
    match base {
        Some(base) => gguf::validate_adapter(&header, &gguf::Header::open(base)?),
        None if header.is_adapter() => Ok(()),
        None => Err(gguf::GgufError::Invalid { path: path.to_owned(), what: "is no LoRA adapter".into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::{AdapterChange, AdapterError, AdapterSpec};
    use crate::registry::{LoadDefaults, MemoryBudget, Registry};
    use crate::runner::{GenerateSpec, Input, LoraUse, StubSpeed};

    fn registry() -> Registry {
        let registry = Registry::new(LoadDefaults::default(), MemoryBudget::default());
        registry.add_stub("stub", StubSpeed::Paced);
        registry.add_stub("stub-fast", StubSpeed::Fast);
        registry
    }

    fn known(path: &str) -> AdapterSpec {
        AdapterSpec { path: path.into(), scale: 0.5, default: false }
    }

    #[test]
    fn a_name_is_a_models_or_a_models_with_adapters() {
        let registry = registry();
        registry.add_alias("c4+r", "stub");
        let split = |name: &'static str| registry.split_name(name);
        let names = |list: &[&str]| Some(list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(split("stub"), ("stub", None));
        assert_eq!(split("c4+r"), ("c4+r", None));
        assert_eq!(split("c4+r+Poet:latest"), ("c4+r", names(&["poet"])));
        assert_eq!(split("stub+a+b"), ("stub", names(&["a", "b"])));
        assert_eq!(split("nothing+a"), ("nothing+a", None));
    }

    #[test]
    fn what_a_request_names_is_found_or_listed() {
        let registry = registry();
        registry.add_adapter("stub", "poet", known("/nowhere.gguf")).expect("the model is known");
        let lease = registry.acquire("stub").expect("the stub");
        let settle = |named: Option<&[String]>, lora: Option<Vec<LoraUse>>| {
            let input = Input::Raw("a".into());
            let mut spec = GenerateSpec { lora, ..GenerateSpec::new("stub+x", input) };
            registry.settle_adapters(&lease, named, &mut spec).map(|()| spec.lora).map_err(|e| e.to_string())
        };
        let used = |name: &str| vec![LoraUse { name: name.into(), scale: None }];
        assert_eq!(settle(None, None), Ok(Some(Vec::new())), "none is used by default");
        assert_eq!(
            settle(None, Some(used("x"))).expect_err("unknown"),
            "there is no adapter \"x\" for stub (there are: poet)"
        );
        let by_name = settle(Some(&["x".into()]), None).expect_err("unknown");
        assert_eq!(by_name, "model not found: \"stub+x\" (known: stub+poet)");
        assert!(settle(Some(&["poet".into()]), Some(used("poet"))).expect_err("twice").contains("in one of the two"));
        assert!(settle(None, Some(used("POET"))).expect_err("no file").starts_with("stub+poet could not be loaded: "));
    }

    #[test]
    fn what_cannot_be_changed_is_said() {
        let registry = registry();
        for model in ["stub", "stub-fast"] {
            registry.add_adapter(model, "poet", known("/nowhere.gguf")).expect("the model is known");
        }
        let change = |change| registry.load_adapter("stub", change).map_err(|error| error.to_string());
        let named = |name: &str| AdapterChange { name: Some(name.into()), ..AdapterChange::default() };
        assert!(change(AdapterChange::default()).expect_err("nothing is named").contains("`path`"));
        assert!(change(named("a+b")).expect_err("a separator").contains("is no name for an adapter"));
        assert!(change(named("x")).expect_err("unknown").contains("(there are: poet)"));
        let infinite = AdapterChange { scale: Some(f32::INFINITY), ..named("poet") };
        assert_eq!(change(infinite).expect_err("no scale"), "scale is inf; it must be a finite number");
        let scaled = change(AdapterChange { scale: Some(2.0), ..named("Poet") }).expect("only the scale changes");
        assert_eq!((scaled.scale, scaled.default, scaled.loaded), (2.0, false, false));

        let error = registry.unload_adapter("poet", None).expect_err("two have it");
        assert!(matches!(&error, AdapterError::Refused(why) if why.contains("stub, stub-fast")), "{error}");
        assert_eq!(registry.unload_adapter("poet", Some("stub-fast")).as_deref(), Ok("stub-fast"));
        assert_eq!(registry.unload_adapter("Poet", None).as_deref(), Ok("stub"));
        let gone = registry.unload_adapter("poet", None).expect_err("gone");
        assert_eq!(gone.to_string(), "there is no adapter \"poet\" (there are none)");
    }
}
