//! What there is to place on: the backends of this binary and the devices that they find.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fit::Limit;
#[cfg(feature = "llama")]
use super::hardware::kernel_driver;
use super::spec::GpuBackend;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "DeviceKind")]
pub enum Kind {
    #[serde(rename = "cpu")]
    Cpu,
    /// With memory of its own.
    #[serde(rename = "gpu")]
    Gpu,
    /// Shares the memory of the CPU.
    #[serde(rename = "integrated gpu")]
    IntegratedGpu,
    /// Helps the CPU; holds no layers.
    #[serde(rename = "accelerator")]
    Accelerator,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::IntegratedGpu => "integrated gpu",
            Self::Accelerator => "accelerator",
        })
    }
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Device")]
pub struct DeviceReport {
    /// llama.cpp's name, e.g. `Vulkan0`.
    pub name: String,
    /// The maker's, e.g. `NVIDIA H200`.
    pub description: String,
    /// Registered name of the backend that drives it.
    pub backend: String,
    /// The backend's interface and the driver's version of it, e.g. `Vulkan 1.4.303`; only `gpu-info` asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// Name and version of the driver, e.g. `NVIDIA 580.159.04`; only `gpu-info` asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    pub kind: Kind,
    pub memory_free_mb: u64,
    pub memory_total_mb: u64,
    /// It is a program that draws on the CPU. Models run on it, slower than on the CPU itself.
    pub software: bool,
}

impl DeviceReport {
    #[must_use]
    pub fn is_gpu(&self) -> bool {
        matches!(self.kind, Kind::Gpu | Kind::IntegratedGpu)
    }

    /// `Vulkan0 (NVIDIA H200)`.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} ({})", self.name, self.description)
    }
}

/// A file that holds a backend, in a build that loads them at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleReport {
    pub path: PathBuf,
    /// `cpu`, `cuda`, `vulkan`, …
    pub backend: String,
    /// Instruction set, where there are several for one backend, e.g. `zen4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    pub state: ModuleState,
    /// Why it is not used, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModuleState {
    Loaded,
    /// A better one of the same backend was loaded.
    NotNeeded,
    Refused,
}

/// Vulkan drivers that draw on the CPU, as they call their device.
#[must_use]
pub fn is_software(description: &str) -> bool {
    let lower = description.to_lowercase();
    ["llvmpipe", "lavapipe", "swiftshader", "softpipe", "microsoft basic render"]
        .iter()
        .any(|name| lower.contains(name))
}

/// Everything that placement decides by. A test makes one up; [`Inventory::of`] asks llama.cpp.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Names of the backends, in llama.cpp's order of preference.
    pub registered: Vec<String>,
    /// GPU backends in this binary, or loaded into it. One whose driver fails to start does not register.
    pub compiled: Vec<GpuBackend>,
    pub devices: Vec<DeviceReport>,
    /// Modules that were found.
    pub modules: Vec<ModuleReport>,
    /// Where modules were looked for; empty where the backends are in the binary.
    pub searched: Vec<PathBuf>,
    /// What the backends complained about while they looked for devices.
    pub complaints: Vec<String>,
}

impl Inventory {
    /// Whether llama.cpp registered the backend.
    #[must_use]
    pub fn is_registered(&self, backend: GpuBackend) -> bool {
        self.registered.iter().any(|name| backend.registered_names().contains(&name.as_str()))
    }

    /// The same with no more free memory than models may take.
    #[must_use]
    pub fn within(&self, limit: Limit<'_>) -> Self {
        let mut limited = self.clone();
        for device in &mut limited.devices {
            let most = limit(&device.name).map_or(u64::MAX, |bytes| bytes >> 20);
            device.memory_free_mb = device.memory_free_mb.min(most);
        }
        limited
    }

    /// Names of all backends in this binary, the CPU included.
    #[must_use]
    pub fn compiled_names(&self) -> Vec<String> {
        self.compiled.iter().map(|backend| backend.name()).chain(["cpu"]).map(str::to_owned).collect()
    }
}

#[cfg(feature = "llama")]
impl Inventory {
    /// Asks llama.cpp what there is.
    ///
    /// # Errors
    /// What a backend threw.
    pub fn of(backend: crate::llama::Backend) -> Result<Self, crate::llama::LlamaError> {
        use crate::llama::DeviceKind;

        let devices = backend.devices()?.into_iter().map(|device| DeviceReport {
            software: is_software(&device.description),
            kind: match device.kind {
                DeviceKind::Cpu => Kind::Cpu,
                DeviceKind::Gpu => Kind::Gpu,
                DeviceKind::IntegratedGpu => Kind::IntegratedGpu,
                DeviceKind::Accelerator => Kind::Accelerator,
            },
            memory_free_mb: device.memory_free >> 20,
            memory_total_mb: device.memory_total >> 20,
            name: device.name,
            description: device.description,
            backend: device.backend,
            api: None,
            driver: None,
        });
        let mut inventory = Self {
            registered: backend.names()?,
            compiled: Vec::new(),
            devices: devices.collect(),
            modules: backend.modules().iter().cloned().map(module_report).collect(),
            searched: backend.searched().to_vec(),
            complaints: backend.complaints().lines().map(str::to_owned).collect(),
        };
        let built = |gpu: &GpuBackend| match gpu {
            _ if cfg!(feature = "dynamic-backends") => false,
            GpuBackend::Cuda => cfg!(feature = "llama-cuda"),
            GpuBackend::Vulkan => cfg!(feature = "llama-vulkan"),
            GpuBackend::OpenCl => cfg!(feature = "llama-opencl"),
            GpuBackend::Metal => cfg!(feature = "llama-metal"),
            GpuBackend::Auto | GpuBackend::Cpu => false,
        };
        let has = |gpu: &GpuBackend| built(gpu) || inventory.is_registered(*gpu);
        inventory.compiled = GpuBackend::GPUS.into_iter().filter(has).collect();
        Ok(inventory)
    }
}

#[cfg(feature = "llama")]
impl Inventory {
    /// Adds the drivers' versions, which cost a moment.
    ///
    /// # Errors
    /// What a backend threw.
    pub fn with_drivers(mut self, backend: crate::llama::Backend) -> Result<Self, crate::llama::LlamaError> {
        let devices = backend.devices()?;
        let drivers = crate::llama::drivers(&devices);
        for ((report, device), found) in self.devices.iter_mut().zip(devices).zip(drivers) {
            let kernel = || kernel_driver(device.id.as_deref()?);
            (report.api, report.driver) = (found.api, found.driver.or_else(kernel));
        }
        Ok(self)
    }
}

#[cfg(feature = "llama")]
fn module_report(module: crate::llama::BackendModule) -> ModuleReport {
    use crate::llama::ModuleState as Found;

    let (state, reason) = match module.state {
        Found::Loaded => (ModuleState::Loaded, None),
        Found::NotNeeded(better) => (ModuleState::NotNeeded, Some(format!("{better} is used"))),
        Found::Refused(why) => (ModuleState::Refused, Some(why)),
    };
    ModuleReport { path: module.path, backend: module.backend, variant: module.variant, state, reason }
}
