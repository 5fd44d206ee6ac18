//! `/v1/responses`: conversations in items, whose earlier turns the server keeps.

mod encode;
mod head;
mod items;
mod kept;
mod request;
pub mod shapes;

pub use encode::{Keep, ResponsesEncoder};
pub use kept::{Kept, deleted_body, input_items_body};
pub use request::{Asked, ResponsesRequest};
