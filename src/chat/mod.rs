//! Messages to prompts.

mod message;
mod options;
#[cfg(feature = "llama")]
mod template;

pub use message::{Message, Role, ToolCall};
pub use options::{ChatOptions, Tool, ToolChoice};
#[cfg(feature = "llama")]
pub use template::{Prompt, TemplateChoice};
