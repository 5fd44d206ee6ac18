//! `shimmy gpu-info`: what is compiled in, which devices exist, what would be used, and why a GPU is not.

use clap::Args;
use serde_json::json;

use crate::config::Config;
use crate::placement::{
    Choice, Inventory, ModuleState, PciGpu, PlacementError, PlacementReport, SystemReport, choose, pci_gpus,
};
use crate::system;

use super::output;

/// Shows the backends of this binary, the devices that they find and what --gpu-backend would use. Exits with 3 where that
/// backend cannot be used.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  shimmy gpu-info
  shimmy --gpu-backend vulkan gpu-info        # exits with 3 where Vulkan cannot be used
  shimmy gpu-info --model ./model.gguf        # loads it and shows where its layers and bytes are
  RUST_LOG=debug shimmy gpu-info              # with what the backends say while they start")]
pub(super) struct GpuInfoArgs {
    /// Loads this model and shows where it is.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &GpuInfoArgs, config: &Config) -> anyhow::Result<()> {
    let (revision, inventory) = inventory()?;
    let report = SystemReport::new(&inventory);
    let placement_asked = config.placement();
    let choice = choose(&inventory, &placement_asked);
    let hardware = pci_gpus();
    let reasons = reasons(&inventory, &report, &choice, &hardware);
    // A load that fails is a reason to see all the rest.
    let loaded = args.model.as_deref().map(|name| placement_of(name, config)).transpose();
    let placement = loaded.as_ref().ok().and_then(Option::as_ref);
    let asked = placement_asked.gpu_backend.name();
    if args.json {
        output::print_json(&json!({
            "llama_cpp": revision,
            "features": system::build_features(),
            "system": report,
            "pci_gpus": hardware,
            "selected": selected(asked, &choice),
            "why_no_gpu": reasons,
            "model": placement,
            "model_error": loaded.as_ref().err().map(ToString::to_string),
        }))?;
    } else {
        output::print(format!("llama.cpp       {}", revision.unwrap_or("not in this build")))?;
        output::print(format!("features        {}", system::build_features().join(", ")))?;
        output::print(format!("registered      {}", report.registered.join(", ")))?;
        output::print(format!("auto would use  {} ({})", report.auto, report.auto_why))?;
        let uses = choice.as_ref().map_or_else(|_| "cannot be used".into(), uses);
        output::print(format!("{:<15} {uses}\n\n", format!("{asked} uses")))?;
        show_backends(&report)?;
        show_devices(&report)?;
        if !report.modules.is_empty() {
            output::print("\n")?;
            show_modules(&report)?;
        }
        if !reasons.is_empty() {
            output::print("\nWhy is my GPU not used?")?;
            for reason in &reasons {
                output::print(format!("  - {reason}"))?;
            }
        }
        if let Some(placement) = placement {
            output::print("\n")?;
            show_placement(placement)?;
        }
    }
    loaded?;
    Ok(choice.map(|_| ())?)
}

fn placement_of(name: &str, config: &Config) -> anyhow::Result<PlacementReport> {
    let (registry, name) = config.registry_for(name);
    Ok(output::load(&registry, &name)?.runner().info().placement.clone())
}

fn uses(choice: &Choice) -> String {
    match choice.devices.as_slice() {
        [] => format!("the CPU ({})", choice.why),
        devices => devices.iter().map(|device| device.title()).collect::<Vec<_>>().join(", "),
    }
}

fn selected(asked: &str, choice: &Result<Choice, PlacementError>) -> serde_json::Value {
    match choice {
        Ok(choice) => json!({
            "asked": asked,
            "usable": true,
            "devices": choice.devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>(),
            "why": choice.why,
        }),
        Err(error) => json!({ "asked": asked, "usable": false, "devices": [], "why": error.to_string() }),
    }
}

