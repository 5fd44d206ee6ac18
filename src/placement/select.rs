//! From `--gpu-backend` to devices.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What `--gpu-backend` names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuBackend {
    /// A GPU where a compiled-in backend finds one, else the CPU. The log says which.
    #[default]
    Auto,
    Cpu,
    Cuda,
    Vulkan,
    OpenCl,
    Metal,
}

impl GpuBackend {
    const ALL: [(&'static str, Self); 6] = [
        ("auto", Self::Auto),
        ("cpu", Self::Cpu),
        ("cuda", Self::Cuda),
        ("vulkan", Self::Vulkan),
        ("opencl", Self::OpenCl),
        ("metal", Self::Metal),
    ];

    /// As the command line spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, backend)| *backend == self).map_or("auto", |(name, _)| name)
    }

    /// Names under which llama.cpp registers this backend. ROCm and MUSA builds use CUDA's code.
    #[must_use]
    pub fn registered_names(self) -> &'static [&'static str] {
        match self {
            Self::Auto | Self::Cpu => &[],
            Self::Cuda => &["CUDA", "ROCm", "MUSA"],
            Self::Vulkan => &["Vulkan"],
            Self::OpenCl => &["OpenCL"],
            Self::Metal => &["MTL", "Metal"],
        }
    }
}

impl FromStr for GpuBackend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        Self::ALL.iter().find(|(name, _)| *name == lower).map(|(_, backend)| *backend).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(name, _)| *name).collect();
            format!("there is no backend {text:?}; choose one of {}", names.join(", "))
        })
    }
}

/// Why a backend cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum PlacementError {
    #[error(
        "--gpu-backend {asked}: this binary was built without it (it has {}); build with `cargo build --release --features llama-{asked}`",
        .compiled.join(", ")
    )]
    NotCompiledIn { asked: String, compiled: Vec<String> },
    #[error(
        "--gpu-backend {asked}: compiled in, but it finds no device ({}); check the driver with `shimmy gpu-info`, or choose --gpu-backend cpu",
        found(.devices)
    )]
    NoDevice { asked: String, devices: Vec<String> },
    #[error("{0}")]
    Backend(String),
}

fn found(devices: &[String]) -> String {
    if devices.is_empty() { "no device at all".into() } else { format!("there is only {}", devices.join(", ")) }
}

/// Chooses the devices for a model.
///
/// # Errors
/// A backend that is not compiled in, or that has no device. Never a quiet run on the CPU.
#[cfg(feature = "llama")]
pub fn select(backend: crate::llama::Backend, asked: GpuBackend) -> Result<crate::llama::Offload, PlacementError> {
    use crate::llama::{Device, Offload};

    let failed = |e: crate::llama::LlamaError| PlacementError::Backend(e.to_string());
    if asked == GpuBackend::Cpu {
        return Ok(Offload::Cpu);
    }
    let compiled = backend.names().map_err(failed)?;
    let devices = backend.devices().map_err(failed)?;
    if asked == GpuBackend::Auto {
        // llama.cpp lists its preferred backend first; devices of two backends are never mixed, since the same
        // GPU can appear in both.
        let first = devices.iter().find(|device| device.is_gpu()).map(|device| device.backend.clone());
        return Ok(match first {
            Some(name) => Offload::Devices {
                devices: devices.into_iter().filter(|device| device.is_gpu() && device.backend == name).collect(),
                layers: None,
            },
            None => Offload::Cpu,
        });
    }
    let names = asked.registered_names();
    if !compiled.iter().any(|name| names.contains(&name.as_str())) {
        return Err(PlacementError::NotCompiledIn { asked: asked.name().into(), compiled });
    }
    let (chosen, others): (Vec<Device>, Vec<Device>) =
        devices.into_iter().partition(|device| device.is_gpu() && names.contains(&device.backend.as_str()));
    if chosen.is_empty() {
        let devices = others.into_iter().map(|device| format!("{} ({})", device.name, device.description)).collect();
        return Err(PlacementError::NoDevice { asked: asked.name().into(), devices });
    }
    Ok(Offload::Devices { devices: chosen, layers: None })
}
