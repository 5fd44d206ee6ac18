//! From a signal to an orderly end.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;

/// Whether new work is still taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    Draining,
}

/// Completes on Ctrl-C or SIGTERM.
pub async fn terminated() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => {}
                    _ = terminate.recv() => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, "SIGTERM cannot be caught; only Ctrl-C drains");
                let _ = tokio::signal::ctrl_c().await;
            }
        }
    }
    #[cfg(not(unix))]
    {
        let _ = tokio::signal::ctrl_c().await;
    }
    tracing::info!("shutting down: no new requests, those that run may finish");
}

/// Begins to drain when `shutdown` completes. The result completes when the time for that is over.
pub(super) fn drain_over(
    shutdown: impl Future<Output = ()> + Send + 'static,
    phase: watch::Sender<Phase>,
    drain: Duration,
) -> impl Future<Output = ()> + Send + 'static {
    let mut over = phase.subscribe();
    tokio::spawn(async move {
        shutdown.await;
        phase.send_replace(Phase::Draining);
        // Receivers outlive this task; the sender must too.
        phase.closed().await;
    });
    async move {
        let _ = over.wait_for(|phase| *phase == Phase::Draining).await;
        tokio::time::sleep(drain).await;
    }
}
