//! The models on disk, as the server follows them: what comes and goes while it runs.
//!
//! A list, and a name that nobody knows, ask whether anything changed where models were found, which costs one question
//! to the file system for each folder and file of the last look. Only where something did is looked again. So it does not matter
//! who changed it: another process that pulls or removes, another program, or a user who puts a file into a folder.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Live;
use crate::registry::{ModelStatus, Registry};

use super::error::ApiError;
use super::routes::generate::blocking;

/// The configuration in force, with the models that it leads to.
pub type SharedLive = Arc<Mutex<Live>>;

#[derive(Debug)]
pub(super) struct Models {
    live: SharedLive,
    registry: Arc<Registry>,
}

impl Models {
    pub fn new(live: SharedLive) -> Self {
        let registry = Arc::clone(lock(&live).registry());
        let follows = Arc::downgrade(&live);
        registry.on_unknown(move || follows.upgrade().is_some_and(|live| lock(&live).refresh().is_some()));
        Self { live, registry }
    }

    /// All models there are now.
    pub async fn list(self: &Arc<Self>) -> Result<Vec<ModelStatus>, ApiError> {
        let models = Arc::clone(self);
        blocking(move || Ok(models.list_now())).await
    }

    /// As [`Models::list`]. Asks the disk.
    pub fn list_now(&self) -> Vec<ModelStatus> {
        lock(&self.live).refresh();
        self.registry.list()
    }
}

fn lock(live: &SharedLive) -> MutexGuard<'_, Live> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}
