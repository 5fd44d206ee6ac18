//! Names of models, and of the places that they are fetched from.

use std::iter;
use std::path::Path;

use toml::Spanned;
use toml::de::DeValue;

use super::kinds::{Kind, Misfit, quoted};
use crate::library::Found;
use crate::library::pull::{self, HubSource};

/// What a source may begin with.
pub(super) const SCHEMES: [&str; 2] = ["hf:", "ollama:"];

pub(super) struct Source;

pub(super) const fn source() -> Source {
    Source
}

impl Kind<String> for Source {
    fn read(&self, node: &Spanned<DeValue<'_>>) -> Result<String, Misfit> {
        let has_scheme = |text: &str| SCHEMES.iter().any(|scheme| text.strip_prefix(scheme).is_some_and(is_name));
        let is_source = |text: &&str| has_scheme(text) && text.parse::<pull::Source>().is_ok();
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

/// Whether this model is what a source names.
pub(super) fn is_from(model: &Found, source: &str) -> bool {
    let Ok(source) = source.parse::<pull::Source>() else { return false };
    if model.ollama.is_some() {
        return iter::once(&model.name).chain(&model.aliases).any(|name| source.is_stored_as(name));
    }
    matches!(source, pull::Source::Hub(source) if is_in_cache(&model.path, &source))
}

/// Whether the hub's own tools or LM Studio keep what the source names in this file.
fn is_in_cache(path: &Path, source: &HubSource) -> bool {
    let repository = source.repo.to_lowercase();
    let path = path.to_string_lossy().to_lowercase().replace('\\', "/");
    let in_cache = format!("/models--{}/", repository.replace('/', "--"));
    let is_there = path.contains(&in_cache) || path.contains(&format!("/{repository}/"));
    let file = path.rsplit('/').next().unwrap_or_default();
    is_there && source.wanted.as_ref().is_none_or(|wanted| file.contains(&wanted.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_in_cache;
    use crate::library::pull::Source;

    #[test]
    fn a_source_is_found_again_where_programs_keep_it() {
        for path in [
            "/hub/models--Org--Phi-3-GGUF/snapshots/1/phi-3.Q4_K_M.gguf",
            "/home/me/.lmstudio/models/org/phi-3-gguf/phi-3.Q4_K_M.gguf",
        ] {
            let is_there = |source: &str| {
                let Ok(Source::Hub(source)) = source.parse() else { panic!("{source} is one of the hub's") };
                is_in_cache(Path::new(path), &source)
            };
            for source in ["hf:org/phi-3-GGUF", "hf:Org/phi-3-gguf:Q4_K_M", "hf:org/phi-3-gguf@main"] {
                assert!(is_there(source), "{source} {path}");
            }
            for source in ["hf:org/phi-3-gguf:q8_0", "hf:org/phi-3", "hf:other/phi-3-gguf"] {
                assert!(!is_there(source), "{source} {path}");
            }
        }
    }
}
