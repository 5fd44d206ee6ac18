//! `shimmy ps`: what a running server has in memory.

use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::output;
use crate::placement::DeviceUse;

/// Shows which models a running server has loaded, where they run, and how long they stay.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  shimmy ps
  shimmy ps --server 192.168.1.20:11435 --api-key \"$KEY\" --json")]
pub(super) struct PsArgs {
    /// Address of the server, or its URL.
    #[arg(long, env = "SHIMMY_BIND_ADDRESS", default_value = "127.0.0.1:11435", value_name = "ADDRESS")]
    server: String,
    /// A key that the server knows, where it wants one.
    #[arg(long, env = "SHIMMY_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &PsArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let models = runtime.context("starting the async runtime")?.block_on(ask(args))?;
    let is_there = |model: &&Value| model["state"] != "unloaded" && model["state"] != "failed";
    let there: Vec<&Value> = models["models"].as_array().into_iter().flatten().filter(is_there).collect();
    if args.json {
        return output::print_json(&serde_json::json!({ "models": there }));
    }
    if there.is_empty() {
        eprintln!("no model is loaded");
        return Ok(());
    }
    output::print(output::table(
        &["NAME", "STATE", "MEMORY", "DEVICES", "CONTEXT", "IN USE", "UNTIL"],
        &[2, 4, 5],
        there.into_iter().map(row).collect(),
    ))
}

async fn ask(args: &PsArgs) -> anyhow::Result<Value> {
    let base = if args.server.contains("://") { args.server.clone() } else { format!("http://{}", args.server) };
    let url = format!("{}/api/models", base.trim_end_matches('/'));
    // One that is installed already serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A proxy is for other machines.
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut request = client.get(&url);
    // The variable holds several for the server; one is enough to ask.
    if let Some(key) = args.api_key.as_ref().and_then(|keys| keys.split(',').next()) {
        request = request.bearer_auth(key.trim());
    }
    let answer = request.send().await.with_context(|| {
        format!("no server answers at {}; start one with `shimmy serve`, or say where it is with --server", args.server)
    })?;
    let (status, body) = (answer.status(), answer.text().await?);
    let value: Value = serde_json::from_str(&body).unwrap_or_default();
    if status.as_u16() == 401 {
        bail!("{url} wants a key: give --api-key, or set SHIMMY_API_KEY");
    }
    if !status.is_success() || !value["models"].is_array() {
        let said = value["error"].as_str().map_or_else(|| status.to_string(), str::to_owned);
        bail!("{url} does not answer as shimmy does: {said}");
    }
    Ok(value)
}

fn row(model: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let state = match model["progress"].as_f64() {
        Some(progress) => format!("{} {:.0} %", text(&model["state"]), progress * 100.0),
        None => text(&model["state"]),
    };
    let info = &model["info"];
    let devices = &info["placement"]["devices"];
    let devices = Vec::<DeviceUse>::deserialize(devices).unwrap_or_default();
    let shown = |value: &Value| if value.is_null() { "-".into() } else { text(value) };
    vec![
        text(&model["name"]),
        state,
        output::bytes(devices.iter().map(DeviceUse::total_bytes).sum()),
        devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>().join(" "),
        shown(&info["context_tokens"]),
        shown(&model["in_use"]),
        model["expires_at"].as_str().unwrap_or("its place is needed").to_owned(),
    ]
}
