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

/// The result completes on Ctrl-C or SIGTERM. Both are caught from this call on; it must be made inside a runtime.
pub fn terminated() -> impl Future<Output = ()> + Send + 'static {
    #[cfg(unix)]
    let signals = {
        use tokio::signal::unix::{SignalKind, signal};
        [SignalKind::terminate(), SignalKind::interrupt()].map(|kind| {
            signal(kind).inspect_err(|error| tracing::warn!(%error, "a signal that ends the server cannot be caught"))
        })
    };
    async move {
        #[cfg(unix)]
        {
            let [terminate, interrupt] = signals;
            tokio::select! {
                () = received(terminate) => {}
                () = received(interrupt) => {}
            }
        }
        #[cfg(not(unix))]
        {
            let _ = tokio::signal::ctrl_c().await;
        }
        tracing::info!("shutting down: no new requests, those that run may finish");
    }
}

/// Never completes where the signal cannot be caught.
#[cfg(unix)]
async fn received(signal: std::io::Result<tokio::signal::unix::Signal>) {
    match signal {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
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
