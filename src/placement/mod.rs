//! Which device gets what. What the user asked for is what runs, or the load fails and says why.

mod error;
mod fit;
mod hardware;
mod inventory;
mod report;
mod select;
mod spec;
#[cfg(test)]
mod tests;
mod verify;

pub use error::PlacementError;
pub use fit::{Alternative, Bytes, DeviceNeed, Limit, MemoryPlan, NO_LIMIT, adapter_bytes, largest, needs};
pub use hardware::{PciGpu, kernel_driver, pci_gpus};
pub use inventory::{DeviceReport, Inventory, Kind, ModuleReport, ModuleState, is_software};
pub use report::{BackendReport, DeviceUse, PlacementReport, SystemReport};
pub use select::{Choice, choose};
pub use spec::{CpuExperts, GpuBackend, GpuLayers, PlacementSpec, SplitMode};
pub use verify::{Actual, verify};
