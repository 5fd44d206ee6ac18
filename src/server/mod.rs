//! HTTP, SSE and WebSocket on axum.

pub mod access;
mod connections;
mod error;
mod extract;
mod ignored;
mod metrics;
mod models;
mod openapi;
mod responses_store;
mod route;
mod router;
mod routes;
mod shutdown;
mod state;
mod stream;
mod tables;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

pub use models::SharedLive;
pub use state::AppState;

use crate::library::pull::Allowed;

use access::Access;

/// Limits of the server.
#[derive(Clone, Copy, Debug)]
pub struct ServerConfig {
    /// Largest request body and WebSocket message, in bytes.
    pub max_body: usize,
    /// How long running generations may go on after the shutdown began.
    pub drain: Duration,
    /// What clients may have it fetch.
    pub pull: Allowed,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { max_body: 32 << 20, drain: Duration::from_secs(30), pull: Allowed::Known }
    }
}

/// Serves until `shutdown` completes, then lets what runs come to its end within the drain time.
pub async fn run(
    listener: TcpListener,
    live: SharedLive,
    config: ServerConfig,
    access: Access,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let (state, mut ends) = AppState::new(live, config);
    let phase = state.phase.clone();
    let router = access::protect(router::router(state), &Arc::new(access));
    let drain_over = shutdown::drain_over(shutdown, ends.phase, config.drain);
    let serve = async move {
        connections::accept(listener, router, phase).await;
        // Connections are left, and WebSockets.
        ends.all_gone.recv().await;
    };
    tokio::select! {
        () = serve => {}
        () = metrics::upkeep() => {}
        () = drain_over => {
            tracing::warn!(seconds = config.drain.as_secs(), "the drain time is over; what still runs is cut off");
        }
    }
}

pub use metrics::install as install_metrics;
pub use shutdown::terminated;