/// Facts that keep a GPU from being used; none where one is.
fn reasons(
    inventory: &Inventory,
    report: &SystemReport,
    choice: &Result<Choice, PlacementError>,
    hardware: &[PciGpu],
) -> Vec<String> {
    if choice.as_ref().is_ok_and(|choice| !choice.devices.is_empty()) {
        return Vec::new();
    }
    let mut reasons: Vec<String> =
        hardware.iter().map(|gpu| format!("the system has {gpu}; {} can drive it", gpu.backends())).collect();
    if hardware.is_empty() && cfg!(target_os = "linux") {
        reasons.push("the system shows no GPU on its PCI bus".into());
    }
    if let Ok(choice) = choice {
        reasons.push(format!("the CPU was chosen: {}", choice.why));
    }
    for backend in report.backends.iter().filter(|backend| backend.compiled_in || !inventory.searched.is_empty()) {
        if let Some(reason) = &backend.reason {
            reasons.push(format!("{}: {reason}", backend.name));
        }
    }
    if !report.backends.iter().any(|backend| backend.compiled_in) && inventory.searched.is_empty() {
        reasons.push("this binary has no GPU backend; build with --features llama-vulkan, llama-cuda, llama-opencl or llama-metal".into());
    }
    reasons.extend(inventory.devices.iter().filter(|d| d.software).map(|d| format!("{} draws on the CPU", d.title())));
    reasons
}

fn show_backends(report: &SystemReport) -> anyhow::Result<()> {
    let rows = report.backends.iter().map(|backend| {
        let state = match &backend.reason {
            Some(reason) if backend.compiled_in && report.modules.is_empty() => {
                format!("compiled in, no device: {reason}")
            }
            Some(reason) if backend.compiled_in => format!("loaded, no device: {reason}"),
            Some(reason) => reason.clone(),
            None => format!("ready: {}", backend.devices.join(", ")),
        };
        vec![backend.name.clone(), state]
    });
    output::print(output::table(&["BACKEND", "STATE"], &[], rows.collect()))?;
    output::print("\n")
}

fn show_modules(report: &SystemReport) -> anyhow::Result<()> {
    let rows = report.modules.iter().map(|module| {
        let state = match module.state {
            ModuleState::Loaded => "loaded",
            ModuleState::NotNeeded => "not needed",
            ModuleState::Refused => "refused",
        };
        let reason = module.reason.clone().unwrap_or_default();
        vec![module.path.display().to_string(), state.into(), reason]
    });
    output::print(output::table(&["MODULE", "STATE", "WHY"], &[], rows.collect()))
}

fn show_devices(report: &SystemReport) -> anyhow::Result<()> {
    let rows = report.devices.iter().map(|device| {
        let memory = format!("{} of {} MB free", device.memory_free_mb, device.memory_total_mb);
        let kind = if device.software { "software".into() } else { device.kind.to_string() };
        let drivers: Vec<&str> = [&device.api, &device.driver].into_iter().flatten().map(String::as_str).collect();
        vec![device.name.clone(), kind, memory, device.description.clone(), drivers.join(", ")]
    });
    output::print(output::table(&["DEVICE", "KIND", "MEMORY", "DESCRIPTION", "DRIVER"], &[], rows.collect()))
}

/// A model's devices with their layers and bytes.
pub(super) fn show_placement(placement: &PlacementReport) -> anyhow::Result<()> {
    let rows = placement.devices.iter().map(|device| {
        let bytes = [device.weights_bytes, device.context_bytes, device.compute_bytes].map(output::bytes);
        [vec![device.title(), device.layers.to_string()], bytes.to_vec()].concat()
    });
    output::print(output::table(
        &["PLACED ON", "LAYERS", "WEIGHTS", "KV CACHE", "COMPUTE"],
        &[1, 2, 3, 4],
        rows.collect(),
    ))
}

#[cfg(feature = "llama")]
fn inventory() -> anyhow::Result<(Option<&'static str>, Inventory)> {
    use crate::llama::{Backend, revision};
    let failed = |e: crate::llama::LlamaError| PlacementError::Backend(e.to_string());
    let backend = Backend::init().map_err(failed)?;
    let inventory = Inventory::of(backend).and_then(|inventory| inventory.with_drivers(backend)).map_err(failed)?;
    Ok((Some(revision()), inventory))
}

#[cfg(not(feature = "llama"))]
#[allow(clippy::unnecessary_wraps)] // With llama.cpp it can fail.
fn inventory() -> anyhow::Result<(Option<&'static str>, Inventory)> {
    Ok((None, Inventory::default()))
}
