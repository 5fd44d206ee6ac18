//! Which LoRA adapters requests can name, for which model, loaded or not.
//!
//! They outlive the loaded model: whoever names one after the model was unloaded finds it again.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::RegistryError;
use super::{Lease, Registry};
use crate::gguf;
use crate::library::nearest;
use crate::runner::{GenerateSpec, LoraUse, RunnerError, adapter_name, listed};
pub(super) use table::Adapters;
use table::Named;

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

impl Registry {
    /// The adapters that were found for each model, in place of all that were. Requests can name them as those of
    /// [`Registry::load_adapter`], by the names of their files.
    pub fn set_found_adapters(&self, found: &BTreeMap<String, Vec<PathBuf>>) {
        self.adapters.set_found(found);
    }

    /// All adapters that are known, or those of one model.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn adapters(&self, model: Option<&str>) -> Result<Vec<AdapterStatus>, RegistryError> {
        let model = model.map(|model| self.status(model).map(|status| status.name)).transpose()?;
        let known = self.adapters.all(model.as_deref());
        Ok(known.into_iter().map(|(of, name, spec)| self.adapter_status(of, name, spec)).collect())
    }

    fn adapter_status(&self, model: String, name: String, spec: AdapterSpec) -> AdapterStatus {
        let loaded = self.loaded_from(&model, &name).is_some_and(|path| path == spec.path);
        let path = spec.path.display().to_string();
        AdapterStatus { name, model, path, scale: spec.scale, default: spec.default, loaded }
    }

    /// Where the adapter came from that the model has loaded under this name.
    fn loaded_from(&self, model: &str, name: &str) -> Option<PathBuf> {
        let entry = self.find(model).ok()?;
        self.pool.look_at_loaded(entry.id(), |runner| runner.adapter(name))?
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
            (None, Some(path)) => adapter_name(path),
            (None, None) => return Err(AdapterError::Refused("give `path`, the adapter's GGUF file".into())),
        };
        if let Some(scale) = change.scale.filter(|scale| !scale.is_finite()) {
            return Err(AdapterError::Refused(format!("scale is {scale}; it must be a finite number")));
        }
        let _changing = self.adapters.change();
        let known = match self.adapters.get(&base.name, &name) {
            Named::One(known) => Some(known),
            Named::Several(files) if change.path.is_none() => {
                return Err(AdapterError::Refused(ambiguous(&base.name, &name, &files)));
            }
            Named::Several(_) | Named::Nothing => None,
        };
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
        let fits = |of: &String| model.as_ref().is_none_or(|model| model == of);
        let has_loaded = |of: &str| self.loaded_from(of, &name).is_some();
        let found = self.adapters.all(model.as_deref()).into_iter();
        let found = found.filter(|(of, own, _)| *own == name && has_loaded(of)).map(|(of, _, _)| of);
        let owners: BTreeSet<String> = self.adapters.owners(&name).into_iter().filter(fits).chain(found).collect();
        match &owners.iter().collect::<Vec<_>>()[..] {
            [owner] => {
                self.adapters.remove(owner, &name);
                if let Some(lease) = self.lend_loaded(owner) {
                    lease.runner().unload_adapter(&name);
                    self.pool.recount(&lease);
                }
                tracing::info!(model = owner, adapter = name, "adapter unloaded");
                Ok((*owner).clone())
            }
            [] => {
                let there = self.adapters.all(model.as_deref());
                let there: BTreeSet<String> = there.into_iter().map(|(of, own, _)| format!("{of}+{own}")).collect();
                let what = if there.iter().any(|full| full.ends_with(&format!("+{name}"))) { " in memory" } else { "" };
                Err(AdapterError::Unknown(format!("there is no adapter {name:?}{what} ({})", listed(there.iter()))))
            }
            several => Err(AdapterError::Refused(format!(
                "several models have an adapter {name:?}: {}; say which with ?model=",
                several.iter().map(|of| of.as_str()).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    /// The model that `name` names, with the adapters that stand behind it: `base+adapter`, `base+one+another`. A model
    /// that has the whole name itself goes first. Blocks: it looks on the disk, once, for a name that nobody knows.
    ///
    /// # Errors
    /// [`RegistryError::LongName`].
    pub fn split_name<'a>(&self, name: &'a str) -> Result<(&'a str, Option<Vec<String>>), RegistryError> {
        let pluses = name.matches('+').count();
        if name.len() > RegistryError::MOST_NAME_BYTES || pluses > RegistryError::MOST_NAME_PLUSES {
            return Err(RegistryError::LongName { bytes: name.len(), pluses });
        }
        if pluses == 0 || self.find(name).is_ok() {
            return Ok((name, None));
        }
        let pluses = name.match_indices('+').map(|(at, _)| at);
        let base = pluses.rev().map(|at| name.split_at(at)).find(|(base, _)| self.known(base).is_some());
        Ok(base.map_or((name, None), |(base, rest)| {
            let rest = rest.strip_suffix(super::LATEST).unwrap_or(rest);
            (base, Some(rest[1..].split('+').map(str::to_lowercase).collect()))
        }))
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
    fn brought_together(&self, lease: &Lease, name: &str) -> Result<Option<AdapterSpec>, NotSettled> {
        let model = lease.name();
        let known = || match self.adapters.get(model, name) {
            Named::Nothing => Ok(None),
            Named::One(known) => Ok(Some(known)),
            Named::Several(files) => Err(RunnerError::BadRequest(ambiguous(model, name, &files))),
        };
        let is_loaded = |known: &AdapterSpec| lease.runner().adapter(name).as_ref() == Some(&known.path);
        let one = known()?;
        if one.as_ref().is_none_or(is_loaded) {
            return Ok(one);
        }
        let _changing = self.adapters.change();
        let Some(known) = known()? else { return Ok(None) };
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
            Some(asked) => {
                let with = there.iter().map(|name| format!("{model}+{name}"));
                let known: Vec<String> = std::iter::once(model.to_owned()).chain(with).collect();
                let near = nearest(asked, known.iter().map(String::as_str)).into_iter().map(str::to_owned).collect();
                RegistryError::NotFound { asked: asked.to_owned(), near, known }.into()
            }
            None => {
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

/// Files of one name are told apart by names of their own.
fn ambiguous(model: &str, name: &str, files: &[PathBuf]) -> String {
    let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    format!(
        "{model} has several adapters {name:?}: {}; load one with POST /api/adapters, under a name of its own",
        files.join(", ")
    )
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
mod tests;
