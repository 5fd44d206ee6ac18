//! Whether a model fits, and what would. Sizes come from llama.cpp, which lays everything out without allocating it.

use serde::{Deserialize, Serialize};

use super::report::{DeviceUse, PlacementReport};

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

/// Compares needs with what is free. Drivers, other programs and fragments of memory want their share, too.
#[must_use]
pub fn needs(report: &PlacementReport, free: Free<'_>) -> Vec<DeviceNeed> {
    let need = |usage: &DeviceUse| {
        let needed_bytes = usage.weights_bytes + usage.context_bytes + usage.compute_bytes;
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
    use super::{largest, needs};
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
        let report = PlacementReport {
            backend: "cuda".into(),
            devices: vec![usage],
            gpu_layers: 1,
            total_layers: 1,
            why: String::new(),
        };
        let fits = |free| needs(&report, &|_| free)[0].fits;
        assert!(fits(3300));
        assert!(!fits(3299));
    }
}
