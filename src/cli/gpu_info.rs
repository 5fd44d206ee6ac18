//! `shimmy gpu-info`: what is compiled in, and which devices exist.

use clap::Args;
use serde_json::json;

use crate::placement::SystemReport;
use crate::system;

use super::output;

/// Shows the backends of this binary and the devices that they find.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  shimmy gpu-info
  RUST_LOG=debug shimmy gpu-info        # with what the backends say while they start")]
pub(super) struct GpuInfoArgs {
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &GpuInfoArgs) -> anyhow::Result<()> {
    let (revision, report) = report()?;
    if args.json {
        return output::print_json(
            &json!({ "llama_cpp": revision, "features": system::build_features(), "system": report }),
        );
    }
    output::print(format!("llama.cpp       {}", revision.unwrap_or("not in this build")))?;
    output::print(format!("features        {}", system::build_features().join(", ")))?;
    output::print(format!("registered      {}", report.registered.join(", ")))?;
    output::print(format!("auto would use  {}\n\n", report.auto))?;
    let rows = report.backends.iter().map(|backend| {
        let state = match (backend.compiled_in, backend.devices.is_empty()) {
            (false, _) => format!("not compiled in (build with --features llama-{})", backend.name),
            (true, true) => "compiled in, no device found".into(),
            (true, false) => format!("ready: {}", backend.devices.join(", ")),
        };
        vec![backend.name.clone(), state]
    });
    output::print(output::table(&["BACKEND", "STATE"], &[], rows.collect()))?;
    output::print("\n")?;
    let rows = report.devices.iter().map(|device| {
        let memory = format!("{} of {} MB free", device.memory_free_mb, device.memory_total_mb);
        vec![device.name.clone(), device.kind.clone(), memory, device.description.clone()]
    });
    output::print(output::table(&["DEVICE", "KIND", "MEMORY", "DESCRIPTION"], &[], rows.collect()))
}

#[cfg(feature = "llama")]
fn report() -> anyhow::Result<(Option<&'static str>, SystemReport)> {
    use crate::llama::{Backend, revision};
    Ok((Some(revision()), crate::placement::system_report(Backend::init()?)?))
}

#[cfg(not(feature = "llama"))]
fn report() -> anyhow::Result<(Option<&'static str>, SystemReport)> {
    Ok((None, SystemReport { auto: "none".into(), ..SystemReport::default() }))
}
