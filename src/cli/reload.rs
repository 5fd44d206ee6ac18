//! SIGHUP: the config file is read again.

use crate::config::Live;

/// Reloads at each SIGHUP from now on. Call it inside a runtime.
#[cfg(unix)]
pub(super) fn on_hangup(mut live: Live) {
    use tokio::signal::unix::{SignalKind, signal};

    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => return tracing::warn!(%error, "SIGHUP cannot be caught; a changed config file needs a restart"),
    };
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            // It reads files, and takes locks that a load may hold.
            let reload = tokio::task::spawn_blocking(move || {
                match live.reload() {
                    Ok(changes) => tracing::info!("reloaded: {changes}"),
                    Err(error) => tracing::error!("not reloaded, all stays as it was: {error}"),
                }
                live
            });
            match reload.await {
                Ok(again) => live = again,
                Err(error) => return tracing::error!(%error, "reloading died; a changed config file needs a restart"),
            }
        }
    });
}

/// There is no such signal here.
#[cfg(not(unix))]
pub(super) fn on_hangup(_live: Live) {}
