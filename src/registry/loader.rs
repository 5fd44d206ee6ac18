//! What the pool needs of the machine. Tests have one of their own.

use std::fmt::Debug;
use std::sync::Arc;

use super::budget::{Bytes, add};
use super::residency::Need;
use crate::placement::{Limit, MemoryPlan};
use crate::runner::{self, LoadError, LoadSpec, Progress, Runner};

pub trait Loader: Send + Sync + Debug {
    /// What loading would take, without loading. Where the model's share of a device is open, it stays within `limit`.
    ///
    /// # Errors
    /// As a load.
    fn need(&self, spec: &LoadSpec, limit: Limit<'_>) -> Result<Need, LoadError>;

    /// What is free on each device whose memory is a limit.
    fn free(&self) -> Bytes;

    /// # Errors
    /// Why it does not load; [`LoadError::Cancelled`] where `progress` said so.
    fn load(
        &self,
        spec: &LoadSpec,
        limit: Limit<'_>,
        progress: Progress<'_>,
    ) -> Result<(Arc<dyn Runner>, Need), LoadError>;
}

/// This machine.
#[derive(Debug)]
pub struct RunnerLoader;

impl Loader for RunnerLoader {
    fn need(&self, spec: &LoadSpec, limit: Limit<'_>) -> Result<Need, LoadError> {
        runner::plan(spec, limit).map(|plan| Need::from(&plan))
    }

    fn free(&self) -> Bytes {
        runner::free_memory()
    }

    fn load(
        &self,
        spec: &LoadSpec,
        limit: Limit<'_>,
        progress: Progress<'_>,
    ) -> Result<(Arc<dyn Runner>, Need), LoadError> {
        let runner = runner::load(spec, limit, progress)?;
        let placement = &runner.info().placement;
        // With less in memory, it may take something else the next time.
        let reduced = placement.gpu_layers < placement.total_layers && self.free().len() > 1;
        let mut bytes = placement.held();
        add(&mut bytes, &runner.adapters_held());
        Ok((runner, Need { bytes, reduced }))
    }
}

impl From<&MemoryPlan> for Need {
    fn from(plan: &MemoryPlan) -> Self {
        let bytes = plan.devices.iter().map(|device| (device.usage.name.clone(), device.needed_bytes));
        Self { bytes: bytes.collect(), reduced: plan.reduced }
    }
}
