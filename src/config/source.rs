//! Names of models, and of the places that they are fetched from.

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
        return model.own_names().any(|name| source.is_stored_as(name));
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
    use crate::config::{Asked, Config, File, parse};
    use crate::gguf::writer::tiny_llama;
    use crate::library::own_models;
    use crate::library::pull::{LayerKind, Recipe, Source, Store, make};
    use crate::runner::ModelSource;

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

    /// One that goes by the family's name as long as it is alone is another model than the one that is asked for.
    #[test]
    fn a_source_is_not_taken_for_the_only_one_of_its_family() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::new(dir.path().into());
        let weights = store.add_blob(LayerKind::Model, &tiny_llama().to_bytes()).expect("written").digest;
        let recipe = Recipe { files: [("m.gguf".to_owned(), weights)].into(), ..Recipe::default() };
        make(&store, &"tiny:8b".parse().expect("a name"), &recipe, &mut |_| {}).expect("made");
        let found = own_models(store.root());
        assert!(found[0].aliases.contains(&"registry.ollama.ai/library/tiny".into()), "{:?}", found[0].aliases);
        for (source, is_there) in [("tiny:8b", true), ("Library/tiny:8b", true), ("tiny", false)] {
            let settings = parse(&format!("[models.m]\nsource = 'ollama:{source}'\n")).expect("right");
            let config = Config { asked: Asked::default(), file: File { settings, ..File::default() } };
            let catalog = config.catalog_of(found.clone());
            let is_absent = matches!(catalog.models["m"].spec.source, ModelSource::Absent { .. });
            assert_eq!(is_absent, !is_there, "{source}");
        }
    }
}
