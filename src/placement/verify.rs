//! What llama.cpp did, beside what it was told.

use super::error::PlacementError;
use super::report::{DeviceUse, PlacementReport};
use super::select::Choice;
use super::spec::{CpuExperts, GpuLayers};

/// What a loaded model and its context say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// Name of each layer's device.
    pub layers: Vec<String>,
    /// Memory by device; memory of the host is the CPU's. A device can come more than once.
    pub memory: Vec<DeviceUse>,
}

/// Name of the CPU among llama.cpp's devices.
pub(super) const CPU: &str = "CPU";

/// Compares, and reports what runs where.
///
/// # Errors
/// [`PlacementError::Differs`] where a layer is elsewhere than it was to be.
pub fn verify(choice: &Choice, actual: &Actual) -> Result<PlacementReport, PlacementError> {
    let holders = choice.holders();
    let total = actual.layers.len();
    let planned = match choice.layers {
        _ if holders.is_empty() => 0,
        GpuLayers::All | GpuLayers::Auto => total,
        // llama.cpp counts the output, which goes first.
        GpuLayers::Count(n) => (n as usize).saturating_sub(1).min(total),
    };
    let is_holder = |name: &String| holders.iter().any(|device| device.name == *name);
    let right = |(index, device): (usize, &String)| match index >= total - planned {
        true => is_holder(device),
        false => device == CPU,
    };
    let report = report(choice, actual);
    let weights_there = || {
        let on_gpu = report.devices.iter().filter(|device| is_holder(&device.name));
        on_gpu.map(|device| device.weights_bytes).sum::<u64>() > 0
    };
    let all_right = actual.layers.iter().enumerate().all(right);
    if !all_right || (planned > 0 && choice.cpu_experts == CpuExperts::None && !weights_there()) {
        let names: Vec<&str> = holders.iter().map(|device| device.name.as_str()).collect();
        return Err(PlacementError::Differs {
            planned: match planned {
                0 => format!("the CPU, all {total} layers"),
                n => format!("{}, {n} of {total} layers", names.join(" and ")),
            },
            found: found(&report),
        });
    }
    Ok(report)
}

fn found(report: &PlacementReport) -> String {
    let each = |device: &DeviceUse| {
        format!("{} ({} layers, {} MB of weights)", device.name, device.layers, device.weights_bytes >> 20)
    };
    report.devices.iter().map(each).collect::<Vec<_>>().join(", ")
}

fn report(choice: &Choice, actual: &Actual) -> PlacementReport {
    let mut devices: Vec<DeviceUse> = choice
        .holders()
        .iter()
        .map(|device| DeviceUse {
            name: device.name.clone(),
            description: device.description.clone(),
            ..DeviceUse::default()
        })
        .collect();
    let mut add = |name: &str, change: &dyn Fn(&mut DeviceUse)| {
        let index = devices.iter().position(|device| device.name == name).unwrap_or_else(|| {
            devices.push(DeviceUse { name: name.to_owned(), ..DeviceUse::default() });
            devices.len() - 1
        });
        change(&mut devices[index]);
    };
    for name in &actual.layers {
        add(name, &|device| device.layers += 1);
    }
    for memory in &actual.memory {
        add(&memory.name, &|device| {
            device.weights_bytes += memory.weights_bytes;
            device.context_bytes += memory.context_bytes;
            device.compute_bytes += memory.compute_bytes;
        });
    }
    let count = |layers: usize| u32::try_from(layers).unwrap_or(u32::MAX);
    PlacementReport {
        backend: choice.holders().first().map_or_else(|| "cpu".into(), |device| device.backend.to_lowercase()),
        gpu_layers: count(actual.layers.iter().filter(|name| *name != CPU).count()),
        total_layers: count(actual.layers.len()),
        devices,
        why: choice.why.clone(),
    }
}
