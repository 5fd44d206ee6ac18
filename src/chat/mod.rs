//! Messages to prompts.

pub mod forced;
mod image;
mod message;
mod options;
mod shield;
#[cfg(feature = "llama")]
mod template;

pub use image::Image;
pub use message::{Message, Role, ToolCall};
pub use options::{ChatOptions, Tool, ToolChoice, is_template_text};
pub use shield::{MOST_IMAGES, Part, Shield};
#[cfg(feature = "llama")]
pub use template::{Ending, Rendered, TemplateChoice, is_builtin, tools_json};
