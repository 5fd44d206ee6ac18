//! What `gpu-info`, `/diag` and `/health` say about devices and placement.

use serde::{Deserialize, Serialize};

/// A backend that `--gpu-backend` can name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendReport {
    pub name: String,
    pub compiled_in: bool,
    /// Its devices, by llama.cpp's names.
    pub devices: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    pub name: String,
    pub description: String,
    pub backend: String,
    /// `cpu`, `gpu`, `integrated gpu` or `accelerator`.
    pub kind: String,
    pub memory_free_mb: u64,
    pub memory_total_mb: u64,
}

/// What this binary can use here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemReport {
    /// As llama.cpp registered them, in its order of preference.
    pub registered: Vec<String>,
    pub backends: Vec<BackendReport>,
    pub devices: Vec<DeviceReport>,
    /// What `--gpu-backend auto` would use.
    pub auto: String,
}

/// Where one model runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementReport {
    /// `cpu`, or the registered name of the backend in lower case.
    pub backend: String,
    /// Devices that hold layers, by description.
    pub devices: Vec<String>,
    pub gpu_layers: u32,
    pub total_layers: u32,
}

impl std::fmt::Display for PlacementReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.gpu_layers == 0 {
            return write!(f, "cpu, all {} layers", self.total_layers);
        }
        write!(
            f,
            "{}, {} of {} layers on {}",
            self.backend,
            self.gpu_layers,
            self.total_layers,
            self.devices.join(", ")
        )
    }
}

/// Asks llama.cpp what there is.
///
/// # Errors
/// What a backend threw.
#[cfg(feature = "llama")]
pub fn system_report(backend: crate::llama::Backend) -> Result<SystemReport, crate::llama::LlamaError> {
    use super::select::GpuBackend;
    use crate::llama::DeviceKind;

    let registered = backend.names()?;
    let devices = backend.devices()?;
    let backends = [GpuBackend::Cuda, GpuBackend::Vulkan, GpuBackend::OpenCl, GpuBackend::Metal]
        .into_iter()
        .map(|gpu| {
            let names = gpu.registered_names();
            BackendReport {
                name: gpu.name().into(),
                compiled_in: registered.iter().any(|name| names.contains(&name.as_str())),
                devices: devices
                    .iter()
                    .filter(|d| names.contains(&d.backend.as_str()))
                    .map(|d| d.name.clone())
                    .collect(),
            }
        })
        .collect();
    let auto = devices.iter().find(|d| d.is_gpu()).map_or_else(|| "cpu".into(), |d| d.backend.to_lowercase());
    let devices = devices
        .into_iter()
        .map(|device| DeviceReport {
            name: device.name,
            description: device.description,
            backend: device.backend,
            kind: match device.kind {
                DeviceKind::Cpu => "cpu",
                DeviceKind::Gpu => "gpu",
                DeviceKind::IntegratedGpu => "integrated gpu",
                DeviceKind::Accelerator => "accelerator",
            }
            .into(),
            memory_free_mb: device.memory_free >> 20,
            memory_total_mb: device.memory_total >> 20,
        })
        .collect();
    Ok(SystemReport { registered, backends, devices, auto })
}
