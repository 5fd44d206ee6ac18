//! Names of models, and of the places that they are fetched from.

use std::path::Path;

use toml::Spanned;
use toml::de::DeValue;

use super::kinds::{Kind, Misfit, quoted};
use crate::library::untagged;

/// What a source may begin with.
pub(super) const SCHEMES: [&str; 2] = ["hf:", "ollama:"];

pub(super) struct Source;

pub(super) const fn source() -> Source {
    Source
}

impl Kind<String> for Source {
    fn read(&self, node: &Spanned<DeValue<'_>>) -> Result<String, Misfit> {
        let is_source = |text: &&str| SCHEMES.iter().any(|scheme| text.strip_prefix(scheme).is_some_and(is_name));
        let text = node.get_ref().as_str().filter(is_source);
        text.map(str::to_owned).ok_or_else(|| {
            Misfit::new(node, "what `shimmy pull` takes, e.g. \"hf:OWNER/REPOSITORY\" or \"ollama:NAME:TAG\"")
        })
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }
}

pub(super) struct Name;

pub(super) const fn name() -> Name {
    Name
}

impl Kind<String> for Name {
    fn read(&self, node: &Spanned<DeValue<'_>>) -> Result<String, Misfit> {
        let text = node.get_ref().as_str().filter(|text| is_name(text));
        text.map(str::to_owned).ok_or_else(|| Misfit::new(node, "a name without spaces"))
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }
}

pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// Whether the model `name` in the file `path` is what a source names.
pub(super) fn is_from(name: &str, path: &Path, source: &str) -> bool {
    let Some((scheme, rest)) = source.split_once(':') else { return false };
    let rest = rest.to_lowercase();
    let is_stored = path.components().any(|part| part.as_os_str() == "blobs");
    let name = name.to_lowercase();
    if scheme == "ollama" {
        return is_stored && untagged(&name) == untagged(&rest);
    }
    // OWNER/REPOSITORY, perhaps a revision, and perhaps a quantisation or a file.
    let (repository, wanted) = rest.split_once(':').map_or((rest.as_str(), None), |(a, b)| (a, Some(b)));
    let repository = repository.split_once('@').map_or(repository, |(repository, _)| repository);
    if is_stored {
        let tag = name.strip_prefix("hf.co/").and_then(|name| name.strip_prefix(repository)?.strip_prefix(':'));
        return tag.is_some_and(|tag| wanted.is_none_or(|wanted| tag == wanted));
    }
    let path = path.to_string_lossy().to_lowercase().replace('\\', "/");
    let in_cache = format!("/models--{}/", repository.replace('/', "--"));
    let is_there = path.contains(&in_cache) || path.contains(&format!("/{repository}/"));
    is_there && wanted.is_none_or(|wanted| path.rsplit('/').next().is_some_and(|file| file.contains(wanted)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_from;

    #[test]
    fn a_source_is_found_again_where_programs_keep_it() {
        for (name, path) in [
            ("phi-3", "/hub/models--Org--Phi-3-GGUF/snapshots/1/phi-3.Q4_K_M.gguf"),
            ("phi-3", "/home/me/.lmstudio/models/org/phi-3-gguf/phi-3.Q4_K_M.gguf"),
            ("hf.co/org/phi-3-gguf:q4_k_m", "/store/blobs/sha256-00"),
        ] {
            for source in ["hf:org/phi-3-GGUF", "hf:Org/phi-3-gguf:Q4_K_M", "hf:org/phi-3-gguf@main"] {
                assert!(is_from(name, Path::new(path), source), "{source} {path}");
            }
            for source in ["hf:org/phi-3-gguf:q8_0", "hf:org/phi-3", "ollama:phi-3", "hf:other/phi-3-gguf"] {
                assert!(!is_from(name, Path::new(path), source), "{source} {path}");
            }
        }
        let blob = Path::new("/store/blobs/sha256-00");
        assert!(is_from("llama3:8b", blob, "ollama:llama3:8b") && !is_from("llama3:8b", blob, "ollama:llama3"));
        assert!(is_from("llama3:latest", blob, "ollama:llama3"));
    }
}
