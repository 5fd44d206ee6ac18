//! Messages to prompts.

mod message;
#[cfg(feature = "llama")]
mod template;

pub use message::{Message, Role};
#[cfg(feature = "llama")]
pub use template::{Prompt, TemplateChoice};
