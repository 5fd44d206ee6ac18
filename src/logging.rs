//! Sends `tracing` to stderr. `RUST_LOG` decides what; stdout is for answers only.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Call once. Without `RUST_LOG`, `asked` decides; without that, warnings are shown and, for commands that serve, our own
/// progress.
pub fn init(verbose: bool, asked: Option<&str>) {
    let default = asked.unwrap_or(if verbose { "warn,shimmy=info" } else { "warn" });
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // A second call, e.g. in tests, changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}
