//! What every request handler can reach.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::registry::Registry;

use super::ServerConfig;
use super::shutdown::Phase;

#[derive(Clone, Debug)]
pub struct AppState {
    pub(super) registry: Arc<Registry>,
    pub(super) started: Instant,
    pub(super) config: ServerConfig,
    pub(super) phase: watch::Receiver<Phase>,
}

impl AppState {
    pub(super) fn new(registry: Arc<Registry>, config: ServerConfig) -> (Self, watch::Sender<Phase>) {
        let (sender, phase) = watch::channel(Phase::Serving);
        (Self { registry, started: Instant::now(), config, phase }, sender)
    }

    pub(super) fn is_draining(&self) -> bool {
        *self.phase.borrow() == Phase::Draining
    }
}
