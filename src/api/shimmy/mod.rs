//! shimmy's own dialect. Clients of 1.x exist, so these shapes stay.

mod adapters;
mod encode;
mod generate;
mod load;
pub mod shapes;
mod socket;

pub use adapters::AdapterRequest;
pub use encode::SseEncoder;
pub use generate::{GenerateRequest, StreamOptions};
pub use load::{EventFormat, LoadEvent, LoadRequest};
pub use socket::{ControlFrame, error_frame, final_frame};
