//! What no single setting shows: contradictions between them, and files that are not there.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::error::Problem;
use super::file::{Model, Settings};
use super::keys::{LoadSettings, NONE};
use super::setting::{Origin, Set};
use super::{Catalog, drafts};
use crate::chat::is_template_text;
use crate::gguf;
use crate::library::untagged;
use crate::runner::ModelSource;

/// Settings that exclude each other.
pub(super) fn contradictions(source: &str, settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut say = |span, message: String| problems.push(Problem::new(source, span, message));
    experts(&settings.load, &mut say);
    let mut taken: HashMap<String, &str> = HashMap::new();
    for model in settings.models.values() {
        taken.insert(untagged(&model.name.value), &model.name.value);
    }
    for model in settings.models.values() {
        experts(&model.load, &mut say);
        origins(model, &mut say);
        if base_goes_round(settings, model) {
            say(
                span(model.own.base.as_ref()),
                format!("the base of {0:?} is, in the end, {0:?} itself", model.name.value),
            );
        }
        for alias in model.own.alias.iter().flat_map(|set| &set.value) {
            if let Some(other) = taken.insert(untagged(alias), &model.name.value) {
                let whose = if untagged(other) == untagged(alias) {
                    "a model's name".into()
                } else {
                    format!("a name of {other:?}")
                };
                say(span(model.own.alias.as_ref()), format!("the alias {alias:?} is {whose} already"));
            }
        }
    }
    problems
}

fn experts(load: &LoadSettings, say: &mut impl FnMut(Range<usize>, String)) {
    if load.cpu_moe.as_ref().is_some_and(|set| set.value) && load.n_cpu_moe.is_some() {
        say(span(load.n_cpu_moe.as_ref()), "give `cpu_moe` or `n_cpu_moe`, not both".into());
    }
}

fn origins(model: &Model, say: &mut impl FnMut(Range<usize>, String)) {
    let own = &model.own;
    let given = [
        ("path", own.path.as_ref().map(|set| &set.origin)),
        ("source", own.source.as_ref().map(|set| &set.origin)),
        ("base", own.base.as_ref().map(|set| &set.origin)),
    ];
    let mut given = given.iter().filter_map(|(key, origin)| origin.map(|origin| (key, origin)));
    if let (Some((first, _)), Some((second, origin))) = (given.next(), given.next()) {
        say(
            bytes(origin),
            format!("give `{first}` or `{second}`, not both: each says which file {:?} is", model.name.value),
        );
    }
}

fn base_goes_round(settings: &Settings, model: &Model) -> bool {
    let mut at = model;
    // No chain is longer than there are models.
    for _ in 0..settings.models.len() {
        match at.own.base.as_ref().and_then(|base| settings.find(&base.value)) {
            Some(next) if std::ptr::eq(next, model) => return true,
            Some(next) => at = next,
            None => return false,
        }
    }
    false
}

/// Files that the settings name and that are not there, or are something else.
pub(super) fn files(source: &str, settings: &Settings, catalog: &Catalog) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut say = |span, message: String| problems.push(Problem::new(source, span, message));
    template(&settings.load, &mut say);
    draft(&settings.load, catalog, &mut say);
    projector(&settings.load, &mut say);
    for model in settings.models.values() {
        template(&model.load, &mut say);
        draft(&model.load, catalog, &mut say);
        projector(&model.load, &mut say);
        if let Some(path) = &model.own.path {
            match gguf::Header::open(&path.value) {
                Ok(header) if header.is_adapter() => {
                    let message =
                        format!("{} is an adapter, not a model; it goes into `adapters`", path.value.display());
                    say(bytes(&path.origin), message);
                }
                Ok(_) => {}
                Err(error) => say(bytes(&path.origin), error.to_string()),
            }
        }
        let planned = catalog.models.get(&model.name.value.to_lowercase()).map(|planned| &planned.spec.source);
        let base = match planned {
            Some(ModelSource::Gguf { path }) => gguf::Header::open(path).ok(),
            _ => None,
        };
        for adapter in model.own.adapters.iter().flat_map(|set| &set.value) {
            if let Err(message) = fits(&adapter.path, base.as_ref()) {
                say(span(model.own.adapters.as_ref()), message);
            }
        }
    }
    problems
}

