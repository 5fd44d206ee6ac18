//! Whether a model fits, and what would. Sizes come from llama.cpp, which lays everything out without allocating it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::report::{DeviceUse, PlacementReport};
use super::verify::CPU;
use crate::gguf;

/// Bytes on devices, by llama.cpp's names for them, e.g. `CPU` or `CUDA0`.
pub type Bytes = BTreeMap<String, u64>;

/// What a device would hold, beside what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNeed {
    #[serde(flatten)]
    pub usage: DeviceUse,
    pub needed_bytes: u64,
    pub free_bytes: u64,
    pub fits: bool,
}

/// Another way to run the model, which fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alternative {
    /// E.g. `fits at ctx 24k`.
    pub text: String,
    /// The options that make it so.
    pub options: String,
}

/// What a load would take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPlan {
    pub backend: String,
    pub gpu_layers: u32,
    pub total_layers: u32,
    /// Cells of the KV cache.
    pub context_tokens: u32,
    /// Requests at the same time.
    pub parallel: u32,
    pub devices: Vec<DeviceNeed>,
    pub fits: bool,
    /// `--gpu-layers auto` came to less on GPUs than all, for want of memory.
    #[serde(default)]
    pub reduced: bool,
    /// Why it would run there.
    #[serde(default)]
    pub why: String,
    /// Why a device cannot hold it, whatever its memory; `devices` is empty then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// The nearest ways that fit; none where it does as asked.
    pub alternatives: Vec<Alternative>,
}

/// Free bytes of a device by its name.
pub type Free<'a> = &'a dyn Fn(&str) -> u64;

/// Most bytes that a model may take of a device, where somebody limits that.
pub type Limit<'a> = &'a dyn Fn(&str) -> Option<u64>;

/// Nobody limits anything.
pub const NO_LIMIT: Limit<'static> = &|_| None;

/// What an adapter takes: its tensors lie beside the layers that they change, the others in the CPU's memory. `layers` are
/// the devices of the layers.
#[must_use]
pub fn adapter_bytes(adapter: &gguf::Header, layers: &[String]) -> Bytes {
    let mut bytes = Bytes::new();
    // llama.cpp reads no others.
    let used = |name: &str| name.ends_with(".lora_a") || name.ends_with(".lora_b");
    for tensor in adapter.tensors().iter().filter(|tensor| used(&tensor.name)) {
        let layer = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        let device = layer.and_then(|layer| layers.get(layer)).map_or(CPU, String::as_str);
        *bytes.entry(device.to_owned()).or_default() += tensor.bytes().unwrap_or(0);
    }
    bytes
}

/// Compares needs with what is free. Drivers, other programs and fragments of memory want their share, too.
#[must_use]
pub fn needs(report: &PlacementReport, free: Free<'_>) -> Vec<DeviceNeed> {
    let need = |usage: &DeviceUse| {
        let needed_bytes = usage.total_bytes();
        let free_bytes = free(&usage.name);
        DeviceNeed {
            usage: usage.clone(),
            needed_bytes,
            free_bytes,
            fits: needed_bytes + needed_bytes / 32 <= free_bytes,
        }
    };
    report.devices.iter().map(need).collect()
}

/// The largest of `low..=high`, in steps from `low`, for which `fits` holds; `None` where not even `low` does. What is
/// smaller fits wherever something larger does.
///
/// # Errors
/// What `fits` failed with.
pub fn largest<E>(
    low: u32,
    high: u32,
    step: u32,
    mut fits: impl FnMut(u32) -> Result<bool, E>,
) -> Result<Option<u32>, E> {
    if high < low || !fits(low)? {
        return Ok(None);
    }
    let (mut good, mut bad) = (0, (high - low) / step + 1);
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        if fits(low + middle * step)? { good = middle } else { bad = middle }
    }
    Ok(Some(low + good * step))
}

#[cfg(test)]
mod tests {
    use super::{Bytes, adapter_bytes, largest, needs};
    use crate::gguf::{Header, writer};
    use crate::placement::{DeviceUse, PlacementReport};

    #[test]
    fn the_largest_is_found_with_few_looks() {
        let mut looks = 0;
        let mut at_most = |limit: u32, low, high, step| {
            largest(low, high, step, |n| {
                looks += 1;
                Ok::<_, ()>(n <= limit)
            })
            .expect("it never fails")
        };
        assert_eq!(at_most(27, 0, 33, 1), Some(27));
        assert_eq!(at_most(99, 0, 33, 1), Some(33));
        assert_eq!(at_most(25_000, 1024, 131_072, 1024), Some(24_576));
        assert_eq!(at_most(0, 1, 33, 1), None);
        assert_eq!(at_most(9, 5, 4, 1), None);
        assert!(looks < 30, "{looks}");
    }

    #[test]
    fn a_device_needs_some_air() {
        let usage = DeviceUse { name: "CUDA0".into(), weights_bytes: 3200, ..DeviceUse::default() };
        let report = report(vec![usage]);
        let fits = |free| needs(&report, &|_| free)[0].fits;
        assert!(fits(3300));
        assert!(!fits(3299));
    }

    fn report(devices: Vec<DeviceUse>) -> PlacementReport {
        PlacementReport { backend: "cuda".into(), devices, gpu_layers: 1, total_layers: 1, why: String::new() }
    }

    #[test]
    fn an_adapter_lies_beside_the_layers_that_it_changes() {
        let mut file = writer::lora("llama", "blk.1.attn_q.weight", [64, 32], 1.0);
        file.random("output.weight.lora_a", &[64, 2], 0.0).random("output.weight.lora_b", &[2, 8], 0.0);
        file.random("blk.1.attn_norm.weight", &[64], 0.0);
        let header = Header::parse(&file.to_bytes()).expect("an adapter");
        let layers = ["CPU", "CUDA0"].map(str::to_owned);
        let on_gpu: u64 = header.tensors().iter().filter(|t| t.name.contains("attn_q")).filter_map(|t| t.bytes()).sum();
        let expected = Bytes::from([("CPU".into(), 4 * (128 + 16)), ("CUDA0".into(), on_gpu)]);
        assert!(on_gpu > 0);
        assert_eq!(adapter_bytes(&header, &layers), expected);

        let mut report = report(vec![DeviceUse { name: "CUDA0".into(), weights_bytes: 5, ..DeviceUse::default() }]);
        report.add_adapters(&expected);
        assert_eq!(report.held(), Bytes::from([("CPU".into(), 576), ("CUDA0".into(), 5 + on_gpu)]));
        assert_eq!(needs(&report, &|_| 0)[0].needed_bytes, 5 + on_gpu, "it is needed as well");
    }
}
