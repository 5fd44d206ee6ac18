//! From what was asked and what there is to devices. Pure.

use super::error::PlacementError;
use super::inventory::{DeviceReport, Inventory, Kind, ModuleReport, ModuleState};
use super::spec::{CpuExperts, GpuBackend, GpuLayers, PlacementSpec, SplitMode};

/// What was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Devices for layers, all of one backend; none means the CPU.
    pub devices: Vec<DeviceReport>,
    pub layers: GpuLayers,
    pub split_mode: SplitMode,
    pub tensor_split: Vec<f32>,
    pub main_gpu: u32,
    pub cpu_experts: CpuExperts,
    /// In a few words, for the log.
    pub why: String,
}

impl Choice {
    /// All on the CPU.
    pub fn cpu(why: impl Into<String>) -> Self {
        Self {
            devices: Vec::new(),
            layers: GpuLayers::Count(0),
            split_mode: SplitMode::default(),
            tensor_split: Vec::new(),
            main_gpu: 0,
            cpu_experts: CpuExperts::None,
            why: why.into(),
        }
    }

    /// Shares layers out by what the devices have free in `inventory`, where that is less than llama.cpp finds, and nobody
    /// asked for other shares.
    #[allow(clippy::cast_precision_loss)]
    pub fn share_within(&mut self, inventory: &Inventory) {
        let free = |chosen: &DeviceReport| {
            let device = inventory.devices.iter().find(|device| device.name == chosen.name);
            device.map_or(chosen.memory_free_mb, |device| device.memory_free_mb)
        };
        if self.tensor_split.is_empty() && self.devices.iter().any(|device| free(device) < device.memory_free_mb) {
            let shares: Vec<f32> = self.devices.iter().map(|device| free(device) as f32).collect();
            if shares.iter().sum::<f32>() > 0.0 {
                self.tensor_split = shares;
            }
        }
    }

    /// The devices that are to hold layers.
    #[must_use]
    pub fn holders(&self) -> &[DeviceReport] {
        match self.split_mode {
            SplitMode::None => self.devices.get(self.main_gpu as usize).map_or(&[], std::slice::from_ref),
            SplitMode::Layer => &self.devices,
        }
    }
}

/// Chooses the devices for a model.
///
/// # Errors
/// A backend that is not compiled in or has no device, a device that does not exist, options that exclude each other.
pub fn choose(inventory: &Inventory, asked: &PlacementSpec) -> Result<Choice, PlacementError> {
    let backend = asked.gpu_backend;
    if backend == GpuBackend::Cpu {
        return match asked.gpu_option() {
            Some(option) => contradiction(format!("--gpu-backend cpu excludes {option}")),
            None => Ok(Choice::cpu("--gpu-backend cpu")),
        };
    }
    if let Some(reason) = no_module(inventory, backend) {
        return Err(PlacementError::NoModule { asked: backend.name().into(), reason });
    }
    let (devices, why) = match (asked.devices.is_empty(), backend) {
        (false, _) => (named(inventory, asked)?, "--device".to_owned()),
        (true, GpuBackend::Auto) => match best(inventory) {
            Ok(found) => found,
            Err(why) if asked.gpu_option().is_some() => {
                return Err(PlacementError::NoDevice { asked: backend.name().into(), reason: why });
            }
            Err(why) => return Ok(Choice::cpu(why)),
        },
        (true, _) => (all_of(inventory, backend)?, format!("--gpu-backend {}", backend.name())),
    };
    check_split(asked, &devices)?;
    if asked.gpu_layers == Some(GpuLayers::Count(0)) {
        return Ok(Choice::cpu("--gpu-layers 0"));
    }
    Ok(Choice {
        devices,
        layers: asked.gpu_layers.unwrap_or(if asked.asks_for_gpu() { GpuLayers::All } else { GpuLayers::Auto }),
        split_mode: asked.split_mode,
        tensor_split: asked.tensor_split.clone(),
        main_gpu: asked.main_gpu.unwrap_or(0),
        cpu_experts: asked.cpu_experts,
        why,
    })
}

