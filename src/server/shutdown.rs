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

/// Two futures: the first completes when draining begins, the second when its time is over.
pub(super) fn phases(
    shutdown: impl Future<Output = ()> + Send + 'static,
    phase: watch::Sender<Phase>,
    drain: Duration,
) -> (impl Future<Output = ()> + Send + 'static, impl Future<Output = ()> + Send + 'static) {
    let (mut begin, mut over) = (phase.subscribe(), phase.subscribe());
    tokio::spawn(async move {
        shutdown.await;
        phase.send_replace(Phase::Draining);
        // Receivers outlive this task; the sender must too.
        phase.closed().await;
    });
    let begins = async move {
        let _ = begin.wait_for(|phase| *phase == Phase::Draining).await;
    };
    let is_over = async move {
        let _ = over.wait_for(|phase| *phase == Phase::Draining).await;
        tokio::time::sleep(drain).await;
    };
    (begins, is_over)
}
