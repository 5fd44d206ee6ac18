//! What a look at the disk gives: models, what belongs to them, and what could not be used.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

use super::facts::Facts;
use super::naming::untagged;
use super::notes::Seen;

/// A model on this machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// In lower case, and no other model's.
    pub name: String,
    /// What else it answers to. No alias is the name or alias of another model.
    pub aliases: Vec<String>,
    /// So many of the aliases, from the first on, mean this model whatever else comes; it may lose the others.
    #[serde(skip)]
    pub lasting: usize,
    /// Its file, or the first of its shards.
    pub path: PathBuf,
    /// Of all its shards that are there.
    pub size_bytes: u64,
    /// What told us to look there.
    pub because: &'static str,
    #[serde(flatten)]
    pub facts: Facts,
    /// Where it lies in several files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<Shards>,
    /// What turns images into embeddings for it (`mmproj`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projector: Option<PathBuf>,
    /// LoRA adapters that were made for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<PathBuf>,
    /// What Ollama keeps with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ollama: Option<OllamaLayers>,
}

impl Found {
    /// Whether the name is its own, in part or as a whole, and not that of its family, which it may lose to another model.
    #[must_use]
    pub fn is_called(&self, asked: &str) -> bool {
        let bare = untagged(asked);
        self.own_names().any(|name| untagged(name) == bare)
    }

    /// Its name, and the aliases that last.
    pub fn own_names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.name).chain(&self.aliases[..self.lasting])
    }
}

/// The files of a model that is split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shards {
    pub total: u32,
    pub present: u32,
    /// Names of the files that are missing, at most [`Shards::NAMED`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

impl Shards {
    /// Missing files that are named.
    pub const NAMED: usize = 8;

    /// What is missing, in words. `None` where nothing is.
    #[must_use]
    pub fn lack(&self) -> Option<String> {
        let missing = self.total.saturating_sub(self.present);
        let more = missing as usize - self.missing.len().min(missing as usize);
        let and = if more > 0 { format!(" and {more} more") } else { String::new() };
        (missing > 0).then(|| format!("{missing} of {} files missing: {}{and}", self.total, self.missing.join(", ")))
    }
}

/// The layers of a manifest of Ollama's beside the weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OllamaLayers {
    /// The file that names them.
    pub manifest: PathBuf,
    /// Its SHA-256, in hexadecimal digits.
    pub digest: String,
    /// In Go's template language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// E.g. `temperature`, `num_ctx`, `stop`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    /// Turns that stand before a conversation, as Ollama writes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Value>,
    /// LoRA adapters without which it is another model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<String>,
}

/// A file that belongs to models and is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    pub path: PathBuf,
    pub kind: PartKind,
    pub size_bytes: u64,
    /// Names of the models that it belongs to.
    pub models: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    Projector,
    Adapter,
}

/// What could not be read or used, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub path: PathBuf,
    pub what: String,
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Library {
    /// By name.
    pub models: Vec<Found>,
    pub parts: Vec<Part>,
    pub problems: Vec<Problem>,
    /// All of it, each file once, however many names it has.
    pub disk_bytes: u64,
    #[serde(skip)]
    pub seen: Seen,
}
