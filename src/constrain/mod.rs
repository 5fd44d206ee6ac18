//! What an answer must look like: from a schema or grammar to the tokens that may come next.

mod compile;
mod filter;
mod gbnf;
mod schema;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use compile::{Compiler, Words, with_options};
pub use filter::TokenFilter;

/// The form that an answer's text must have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// Any JSON object.
    JsonObject,
    JsonSchema(Value),
    /// The whole text matches.
    Regex(String),
    /// A grammar in Lark's syntax, as llguidance reads it.
    Lark(String),
    /// A grammar in llama.cpp's syntax, which begins with the rule `root`.
    Gbnf(String),
}
