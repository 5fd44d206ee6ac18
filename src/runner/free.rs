//! How much memory is free.

use std::collections::BTreeMap;

/// Backends whose free memory is a limit. OpenCL guesses it, and Metal lends more.
#[cfg(feature = "llama")]
pub(super) const EXACT: &[&str] = &["CUDA", "ROCm", "Vulkan"];
/// Variables of llama.cpp's that let a GPU go on in the CPU's memory.
#[cfg(feature = "llama")]
const OVERFLOW: &[&str] =
    &["GGML_CUDA_ENABLE_UNIFIED_MEMORY", "GGML_VK_ALLOW_SYSMEM_FALLBACK", "GGML_VK_PREFER_HOST_MEMORY"];

#[cfg(feature = "llama")]
pub(super) fn may_overflow() -> bool {
    OVERFLOW.iter().any(|variable| std::env::var_os(variable).is_some())
}

/// Free bytes of the CPU's memory. What it holds of files counts as free, since it can be dropped.
pub(super) fn cpu() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    // In a container there may be less than the machine has.
    let limit = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory.saturating_sub(limits.rss));
    system.available_memory().min(limit)
}

/// Free bytes on each device whose memory is a limit, by llama.cpp's names.
#[must_use]
pub fn free_memory() -> BTreeMap<String, u64> {
    let mut free = gpus();
    free.insert("CPU".into(), cpu());
    free
}

#[cfg(feature = "llama")]
fn gpus() -> BTreeMap<String, u64> {
    use crate::llama::Backend;
    use crate::placement::Inventory;

    if may_overflow() {
        return BTreeMap::new();
    }
    // Why a backend does not start is for the load to say.
    let devices = Backend::init().and_then(Inventory::of).map(|inventory| inventory.devices).unwrap_or_default();
    let exact = devices.into_iter().filter(|device| device.is_gpu() && EXACT.contains(&device.backend.as_str()));
    exact.map(|device| (device.name, device.memory_free_mb << 20)).collect()
}

#[cfg(not(feature = "llama"))]
fn gpus() -> BTreeMap<String, u64> {
    BTreeMap::new()
}