/// Whether a file is an adapter, and one of this model where that is known.
fn fits(adapter: &Path, base: Option<&gguf::Header>) -> Result<(), String> {
    let header = gguf::Header::open(adapter).map_err(|error| error.to_string())?;
    if !header.is_adapter() {
        return Err(format!("{} is a model, not an adapter", adapter.display()));
    }
    base.map_or(Ok(()), |base| gguf::validate_adapter(&header, base).map_err(|error| error.to_string()))
}

fn template(load: &LoadSettings, say: &mut impl FnMut(Range<usize>, String)) {
    let Some(set) = &load.template else { return };
    if is_template_file(&set.value) && !Path::new(&set.value).is_file() {
        say(bytes(&set.origin), format!("{}: there is no such file", set.value));
    }
    #[cfg(feature = "llama")]
    if !is_template_text(&set.value)
        && !is_template_file(&set.value)
        && let Err(why) = crate::chat::is_builtin(&set.value)
    {
        say(bytes(&set.origin), why);
    }
}

fn draft(load: &LoadSettings, catalog: &Catalog, say: &mut impl FnMut(Range<usize>, String)) {
    let Some(set) = load.draft_model.as_ref().filter(|set| set.value != NONE) else { return };
    let found = catalog.draft_file(&set.value);
    if let Err(why) = found.and_then(|path| gguf::Header::open(&path).map_err(|error| error.to_string())) {
        say(bytes(&set.origin), why);
    }
}

fn projector(load: &LoadSettings, say: &mut impl FnMut(Range<usize>, String)) {
    let Some(set) = load.mmproj.as_ref().filter(|set| set.value != NONE) else { return };
    let header = gguf::Header::open(Path::new(&set.value));
    if let Err(error) = header.and_then(|header| gguf::validate_projector(&header)) {
        say(bytes(&set.origin), error.to_string());
    }
}

/// Whether a template's setting is neither a template nor a built-in one's name.
fn is_template_file(template: &str) -> bool {
    !is_template_text(template) && (template.contains(['/', '\\', '.']) || template.starts_with('~'))
}

/// Makes the paths of a file in the directory `dir` independent of where the program runs.
pub(super) fn locate(settings: &mut Settings, dir: &Path) {
    let in_dir = |path: &mut PathBuf| *path = resolve(path, dir);
    let files = |load: &mut LoadSettings| {
        let template = load.template.as_mut().filter(|set| is_template_file(&set.value));
        let draft = load.draft_model.as_mut().filter(|set| drafts::is_path(&set.value));
        let projector = load.mmproj.as_mut().filter(|set| set.value != NONE);
        for set in template.into_iter().chain(draft).chain(projector) {
            set.value = resolve(Path::new(&set.value), dir).to_string_lossy().into_owned();
        }
    };
    settings.server.model_dirs.iter_mut().flat_map(|set| &mut set.value).for_each(in_dir);
    settings.server.api_key_file.iter_mut().for_each(|set| in_dir(&mut set.value));
    files(&mut settings.load);
    for model in settings.models.values_mut() {
        files(&mut model.load);
        model.own.path.iter_mut().for_each(|set| in_dir(&mut set.value));
        model.own.adapters.iter_mut().flat_map(|set| &mut set.value).for_each(|adapter| in_dir(&mut adapter.path));
    }
}

/// `~` is the home directory, and what is relative is so to `dir`.
fn resolve(path: &Path, dir: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(below), Some(home)) => home.join(below),
        _ => dir.join(path),
    }
}

fn span<T>(set: Option<&Set<T>>) -> Range<usize> {
    set.map_or(0..0, |set| bytes(&set.origin))
}

pub(super) fn bytes(origin: &Origin) -> Range<usize> {
    match origin {
        Origin::File(span) => span.clone(),
        Origin::Option(_) | Origin::Variable(_) => 0..0,
    }
}
