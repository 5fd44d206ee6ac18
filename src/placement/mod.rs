//! Which device gets what. What the user asked for is what runs, or the load fails and says why.

mod report;
mod select;

pub use report::{BackendReport, DeviceReport, PlacementReport, SystemReport};
pub use select::{GpuBackend, PlacementError};

#[cfg(feature = "llama")]
pub use report::system_report;
#[cfg(feature = "llama")]
pub use select::select;
