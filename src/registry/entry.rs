//! One model of the registry: unloaded, loading, loaded or failed.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::gguf;
use crate::placement::MemoryPlan;
use crate::runner::{self, LoadSpec, ModelSource, Runner, RunnerInfo};

use super::error::RegistryError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Unloaded,
    Loading,
    Loaded,
    Failed,
}

/// What `/api/models` and `list` show.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelStatus {
    pub name: String,
    pub state: State,
    /// The file, where there is one.
    pub path: Option<String>,
    pub size_bytes: u64,
    /// What the file's header says, where it was discovered.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
    /// Why the latest load failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Facts about the loaded model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<RunnerInfo>,
}

/// Facts from a model's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    pub architecture: String,
    /// E.g. `Q4_1`.
    pub quantization: String,
    /// Tokens that the model was trained for; 0 where the file does not say.
    pub trained_context_tokens: u64,
    pub parameters: u64,
}

impl Facts {
    pub(super) fn of(header: &gguf::Header) -> Self {
        Self {
            architecture: header.architecture().to_owned(),
            quantization: header.quantization(),
            trained_context_tokens: header.context_length().unwrap_or(0),
            parameters: header.parameter_count(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    name: String,
    spec: LoadSpec,
    size_bytes: u64,
    facts: Option<Facts>,
    /// Held while loading, so that others who ask wait and then find the model.
    slot: Mutex<Option<Arc<dyn Runner>>>,
    /// Apart from `slot`, so that asking for the state never waits for a load.
    state: Mutex<(State, Option<String>, Option<RunnerInfo>)>,
}

/// Keeps a model loaded. Dropping the last one of an unloaded model waits for its engine's thread to end.
#[derive(Clone, Debug)]
pub struct Lease {
    name: String,
    runner: Arc<dyn Runner>,
}

impl Lease {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn runner(&self) -> &dyn Runner {
        self.runner.as_ref()
    }
}

impl Entry {
    pub fn new(name: String, spec: LoadSpec, size_bytes: u64, facts: Option<Facts>) -> Self {
        Self { facts, name, spec, size_bytes, slot: Mutex::new(None), state: Mutex::new((State::Unloaded, None, None)) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn acquire(&self, progress: &mut dyn FnMut(f32) -> bool) -> Result<Lease, RegistryError> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runner) = slot.as_ref() {
            return Ok(self.lease(runner));
        }
        self.set_state(State::Loading, None, None);
        match runner::load(&self.spec, progress) {
            Ok(runner) => {
                self.set_state(State::Loaded, None, Some(runner.info().clone()));
                let lease = self.lease(&runner);
                *slot = Some(runner);
                Ok(lease)
            }
            Err(error) => {
                self.set_state(State::Failed, Some(error.to_string()), None);
                Err(RegistryError::Load { model: self.name.clone(), error })
            }
        }
    }

    pub fn plan(&self) -> Result<MemoryPlan, RegistryError> {
        runner::plan(&self.spec).map_err(|error| RegistryError::Load { model: self.name.clone(), error })
    }

    pub fn unload(&self) -> bool {
        let runner = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        if runner.is_some() {
            self.set_state(State::Unloaded, None, None);
        }
        runner.is_some()
    }

    pub fn status(&self) -> ModelStatus {
        let (state, error, info) = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let path = match &self.spec.source {
            ModelSource::Gguf { path } => Some(path.display().to_string()),
            ModelSource::Stub(_) => None,
        };
        ModelStatus {
            name: self.name.clone(),
            state,
            path,
            size_bytes: self.size_bytes,
            facts: self.facts.clone(),
            error,
            info,
        }
    }

    fn lease(&self, runner: &Arc<dyn Runner>) -> Lease {
        Lease { name: self.name.clone(), runner: Arc::clone(runner) }
    }

    fn set_state(&self, state: State, error: Option<String>, info: Option<RunnerInfo>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = (state, error, info);
    }
}
