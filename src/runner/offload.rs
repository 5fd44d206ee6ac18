//! From a choice of devices to what the wrapper takes, and back to a report of what came of it.

use crate::llama::{self, Backend, Device, LlamaError, Model, Offload, Split};
use crate::placement::{
    Actual, Choice, CpuExperts, DeviceReport, DeviceUse, GpuLayers, Inventory, PlacementError, PlacementSpec,
    SplitMode, choose,
};

/// Experts' matrices by llama.cpp's names.
const EXPERTS: &str = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps";

/// Chooses devices for a model that is loaded without a runner.
///
/// # Errors
/// Why it cannot run where it was asked to.
pub fn offload_for(backend: Backend, asked: &PlacementSpec) -> Result<Offload, PlacementError> {
    let failed = |e: LlamaError| PlacementError::Backend(e.to_string());
    let inventory = Inventory::of(backend).map_err(failed)?;
    offload(backend, &choose(&inventory, asked)?).map_err(failed)
}

pub(super) fn offload(backend: Backend, choice: &Choice) -> Result<Offload, LlamaError> {
    if choice.devices.is_empty() {
        return Ok(Offload::Cpu);
    }
    Ok(Offload::Devices {
        devices: devices(backend, choice)?,
        layers: match choice.layers {
            GpuLayers::All | GpuLayers::Auto => None,
            GpuLayers::Count(n) => Some(n),
        },
        split: match choice.split_mode {
            SplitMode::None => Split::None(choice.main_gpu),
            SplitMode::Layer => Split::Layers(choice.tensor_split.clone()),
        },
        cpu_tensors: match choice.cpu_experts {
            CpuExperts::None => Vec::new(),
            CpuExperts::First(n) => (0..n).map(|layer| format!(r"blk\.{layer}{EXPERTS}")).collect(),
            CpuExperts::All => vec![EXPERTS.into()],
        },
    })
}

/// The chosen devices, in their order.
pub(super) fn devices(backend: Backend, choice: &Choice) -> Result<Vec<Device>, LlamaError> {
    let mut all = backend.devices()?;
    let find = |chosen: &DeviceReport| {
        let index = all.iter().position(|device| device.name == chosen.name)?;
        Some(all.swap_remove(index))
    };
    Ok(choice.devices.iter().filter_map(find).collect())
}

/// What llama.cpp says of a loaded model and its context.
pub(super) fn actual(model: &Model, memory: Vec<llama::MemoryUse>) -> Result<Actual, LlamaError> {
    let memory = memory.into_iter().map(|memory| DeviceUse {
        name: memory.device,
        weights_bytes: memory.weights,
        context_bytes: memory.context,
        compute_bytes: memory.compute,
        ..DeviceUse::default()
    });
    Ok(Actual { layers: model.layer_devices()?, memory: memory.collect() })
}
