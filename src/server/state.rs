//! What every request handler can reach.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use crate::registry::Registry;

use super::ServerConfig;
use super::models::{Models, SharedLive};
use super::responses_store::ResponsesStore;
use super::shutdown::Phase;

#[derive(Clone, Debug)]
pub struct AppState {
    pub(super) registry: Arc<Registry>,
    pub(super) models: Arc<Models>,
    pub(super) responses: Arc<ResponsesStore>,
    pub(super) started: Instant,
    pub(super) config: ServerConfig,
    pub(super) phase: watch::Receiver<Phase>,
    /// Held by whoever must end before the server does. An upgraded connection is out of axum's sight.
    pub(super) _alive: mpsc::Sender<()>,
}

/// The other ends of an [`AppState`].
pub(super) struct Ends {
    pub phase: watch::Sender<Phase>,
    /// Its channel closes when the last holder of `_alive` is gone.
    pub all_gone: mpsc::Receiver<()>,
}

impl AppState {
    pub(super) fn new(live: SharedLive, config: ServerConfig) -> (Self, Ends) {
        let registry = Arc::clone(live.lock().unwrap_or_else(PoisonError::into_inner).registry());
        let models = Arc::new(Models::new(live, config.pull));
        let (phase_sender, phase) = watch::channel(Phase::Serving);
        let (alive, all_gone) = mpsc::channel(1);
        let started = Instant::now();
        let state = Self { registry, models, responses: Arc::default(), started, config, phase, _alive: alive };
        (state, Ends { phase: phase_sender, all_gone })
    }

    /// Completes when the server begins to shut down.
    pub(super) async fn drains(&self) {
        let _ = self.phase.clone().wait_for(|phase| *phase == Phase::Draining).await;
    }

    pub(super) fn is_draining(&self) -> bool {
        *self.phase.borrow() == Phase::Draining
    }
}
