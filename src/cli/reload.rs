//! SIGHUP: the config file is read again.

use crate::server::SharedLive;

/// Reloads at each SIGHUP from now on. Call it inside a runtime.
#[cfg(unix)]
pub(super) fn on_hangup(live: SharedLive) {
    use std::sync::{Arc, PoisonError};

    use tokio::signal::unix::{SignalKind, signal};

    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => return tracing::warn!(%error, "SIGHUP cannot be caught; a changed config file needs a restart"),
    };
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            // It reads files, and takes locks that a load may hold.
            let live = Arc::clone(&live);
            let reload = tokio::task::spawn_blocking(move || {
                match live.lock().unwrap_or_else(PoisonError::into_inner).reload() {
                    Ok(changes) => tracing::info!("reloaded: {changes}"),
                    Err(error) => tracing::error!("not reloaded, all stays as it was: {error}"),
                }
            });
            if let Err(error) = reload.await {
                return tracing::error!(%error, "reloading died; a changed config file needs a restart");
            }
        }
    });
}

/// There is no such signal here.
#[cfg(not(unix))]
pub(super) fn on_hangup(_live: SharedLive) {}
