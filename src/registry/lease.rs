//! A model that is lent.

use std::sync::Arc;

use super::keep_alive::KeepAlive;
use super::pool::Shared;
use super::residency::ModelId;
use crate::runner::Runner;

/// Keeps a model loaded. Dropping it never blocks for long: what then has to go is dropped on a thread of the registry's.
#[derive(Debug)]
pub struct Lease {
    name: String,
    id: ModelId,
    /// `None` while it is dropped.
    runner: Option<Arc<dyn Runner>>,
    keep_alive: Option<KeepAlive>,
    shared: Arc<Shared>,
}

impl Lease {
    pub(super) fn new(name: &str, id: ModelId, runner: Arc<dyn Runner>, shared: &Arc<Shared>) -> Self {
        Self { name: name.to_owned(), id, runner: Some(runner), keep_alive: None, shared: Arc::clone(shared) }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn id(&self) -> ModelId {
        self.id
    }

    #[must_use]
    pub fn runner(&self) -> &dyn Runner {
        self.runner.as_deref().unwrap_or_else(|| unreachable!("it is there until the lease is dropped"))
    }

    /// How long the model stays after this lease, from now on; `None` leaves it as it is.
    pub fn keep_alive(&mut self, keep_alive: Option<KeepAlive>) {
        self.keep_alive = keep_alive;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // First, so that the pool's own hold is the last one, and the engine ends on its thread.
        self.runner = None;
        self.shared.release(self.id, self.keep_alive);
    }
}
