//! Every operation of the server, a table for each dialect. What stands here is served and is in the API's document.

mod anthropic;
mod ollama;
mod openai;
mod shimmy;
mod utility;

use super::route::Table;

pub(super) fn all() -> Vec<Table> {
    vec![shimmy::table(), openai::table(), anthropic::table(), ollama::table(), ollama::table_below(), utility::table()]
}
