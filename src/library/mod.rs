//! Which models there are on this machine: where they lie, what they are called, what their headers say.

mod discover;
mod facts;
mod found;
mod hub;
mod look;
mod name;
mod naming;
mod notes;
mod ollama_store;
mod pair;
mod places;
pub mod pull;
mod shards;
#[cfg(test)]
mod tests;
mod walk;

pub use discover::{discover, examine, own_models, survey};
pub use facts::{Capability, Facts};
pub use found::{Found, Library, OllamaLayers, Part, PartKind, Problem, Shards};
pub use name::name_from_path;
pub use naming::{did_you_mean, nearest, untagged};
pub use notes::Seen;
pub(crate) use places::split_list;
pub use places::{Machine, Os, SearchPath, own_folder, search_paths};
pub use pull::LayerKind;