fn contradiction<T>(text: String) -> Result<T, PlacementError> {
    Err(PlacementError::Contradiction(text))
}

/// GPUs that are used together: those with memory of their own, or else the first that shares the CPU's. The two
/// are no match for each other, and the second kind would count the CPU's memory as its own.
fn team(gpus: Vec<DeviceReport>) -> Vec<DeviceReport> {
    let (own, mut shared): (Vec<_>, Vec<_>) = gpus.into_iter().partition(|device| device.kind == Kind::Gpu);
    shared.truncate(1);
    if own.is_empty() { shared } else { own }
}

/// The devices of the first backend in llama.cpp's order that has a real one. Backends are never mixed, since the same
/// GPU can appear in two.
fn best(inventory: &Inventory) -> Result<(Vec<DeviceReport>, String), String> {
    let usable = |device: &&DeviceReport| device.is_gpu() && !device.software;
    if let Some(first) = inventory.devices.iter().find(usable) {
        let devices = inventory.devices.iter().filter(usable).filter(|device| device.backend == first.backend);
        return Ok((team(devices.cloned().collect()), format!("{} comes first of what has a GPU here", first.backend)));
    }
    let compiled: Vec<&str> = inventory.compiled.iter().map(|backend| backend.name()).collect();
    let software: Vec<String> = inventory.devices.iter().filter(|d| d.software).map(DeviceReport::title).collect();
    let refused: Vec<String> = GpuBackend::GPUS.iter().flat_map(|gpu| refused_modules(inventory, *gpu)).collect();
    let mut reason: String = match (compiled.as_slice(), software.as_slice()) {
        ([], _) if inventory.searched.is_empty() => "no GPU backend is compiled in".into(),
        ([], _) => "no module of a GPU backend is loaded".into(),
        (_, []) => format!("{} finds no device", compiled.join(", ")),
        _ => format!("{} draws on the CPU and would be slower than it", software.join(", ")),
    };
    for module in refused {
        reason = format!("{reason}; {module}");
    }
    Err(reason)
}

/// All devices of a backend that was named.
fn all_of(inventory: &Inventory, backend: GpuBackend) -> Result<Vec<DeviceReport>, PlacementError> {
    let names = backend.registered_names();
    let asked = || backend.name().to_owned();
    if !inventory.compiled.contains(&backend) {
        return Err(PlacementError::NotCompiledIn { asked: asked(), compiled: inventory.compiled_names() });
    }
    let found = inventory.devices.iter().filter(|device| device.is_gpu() && names.contains(&device.backend.as_str()));
    let devices = team(found.cloned().collect());
    if devices.is_empty() {
        return Err(PlacementError::NoDevice { asked: asked(), reason: why_none(inventory, backend) });
    }
    Ok(devices)
}

/// Why no module of a backend was loaded; `None` where one was, and where backends are no modules.
#[must_use]
pub fn no_module(inventory: &Inventory, backend: GpuBackend) -> Option<String> {
    let is_gpu = GpuBackend::GPUS.contains(&backend);
    if !is_gpu || inventory.searched.is_empty() || inventory.compiled.contains(&backend) {
        return None;
    }
    let refused = refused_modules(inventory, backend);
    if !refused.is_empty() {
        return Some(refused.join("; "));
    }
    let dirs: Vec<String> = inventory.searched.iter().map(|dir| dir.display().to_string()).collect();
    Some(format!("no libggml-{} in {}", backend.name(), dirs.join(" or ")))
}

fn refused_modules(inventory: &Inventory, backend: GpuBackend) -> Vec<String> {
    let ours = |module: &&ModuleReport| {
        module.state == ModuleState::Refused && backend.module_names().contains(&module.backend.as_str())
    };
    let refused = inventory.modules.iter().filter(ours);
    refused.map(|m| format!("{} was refused: {}", m.path.display(), m.reason.as_deref().unwrap_or("unknown"))).collect()
}

