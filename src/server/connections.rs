//! Accepting connections, and letting them end.

use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::shutdown::Phase;

/// Bytes that wait in one connection for a client that does not read. Its stream then is not polled, and what the
/// engine may have sent meanwhile is bounded there.
const WRITE_BUFFER: usize = 64 << 10;

/// After a failure to accept, e.g. because all file descriptors are taken.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the phase changes. Connections then end after the request under way; each holds a clone of the router.
pub(super) async fn accept(listener: TcpListener, router: Router, phase: watch::Receiver<Phase>) {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(WRITE_BUFFER);
    let mut shutdown = pin!(drains(phase.clone()));
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    if !is_clients_fault(&error) {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(PAUSE).await;
                    }
                    continue;
                }
            },
            () = &mut shutdown => return,
        };
        // A token must not wait for the one after it.
        let _ = socket.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection(TokioIo::new(socket), service).with_upgrades();
        let shutdown = drains(phase.clone());
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            let result = tokio::select! {
                result = connection.as_mut() => result,
                () = shutdown => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = result {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
}

async fn drains(mut phase: watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
}

fn is_clients_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
