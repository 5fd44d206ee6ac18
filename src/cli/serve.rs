//! `shimmy serve`.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::registry::Registry;
use crate::server::{self, ServerConfig};

use super::output;

const DEFAULT_PORT: u16 = 11435;
/// How many ports after the default `auto` tries.
const AUTO_PORTS: u16 = 100;

/// Serves all models over HTTP, SSE and WebSocket.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  shimmy serve
  shimmy serve --bind 127.0.0.1:8080 --model ./model.gguf
  shimmy serve --bind auto            # 11435, or the next free port; printed
  curl -N http://127.0.0.1:11435/api/generate -H 'Accept: text/event-stream' \\
       -d '{\"model\":\"smollm2-135m-instruct\",\"prompt\":\"Hi\",\"stream\":true}'")]
pub(super) struct ServeArgs {
    /// Address and port, or `auto`: SHIMMY_BIND_ADDRESS, else port 11435, else the next free one.
    #[arg(long, default_value = "auto", value_name = "ADDRESS")]
    bind: String,
    /// Load this model (a name or a GGUF file) before serving, and stop if that fails.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Seconds that running generations may go on after SIGTERM.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    drain: u64,
}

pub(super) fn run(args: &ServeArgs, config: &Config) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the async runtime")?;
    let listener = runtime.block_on(bind(&args.bind))?;
    server::install_metrics();
    // Before anybody is told that the server is there.
    let terminated = {
        let _inside = runtime.enter();
        server::terminated()
    };
    let registry = registry(args, config)?;
    let address = listener.local_addr()?;
    let models = registry.list();
    output::print(format!(
        "listening on http://{address} with {} model{}",
        models.len(),
        if models.len() == 1 { "" } else { "s" }
    ))?;
    if models.is_empty() {
        tracing::warn!("no model found; `shimmy discover` shows where they are looked for");
    }
    let server_config = ServerConfig { drain: Duration::from_secs(args.drain), ..ServerConfig::default() };
    runtime.block_on(server::run(listener, Arc::clone(&registry), server_config, terminated));
    // Dropping the models first ends what the runtime's blocking threads may wait for.
    for model in registry.list() {
        let _ = registry.unload(&model.name);
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(())
}

fn registry(args: &ServeArgs, config: &Config) -> anyhow::Result<Arc<Registry>> {
    let Some(asked) = args.model.as_deref() else {
        if config.adapters.is_empty() {
            return Ok(config.registry());
        }
        anyhow::bail!("--lora needs to know its model: shimmy serve --model NAME --lora PATH");
    };
    let (registry, name) = config.registry_for(asked);
    output::load(&registry, &name)?;
    Ok(registry)
}

async fn bind(asked: &str) -> anyhow::Result<TcpListener> {
    if asked != "auto" {
        return TcpListener::bind(asked).await.with_context(|| format!("--bind {asked}"));
    }
    if let Ok(address) = std::env::var("SHIMMY_BIND_ADDRESS") {
        return TcpListener::bind(&address).await.with_context(|| format!("SHIMMY_BIND_ADDRESS={address}"));
    }
    for port in DEFAULT_PORT..DEFAULT_PORT + AUTO_PORTS {
        match TcpListener::bind(("127.0.0.1", port)).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            other => return other.with_context(|| format!("binding 127.0.0.1:{port}")),
        }
    }
    anyhow::bail!(
        "ports {DEFAULT_PORT} to {} are all taken; choose one with --bind 127.0.0.1:PORT",
        DEFAULT_PORT + AUTO_PORTS - 1
    )
}
