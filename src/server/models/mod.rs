//! The models on disk, as the server follows them: what comes and goes while it runs.
//!
//! A list, and a name that nobody knows, ask whether anything changed where models were found, which costs one question
//! to the file system for each folder and file of the last look. Only where something did is looked again. So it does not matter
//! who changed it: another process that pulls or removes, another program, or a user who puts a file into a folder.

mod files;
mod pulls;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::api::ErrorKind;
use crate::config::Live;
use crate::library::own_folder;
use crate::library::pull::{Allowed, Settings, Source, Store};
use crate::registry::{ModelStatus, Registry};

use super::error::ApiError;
use super::routes::generate::blocking;

/// The configuration in force, with the models that it leads to.
pub type SharedLive = Arc<Mutex<Live>>;

#[derive(Debug)]
pub(super) struct Models {
    live: SharedLive,
    registry: Arc<Registry>,
    /// The folder that shimmy keeps models in, where there can be one.
    store: Option<Store>,
    /// The file that is served alone.
    only: Option<PathBuf>,
    allowed: Allowed,
    pulls: Pulls,
}

use pulls::Pulls;
pub(super) use pulls::{End, Follower, News};

impl Models {
    pub fn new(live: SharedLive, allowed: Allowed) -> Self {
        let registry = Arc::clone(lock(&live).registry());
        let follows = Arc::downgrade(&live);
        registry.on_unknown(move || {
            if let Some(live) = follows.upgrade() {
                lock(&live).refresh();
            }
        });
        let only = lock(&live).only();
        Self { live, registry, store: own_folder().map(Store::new), only, allowed, pulls: Pulls::default() }
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

    /// The model with the digest of the manifest that it came with.
    pub fn with_manifest(&self, status: ModelStatus) -> (ModelStatus, Option<String>) {
        let manifest = lock(&self.live).manifest(&status.name);
        (status, manifest)
    }

    /// After a change of our own, which may be too quick for the file system's clock to tell.
    async fn look_again(self: &Arc<Self>) -> Result<(), ApiError> {
        let models = Arc::clone(self);
        blocking(move || {
            models.look_again_now();
            Ok(())
        })
        .await
    }

    fn look_again_now(&self) {
        lock(&self.live).look_again();
    }

    /// Where models are kept that are fetched or made.
    pub fn store(&self) -> Result<&Store, ApiError> {
        if let Some(file) = &self.only {
            let message = format!(
                "this server serves {} alone, and keeps no other models; start it without --model, or with the name of a model",
                file.display()
            );
            return Err(ApiError::new(ErrorKind::Forbidden, message));
        }
        self.store.as_ref().ok_or_else(|| {
            ApiError::new(
                ErrorKind::Forbidden,
                "the server has no home directory to keep models in; set XDG_CACHE_HOME",
            )
        })
    }

    /// Begins to fetch, or joins those who do.
    ///
    /// # Errors
    /// What is not allowed, or too many other sources at once.
    pub fn fetch(self: &Arc<Self>, source: &Source) -> Result<Follower, ApiError> {
        self.allowed.check(source).map_err(|error| ApiError::from(&error))?;
        let settings = Settings::from_env(self.store()?.root().to_owned());
        Pulls::follow(self, source, settings).ok_or_else(|| {
            ApiError::new(
                ErrorKind::Overloaded,
                "too many models are being fetched; try again when one of them is there",
            )
        })
    }
}

fn lock(live: &SharedLive) -> MutexGuard<'_, Live> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}