/// Why a backend that is compiled in has no device.
#[must_use]
pub fn why_none(inventory: &Inventory, backend: GpuBackend) -> String {
    let prefix = format!("ggml_{}", backend.name());
    let said: Vec<&str> = inventory
        .complaints
        .iter()
        .filter(|line| line.to_lowercase().contains(&prefix))
        .map(|line| line.split_once(": ").map_or(line.as_str(), |(_, text)| text).trim_end_matches('.'))
        .collect();
    let hint = match backend {
        GpuBackend::Vulkan => {
            "no driver that Vulkan's loader knows has a GPU (drivers that draw on the CPU, such as llvmpipe, count only where GGML_VK_VISIBLE_DEVICES names them)"
        }
        GpuBackend::Cuda => "no NVIDIA driver, or no GPU that it shows (CUDA_VISIBLE_DEVICES may hide them)",
        GpuBackend::OpenCl => "no OpenCL driver with a GPU that llama.cpp supports (Adreno and Intel)",
        _ => "there is none",
    };
    let failed = (!inventory.is_registered(backend)).then_some("its driver failed to start");
    let facts: Vec<&str> = failed.into_iter().chain(said).chain([hint]).collect();
    facts.join("; ")
}

/// The devices that `--device` names, in its order.
fn named(inventory: &Inventory, asked: &PlacementSpec) -> Result<Vec<DeviceReport>, PlacementError> {
    let mut devices: Vec<DeviceReport> = Vec::new();
    for name in &asked.devices {
        let known = || inventory.devices.iter().filter(|device| device.is_gpu());
        let Some(device) = known().find(|device| device.name.eq_ignore_ascii_case(name)) else {
            let known = known().map(DeviceReport::title).collect();
            return Err(PlacementError::UnknownDevice { asked: name.clone(), known });
        };
        let names = asked.gpu_backend.registered_names();
        if asked.gpu_backend != GpuBackend::Auto && !names.contains(&device.backend.as_str()) {
            let backend = asked.gpu_backend.name();
            let other = &device.backend;
            return contradiction(format!(
                "--gpu-backend {backend} excludes --device {name}, which is driven by {other}"
            ));
        }
        if let Some(first) = devices.first()
            && first.backend != device.backend
        {
            return contradiction(format!(
                "--device {} and {name} belong to two backends, {} and {}; the same GPU could be in both, so choose devices of one",
                first.name, first.backend, device.backend
            ));
        }
        if !devices.contains(device) {
            devices.push(device.clone());
        }
    }
    Ok(devices)
}

fn check_split(asked: &PlacementSpec, devices: &[DeviceReport]) -> Result<(), PlacementError> {
    let titles = || devices.iter().map(DeviceReport::title).collect::<Vec<_>>().join(", ");
    let count = devices.len();
    if let Some(n) = asked.main_gpu {
        if asked.split_mode != SplitMode::None {
            return contradiction(format!(
                "--main-gpu {n} needs --split-mode none; otherwise all devices share the model"
            ));
        }
        if n as usize >= count {
            return contradiction(format!("--main-gpu {n}: there are {count} devices, counted from 0: {}", titles()));
        }
    }
    let split = &asked.tensor_split;
    if split.is_empty() {
        return Ok(());
    }
    if asked.split_mode == SplitMode::None {
        return contradiction("--tensor-split is for several devices, and --split-mode none uses one".into());
    }
    if split.len() != count {
        return contradiction(format!("--tensor-split has {} shares for {count} devices ({})", split.len(), titles()));
    }
    if split.iter().any(|share| !share.is_finite() || *share < 0.0) || split.iter().sum::<f32>() <= 0.0 {
        return contradiction("--tensor-split: shares are numbers from 0 up, and not all 0".into());
    }
    Ok(())
}
