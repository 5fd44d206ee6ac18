//! Finds model files in the usual places.

use std::collections::HashSet;
use std::env;
use std::path::{Path, PathBuf};

use serde::Serialize;
use walkdir::WalkDir;

use crate::gguf;

use super::entry::Facts;
use super::name::{is_later_shard, name_from_path};
use super::ollama_store;

/// Deep enough for a hub's cache, shallow enough for a home directory by mistake.
const MAX_DEPTH: usize = 8;

/// A place to look in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPath {
    pub dir: PathBuf,
    /// What told us to look there, e.g. `--model-dirs` or `HF_HOME`.
    pub because: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Files,
    Ollama,
}

/// A model file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    pub name: String,
    pub path: PathBuf,
    /// The file's, or that of all shards together.
    pub size_bytes: u64,
    /// What told us to look there.
    pub because: &'static str,
    #[serde(flatten)]
    pub facts: Facts,
}

/// Where to look, in order: what the command line names, then the environment, then the usual places.
#[must_use]
pub fn search_paths(model_dirs: &[PathBuf]) -> Vec<SearchPath> {
    let files = |dir: PathBuf, because| SearchPath { dir, because, kind: Kind::Files };
    let mut paths: Vec<SearchPath> = model_dirs.iter().map(|dir| files(dir.clone(), "--model-dirs")).collect();
    if let Some(list) = env::var_os("SHIMMY_MODEL_PATHS") {
        paths.extend(split_list(&list.to_string_lossy()).into_iter().map(|dir| files(dir, "SHIMMY_MODEL_PATHS")));
    }
    if let Some(dir) = env::var_os("OLLAMA_MODELS") {
        paths.push(SearchPath { dir: dir.into(), because: "OLLAMA_MODELS", kind: Kind::Ollama });
    }
    if let Some(dir) = env::var_os("HF_HOME") {
        paths.push(files(PathBuf::from(dir).join("hub"), "HF_HOME"));
    }
    paths.push(files("models".into(), "./models"));
    if let Some(home) = env::var_os("HOME").map(PathBuf::from) {
        let cache = env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
        paths.push(files(cache.join("shimmy/models"), "shimmy's cache"));
        paths.push(files(cache.join("huggingface/hub"), "the hub's cache"));
        paths.push(files(home.join(".lmstudio/models"), "LM Studio"));
        paths.push(SearchPath { dir: home.join(".ollama/models"), because: "Ollama", kind: Kind::Ollama });
    }
    paths
}

/// Splits `A;B`, and `A:B` where that is the system's own way.
pub(crate) fn split_list(list: &str) -> Vec<PathBuf> {
    list.split(';')
        .flat_map(|part| env::split_paths(part).collect::<Vec<_>>())
        .filter(|path| !path.as_os_str().is_empty())
        .collect()
}

/// Looks in all places. Files that are no model (adapters, projectors, damaged ones) are passed over; the log says why.
#[must_use]
pub fn discover(paths: &[SearchPath]) -> Vec<Found> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for place in paths {
        let files = match place.kind {
            Kind::Files => gguf_files(&place.dir).into_iter().map(|path| (name_from_path(&path), path)).collect(),
            Kind::Ollama => ollama_store::models(&place.dir),
        };
        for (name, path) in files {
            let Ok(real) = path.canonicalize() else { continue };
            if seen.insert(real) {
                found.extend(read(name, path, place.because));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    name_twins_apart(&mut found);
    found
}

fn gguf_files(dir: &Path) -> Vec<PathBuf> {
    let walk = WalkDir::new(dir).follow_links(true).max_depth(MAX_DEPTH).sort_by_file_name();
    walk.into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .filter(|path| path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("gguf")) && !is_later_shard(path))
        .collect()
}

fn read(name: String, path: PathBuf, because: &'static str) -> Option<Found> {
    let header = match gguf::Header::open(&path) {
        Ok(header) => header,
        Err(error) => {
            tracing::warn!(%error, "not a usable model");
            return None;
        }
    };
    if header.is_adapter() || header.architecture() == "clip" {
        tracing::debug!(path = %path.display(), "an adapter or projector, not a model");
        return None;
    }
    Some(Found { name, size_bytes: whole_size(&header), because, facts: Facts::of(&header), path })
}

/// Bytes of all shards. Missing ones are found out when the model is loaded.
fn whole_size(header: &gguf::Header) -> u64 {
    let shards = gguf::shards(header).unwrap_or_else(|_| vec![header.path().to_owned()]);
    shards.iter().filter_map(|path| path.metadata().ok()).map(|meta| meta.len()).sum()
}

/// Two files of one name, e.g. in two quantisations, get their quantisation back.
fn name_twins_apart(found: &mut [Found]) {
    for i in 0..found.len() {
        let twins = found.iter().filter(|other| other.name == found[i].name).count();
        if twins > 1 {
            let tag = found[i].facts.quantization.to_lowercase();
            let first = found.iter().position(|other| other.name == found[i].name) == Some(i);
            if !first {
                found[i].name = format!("{}-{tag}", found[i].name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::split_list;

    #[test]
    fn lists_split_at_semicolons_and_at_the_systems_separator() {
        let expected: Vec<PathBuf> = ["/a", "/b", "/c"].map(PathBuf::from).to_vec();
        assert_eq!(split_list("/a;/b;/c"), expected);
        #[cfg(unix)]
        assert_eq!(split_list("/a:/b;;/c"), expected);
    }
}
