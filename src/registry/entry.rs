//! One model of the registry, and what it is doing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::keep_alive::KeepAlive;
use super::pool::{Pool, Wanted};
use super::residency::{ModelId, Phase};
use crate::library::Facts;
use crate::runner::{LoadSpec, ModelSource, RunnerInfo};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ModelState")]
pub enum State {
    #[default]
    Unloaded,
    /// Waits until there is room, or until others have loaded.
    Queued,
    Loading,
    Loaded,
    /// Leaves when those who use it are done.
    Unloading,
    Failed,
}

/// What `/api/models` and `list` show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(description = "A model and its state.")]
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
    /// The fraction that is loaded, 0.0 to 1.0, while it loads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<f32>,
    /// Requests that use it now, where it is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_use: Option<usize>,
    /// When it is unloaded if nobody uses it, where that has an end.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "timestamp")]
    #[schemars(with = "Option<String>")]
    pub expires_at: Option<SystemTime>,
    /// Facts about the loaded model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<RunnerInfo>,
}

fn timestamp<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.and_then(|time| Timestamp::try_from(time).ok()).map(|time| time.to_string()).serialize(serializer)
}

#[derive(Debug)]
pub(super) struct Entry {
    id: ModelId,
    name: String,
    spec: LoadSpec,
    size_bytes: u64,
    facts: Option<Facts>,
    keep_alive: KeepAlive,
    /// Another one has its place.
    retired: AtomicBool,
}

impl Entry {
    pub fn new(
        id: ModelId,
        name: String,
        spec: LoadSpec,
        keep_alive: KeepAlive,
        size_bytes: u64,
        facts: Option<Facts>,
    ) -> Self {
        Self { id, name, spec, size_bytes, facts, keep_alive, retired: AtomicBool::new(false) }
    }

    pub fn id(&self) -> ModelId {
        self.id
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is that model, with these settings.
    pub fn is(&self, spec: &LoadSpec, keep_alive: KeepAlive, size_bytes: u64) -> bool {
        self.spec == *spec && self.keep_alive == keep_alive && self.size_bytes == size_bytes
    }

    pub fn spec(&self) -> &LoadSpec {
        &self.spec
    }

    pub fn wanted(&self) -> Wanted<'_> {
        Wanted { id: self.id, name: &self.name, spec: &self.spec, keep_alive: self.keep_alive, retired: &self.retired }
    }

    pub fn retire(&self, pool: &Pool) {
        self.retired.store(true, Ordering::Relaxed);
        pool.retire(self.id);
    }

    pub fn status(&self, pool: &Pool) -> ModelStatus {
        let (phase, progress, error, info) = pool.status(self.id);
        let (state, in_use, expires) = match phase {
            Phase::Unloaded if error.is_some() => (State::Failed, None, None),
            Phase::Unloaded => (State::Unloaded, None, None),
            Phase::Queued => (State::Queued, None, None),
            Phase::Loading => (State::Loading, None, None),
            Phase::Loaded { leases, expires } => (State::Loaded, Some(leases), expires),
            Phase::Unloading => (State::Unloading, None, None),
        };
        let path = match &self.spec.source {
            ModelSource::Gguf { path } => Some(path.display().to_string()),
            ModelSource::Stub(_) | ModelSource::Absent { .. } => None,
        };
        ModelStatus {
            name: self.name.clone(),
            state,
            path,
            size_bytes: self.size_bytes,
            facts: self.facts.clone(),
            error: error.filter(|_| state == State::Failed),
            progress: (state == State::Loading).then_some(progress),
            in_use,
            expires_at: expires
                .and_then(|at| SystemTime::now().checked_add(at.saturating_duration_since(Instant::now()))),
            info,
        }
    }
}
