//! What `gpu-info`, `/diag` and `/health` say about devices and placement.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::PlacementError;
use super::fit::Bytes;
use super::inventory::{DeviceReport, Inventory, ModuleReport};
use super::select::{choose, why_none};
use super::spec::{GpuBackend, PlacementSpec};

/// A backend that `--gpu-backend` can name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendReport {
    pub name: String,
    pub compiled_in: bool,
    /// Its devices, by llama.cpp's names.
    pub devices: Vec<String>,
    /// Why it cannot be used, where it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What this binary can use here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemReport {
    /// As llama.cpp registered them, in its order of preference.
    pub registered: Vec<String>,
    pub backends: Vec<BackendReport>,
    /// Files that hold backends, in a build that loads them at run time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<ModuleReport>,
    pub devices: Vec<DeviceReport>,
    /// What `--gpu-backend auto` would use.
    pub auto: String,
    /// Why it would.
    pub auto_why: String,
}

impl SystemReport {
    #[must_use]
    pub fn new(inventory: &Inventory) -> Self {
        let (auto, auto_why) = match choose(inventory, &PlacementSpec::default()) {
            Ok(choice) => {
                let backend = choice.devices.first().map_or_else(|| "cpu".into(), |d| d.backend.to_lowercase());
                (backend, choice.why)
            }
            Err(error) => ("nothing".into(), error.to_string()),
        };
        Self {
            registered: inventory.registered.clone(),
            backends: GpuBackend::GPUS.into_iter().map(|gpu| backend_report(inventory, gpu)).collect(),
            modules: inventory.modules.clone(),
            devices: inventory.devices.clone(),
            auto,
            auto_why,
        }
    }
}

fn backend_report(inventory: &Inventory, gpu: GpuBackend) -> BackendReport {
    let asked = PlacementSpec { gpu_backend: gpu, ..PlacementSpec::default() };
    let (devices, reason) = match choose(inventory, &asked) {
        Ok(choice) => (choice.devices.into_iter().map(|device| device.name).collect(), None),
        Err(PlacementError::NoModule { reason, .. }) => (Vec::new(), Some(reason)),
        Err(PlacementError::NotCompiledIn { asked, .. }) => {
            (Vec::new(), Some(format!("not compiled in; build with --features llama-{asked}")))
        }
        Err(_) => (Vec::new(), Some(why_none(inventory, gpu))),
    };
    BackendReport { name: gpu.name().into(), compiled_in: inventory.compiled.contains(&gpu), devices, reason }
}

/// What one device holds of a model. Bytes are llama.cpp's own accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceUse {
    /// llama.cpp's name, e.g. `Vulkan0`.
    pub name: String,
    /// The maker's; empty for the CPU.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub layers: u32,
    pub weights_bytes: u64,
    /// KV cache and states.
    pub context_bytes: u64,
    /// What a pass needs beside them.
    pub compute_bytes: u64,
    /// LoRA adapters, by the sizes of their tensors.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub adapter_bytes: u64,
    /// A model that guesses ahead for this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub draft_bytes: u64,
    /// What turns images into embeddings for it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub projector_bytes: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form.
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl DeviceUse {
    /// All that it holds.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes
            + self.context_bytes
            + self.compute_bytes
            + self.adapter_bytes
            + self.draft_bytes
            + self.projector_bytes
    }

    /// `Vulkan0 (NVIDIA H200)`, or `CPU`.
    #[must_use]
    pub fn title(&self) -> String {
        if self.description.is_empty() { self.name.clone() } else { format!("{} ({})", self.name, self.description) }
    }
}

/// Where one model runs: read back from llama.cpp after the load, not taken from the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Placement")]
pub struct PlacementReport {
    /// `cpu`, or the registered name of the backend in lower case.
    pub backend: String,
    pub devices: Vec<DeviceUse>,
    pub gpu_layers: u32,
    pub total_layers: u32,
    /// Why it runs there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

impl PlacementReport {
    /// Counts adapters in.
    pub fn add_adapters(&mut self, bytes: &Bytes) {
        self.add(bytes, |device| &mut device.adapter_bytes);
    }

    /// Counts a model in that guesses ahead.
    pub fn add_draft(&mut self, bytes: &Bytes) {
        self.add(bytes, |device| &mut device.draft_bytes);
    }

    /// Counts a projector in.
    pub fn add_projector(&mut self, bytes: &Bytes) {
        self.add(bytes, |device| &mut device.projector_bytes);
    }

    fn add(&mut self, bytes: &Bytes, part: impl Fn(&mut DeviceUse) -> &mut u64) {
        for (name, bytes) in bytes {
            let known = self.devices.iter().position(|device| device.name == *name).unwrap_or_else(|| {
                self.devices.push(DeviceUse { name: name.clone(), ..DeviceUse::default() });
                self.devices.len() - 1
            });
            *part(&mut self.devices[known]) += bytes;
        }
    }

    /// What it holds on each device.
    #[must_use]
    pub fn held(&self) -> Bytes {
        self.devices.iter().map(|device| (device.name.clone(), device.total_bytes())).collect()
    }
}

impl std::fmt::Display for PlacementReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.backend == "cpu" {
            return write!(f, "cpu, all {} layers", self.total_layers);
        }
        let holders = self.devices.iter().filter(|device| !device.description.is_empty());
        let names: Vec<&str> = holders.map(|device| device.description.as_str()).collect();
        write!(f, "{}, {} of {} layers on {}", self.backend, self.gpu_layers, self.total_layers, names.join(", "))
    }
}
