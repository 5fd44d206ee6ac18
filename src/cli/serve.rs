//! `shimmy serve`.

use std::fmt::Display;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;

use crate::config::{Asked, Config, Live, NONE, Origin, Set};
use crate::registry::{KeepAlive, MemoryBudget};
use crate::server::access::{Access, AccessOptions, Bound};
use crate::server::{self, ServerConfig};

use super::access_args::{self, AccessArgs};
use super::said::Said;
use super::{output, reload};

const DEFAULT_PORT: u16 = 11435;
/// How many ports after the default `auto` tries.
const AUTO_PORTS: u16 = 100;

/// Serves all models over HTTP, SSE and WebSocket.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  shimmy serve
  shimmy serve --bind 127.0.0.1:8080 --model ./model.gguf
  shimmy serve --bind auto            # 11435, or the next free port; printed
  shimmy key new laptop && shimmy serve --bind 0.0.0.0:11435
  curl -N http://127.0.0.1:11435/api/generate -H 'Accept: text/event-stream' \\
       -d '{\"model\":\"smollm2-135m-instruct\",\"prompt\":\"Hi\",\"stream\":true}'")]
pub(super) struct ServeArgs {
    /// Address and port, or `auto`: port 11435, else the next free one [default: auto].
    #[arg(long, env = "SHIMMY_BIND_ADDRESS", value_name = "ADDRESS")]
    bind: Option<String>,
    /// Load this model (a name or a GGUF file) before serving, and stop if that fails.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Seconds that running generations may go on after SIGTERM [default: 30].
    #[arg(long, value_name = "SECONDS")]
    drain: Option<u64>,
    /// How long a model stays loaded that nobody uses: seconds, 5m, 1h30m, 0, or forever, until its place is needed
    /// [default: forever].
    #[arg(long, env = "SHIMMY_KEEP_ALIVE", value_name = "TIME")]
    keep_alive: Option<KeepAlive>,
    /// Memory that models may take together, on each device or on some: 12GiB, 80%, CUDA0=20GiB,CPU=50% [default: what is
    /// free].
    #[arg(long, env = "SHIMMY_MEMORY_BUDGET", value_name = "BYTES")]
    memory_budget: Option<MemoryBudget>,
    #[command(flatten)]
    access: AccessArgs,
}

impl ServeArgs {
    /// Adds what the options and variables say.
    pub fn add_to(&self, asked: &mut Asked, said: &Said<'_>) {
        let server = &mut asked.server;
        server.bind = said.set("bind", self.bind.clone());
        server.model = said.set("model", self.model.clone());
        server.drain = said.set("drain", self.drain);
        server.memory_budget = said.set("memory_budget", self.memory_budget.clone());
        self.access.add_to(server, said);
        asked.load.keep_alive = said.set("keep_alive", self.keep_alive);
    }
}

/// `named` tells whether somebody named the config file.
pub(super) fn run(config: &Config, named: bool) -> anyhow::Result<()> {
    let settings = config.server();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the async runtime")?;
    let options = access_args::options(&settings);
    let (listener, access) = runtime.block_on(bind(config, settings.bind.as_ref(), &options))?;
    server::install_metrics();
    // Before anybody is told that the server is there.
    let terminated = {
        let _inside = runtime.enter();
        server::terminated()
    };
    check_devices(config, settings.memory_budget.as_ref())?;
    let live = models(config, settings.model.as_ref().map(|set| set.value.as_str()), named)?;
    let registry = Arc::clone(live.registry());
    let live = Arc::new(Mutex::new(live));
    {
        let _inside = runtime.enter();
        reload::on_hangup(Arc::clone(&live));
    }
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
    let defaults = ServerConfig::default();
    let server_config = ServerConfig {
        drain: settings.drain.map_or(defaults.drain, |set| Duration::from_secs(set.value)),
        pull: settings.pull.map_or(defaults.pull, |set| set.value),
        ..defaults
    };
    runtime.block_on(server::run(listener, live, server_config, access, terminated));
    // Dropping the models first ends what the runtime's blocking threads may wait for.
    registry.close();
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(())
}

/// Finds the models and loads the one that is asked for.
fn models(config: &Config, asked: Option<&str>, named: bool) -> anyhow::Result<Live> {
    let Some(asked) = asked else {
        anyhow::ensure!(
            config.asked.adapters.is_empty(),
            "--lora needs to know its model: shimmy serve --model NAME --lora PATH"
        );
        let names_projector = config.asked.load.mmproj.as_ref().is_some_and(|set| set.value != NONE);
        anyhow::ensure!(
            !names_projector,
            "--mmproj needs to know its model: shimmy serve --model NAME --mmproj PATH, or `mmproj` in its section"
        );
        return Ok(Live::start(config.clone(), named)?);
    };
    let (config, name) = config.with_model(asked);
    let live = Live::start(config, named)?;
    output::load(live.registry(), &name)?;
    Ok(live)
}

/// A budget for a device that is not there would limit nothing, in silence.
fn check_devices(config: &Config, budget: Option<&Set<MemoryBudget>>) -> anyhow::Result<()> {
    let Some(set) = budget else { return Ok(()) };
    set.value
        .check_devices(|| crate::runner::free_memory().into_keys())
        .map_err(|unknown| anyhow::Error::from(unknown).context(told(config, "memory_budget", set)))
}

/// A setting in the words of who made it.
fn told(config: &Config, key: &str, set: &Set<impl Display>) -> String {
    let (whence, value) = (config.file.describe(&set.origin), &set.value);
    match set.origin {
        Origin::Option(_) => format!("{whence} {value}"),
        Origin::Variable(_) => format!("{whence}={value}"),
        Origin::File(_) => format!("{whence}: {key} = \"{value}\""),
    }
}

/// Whether others may reach the address is asked before anybody can.
async fn bind(
    config: &Config,
    asked: Option<&Set<String>>,
    options: &AccessOptions,
) -> anyhow::Result<(TcpListener, Access)> {
    if let Some(set) = asked.filter(|set| set.value != "auto") {
        return bind_to(&set.value, &told(config, "bind", set), options).await;
    }
    let local = [SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT))];
    let access = Access::new(options, Bound { asked: "localhost", addresses: &local })?;
    for port in DEFAULT_PORT..DEFAULT_PORT + AUTO_PORTS {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            other => return Ok((other.with_context(|| format!("binding 127.0.0.1:{port}"))?, access)),
        }
    }
    anyhow::bail!(
        "ports {DEFAULT_PORT} to {} are all taken; choose one with --bind 127.0.0.1:PORT",
        DEFAULT_PORT + AUTO_PORTS - 1
    )
}

/// `source` is what an error of the system is said to come from.
async fn bind_to(asked: &str, source: &str, options: &AccessOptions) -> anyhow::Result<(TcpListener, Access)> {
    let found = tokio::net::lookup_host(asked).await.with_context(|| source.to_owned())?;
    let addresses: Vec<SocketAddr> = found.collect();
    let access = Access::new(options, Bound { asked, addresses: &addresses })?;
    let listener = TcpListener::bind(&addresses[..]).await.with_context(|| source.to_owned())?;
    Ok((listener, access))
}
