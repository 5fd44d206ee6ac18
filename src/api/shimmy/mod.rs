//! shimmy's own dialect. Clients of 1.x exist, so these shapes stay.

mod encode;
mod generate;
mod socket;

pub use encode::SseEncoder;
pub use generate::{GenerateRequest, StreamOptions};
pub use socket::{ControlFrame, error_frame, final_frame};
