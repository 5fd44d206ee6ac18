//! What the pool needs of the machine. Tests have one of their own.

use std::fmt::Debug;
use std::sync::Arc;

use super::budget::Bytes;
use super::residency::Need;
use crate::placement::{DeviceUse, MemoryPlan, PlacementReport};
use crate::runner::{self, LoadError, LoadSpec, Progress, Runner};

pub trait Loader: Send + Sync + Debug {
    /// What loading would take, without loading.
    ///
    /// # Errors
    /// As a load.
    fn need(&self, spec: &LoadSpec) -> Result<Need, LoadError>;

    /// What is free on each device whose memory is a limit.
    fn free(&self) -> Bytes;

    /// # Errors
    /// Why it does not load; [`LoadError::Cancelled`] where `progress` said so.
    fn load(&self, spec: &LoadSpec, progress: Progress<'_>) -> Result<(Arc<dyn Runner>, Need), LoadError>;
}

/// This machine.
#[derive(Debug)]
pub struct RunnerLoader;

impl Loader for RunnerLoader {
    fn need(&self, spec: &LoadSpec) -> Result<Need, LoadError> {
        runner::plan(spec).map(|plan| Need::from(&plan))
    }

    fn free(&self) -> Bytes {
        runner::free_memory()
    }

    fn load(&self, spec: &LoadSpec, progress: Progress<'_>) -> Result<(Arc<dyn Runner>, Need), LoadError> {
        let runner = runner::load(spec, progress)?;
        let placement = &runner.info().placement;
        // With less in memory, it may take something else the next time.
        let reduced = placement.gpu_layers < placement.total_layers && self.free().len() > 1;
        let used = Need { bytes: held(placement), reduced };
        Ok((runner, used))
    }
}

impl From<&MemoryPlan> for Need {
    fn from(plan: &MemoryPlan) -> Self {
        let bytes = plan.devices.iter().map(|device| (device.usage.name.clone(), device.needed_bytes));
        Self { bytes: bytes.collect(), reduced: plan.reduced }
    }
}

fn held(placement: &PlacementReport) -> Bytes {
    let all = |device: &DeviceUse| device.weights_bytes + device.context_bytes + device.compute_bytes;
    placement.devices.iter().map(|device| (device.name.clone(), all(device))).collect()
}
