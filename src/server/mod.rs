//! HTTP, SSE and WebSocket on axum.

mod error;
mod extract;
mod router;
mod routes;
mod shutdown;
mod state;
mod stream;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

pub use state::AppState;

use crate::registry::Registry;

/// Limits of the server.
#[derive(Clone, Copy, Debug)]
pub struct ServerConfig {
    /// Largest request body and WebSocket message, in bytes.
    pub max_body: usize,
    /// How long running generations may go on after the shutdown began.
    pub drain: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { max_body: 8 << 20, drain: Duration::from_secs(30) }
    }
}

/// Serves until `shutdown` completes, then lets what runs come to its end within the drain time.
///
/// # Errors
/// What the listener fails with.
pub async fn run(
    listener: TcpListener,
    registry: Arc<Registry>,
    config: ServerConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (state, mut ends) = AppState::new(registry, config);
    let router = router::router(state);
    let (drain_begins, drain_over) = shutdown::phases(shutdown, ends.phase, config.drain);
    let serve = async move {
        axum::serve(listener, router).with_graceful_shutdown(drain_begins).await?;
        // WebSockets are left.
        ends.all_gone.recv().await;
        Ok(())
    };
    tokio::select! {
        result = serve => result,
        () = drain_over => {
            tracing::warn!(seconds = config.drain.as_secs(), "the drain time is over; what still runs is cut off");
            Ok(())
        }
    }
}

pub use shutdown::terminated;
