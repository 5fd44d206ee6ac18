//! Looks at all places and puts together what lies there.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::gguf::Header;

use super::facts::Capability;
use super::found::{Found, Library, OllamaLayers, Part, PartKind, Problem};
use super::hub;
use super::look::{self, Look, Model};
use super::name::{self, Wishes};
use super::naming::{Named, Nameless, assign};
use super::notes::{Notes, Seen};
use super::ollama_store;
use super::pair::{Base, bases_of, projector_for};
use super::places::{Kind, SearchPath};
use super::shards::{self, Group};
use super::walk::{self, File, FileId};

/// A file, or several shards, that may be a model.
struct Candidate {
    place: usize,
    because: &'static str,
    group: Group,
    wishes: Wishes,
    /// What the place itself says belongs to it.
    projector: Option<File>,
    layers: Option<OllamaLayers>,
}

/// The models in these places, by name. The log says what could not be used.
#[must_use]
pub fn discover(paths: &[SearchPath]) -> Vec<Found> {
    survey(paths).models
}

/// All that lies in these places. Nothing is copied or changed, and of each file the header alone is read.
#[must_use]
pub fn survey(paths: &[SearchPath]) -> Library {
    let mut notes = Notes::default();
    let candidates = collect(paths, &mut notes);
    let looks = look_at(&candidates);
    let library = Library { seen: notes.seen, ..put_together(candidates, &looks, notes.problems) };
    log(&library.problems);
    library
}

/// The models of the store in `dir`.
#[must_use]
pub fn own_models(dir: &Path) -> Vec<Found> {
    discover(&[SearchPath { dir: dir.to_owned(), because: "shimmy's own folder", kind: Kind::Ollama }])
}

/// What one file is, with its later shards, wherever it lies.
///
/// # Errors
/// Why it is no model that can be used.
pub fn examine(path: &Path) -> Result<Found, Problem> {
    let problem = |what: String| Problem { path: path.to_owned(), what };
    let file = File::at(path.to_owned()).ok_or_else(|| problem("no such file".into()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut siblings = vec![file];
    if let Some(shard) = shards::ShardName::parse(&path.file_stem().unwrap_or_default().to_string_lossy()) {
        let others = (1..=shard.total.min(MAX_SHARDS)).filter(|number| *number != shard.number);
        siblings.extend(others.filter_map(|number| File::at(folder.join(shard.file(number, "gguf")))));
    }
    let group = shards::group(siblings).into_iter().find(|group| group.files.iter().any(|file| file.path == path));
    let group = group.ok_or_else(|| problem("no such file".into()))?;
    let wishes = name::of_file(path, folder);
    match look::look(&group) {
        Look::Model(model) => {
            let nameless = Nameless { place: 0, path, wishes: &wishes };
            let named = assign(&[nameless]).into_iter().next().unwrap_or_default();
            let found = found(named, "the path given", &group, *model);
            Ok(with_projector(found, path, folder))
        }
        Look::Projector(_) => Err(problem("is a projector for images (mmproj), not a language model".into())),
        Look::Adapter(_) => Err(problem("is a LoRA adapter, not a model; give it with --lora".into())),
        Look::Unusable(what) => Err(problem(what)),
    }
}

/// With what lies in its folder for it, as a look at the whole folder pairs them.
fn with_projector(mut model: Found, path: &Path, folder: &Path) -> Found {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let is_projector = |name: &str| name.to_lowercase().contains("mmproj");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    if !entries.into_iter().any(|entry| entry.file_name().to_str().is_some_and(is_projector)) {
        return model;
    }
    let (Some(file), here) = (File::at(path.to_owned()), Kind::Files { depth: 1 }) else { return model };
    let all = discover(&[SearchPath { dir: folder.to_owned(), because: "the path given", kind: here }]);
    let same = all.into_iter().find(|other| File::at(other.path.clone()).is_some_and(|other| other.id == file.id));
    if let Some(found) = same {
        model.facts.set(Capability::Vision, found.facts.can(Capability::Vision));
        model.projector = found.projector;
    }
    model
}

/// As many as llama.cpp can count.
const MAX_SHARDS: u32 = u16::MAX as u32;

fn found(named: Named, because: &'static str, group: &Group, model: Model) -> Found {
    let Named { name, aliases, lasting } = named;
    Found {
        name,
        aliases,
        lasting,
        path: group.first().path.clone(),
        size_bytes: group.bytes(),
        because,
        facts: model.facts,
        shards: group.shards.clone(),
        projector: None,
        adapters: Vec::new(),
        ollama: None,
    }
}

fn collect(paths: &[SearchPath], notes: &mut Notes) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut seen: HashMap<FileId, usize> = HashMap::new();
    for (place, SearchPath { dir, because, kind }) in paths.iter().enumerate() {
        notes.seen.note(dir);
        let is_store = matches!(kind, Kind::Ollama | Kind::Own) || ollama_store::is_store(dir);
        let stored = if is_store { ollama_store::models(dir, notes) } else { Vec::new() };
        candidates.extend(stored.into_iter().map(|model| Candidate {
            place,
            because,
            group: model.weights,
            wishes: name::of_tagged(&model.name, model.longer),
            projector: model.projector,
            layers: Some(model.layers),
        }));
        let Some(depth) = kind.depth() else { continue };
        let files = walk::gguf_files(dir, depth, is_store, notes);
        for group in hub::newest_revisions(shards::group(files), &mut notes.seen) {
            if !group.has_first {
                let lack = group.shards.as_ref().and_then(super::found::Shards::lack).unwrap_or_default();
                notes.problems.push(Problem { path: group.first().path.clone(), what: lack });
                continue;
            }
            let wishes = name::of_file(&group.first().path, dir);
            // The same file under another name is the same model.
            if let Some(&at) = seen.get(&group.first().id) {
                let known: &mut Candidate = &mut candidates[at];
                known.wishes.exact.extend(std::iter::once(wishes.name).chain(wishes.exact));
                continue;
            }
            seen.insert(group.first().id.clone(), candidates.len());
            candidates.push(Candidate { place, because, group, wishes, projector: None, layers: None });
        }
    }
    candidates
}

/// Reads each file once, however many names it has.
fn look_at(candidates: &[Candidate]) -> HashMap<FileId, Look> {
    let mut once: HashMap<&FileId, &Group> = HashMap::new();
    for candidate in candidates {
        once.entry(&candidate.group.first().id).or_insert(&candidate.group);
    }
    once.into_par_iter().map(|(id, group)| (id.clone(), look::look(group))).collect()
}

/// A candidate that is a model.
struct Draft<'a> {
    candidate: &'a Candidate,
    model: &'a Model,
    base: Base<'a>,
}

fn put_together(candidates: Vec<Candidate>, looks: &HashMap<FileId, Look>, mut problems: Vec<Problem>) -> Library {
    let mut drafts = Vec::new();
    let mut projectors = Vec::new();
    let mut adapters = Vec::new();
    for candidate in &candidates {
        let first = candidate.group.first();
        match &looks[&first.id] {
            Look::Model(model) => {
                let base = Base::new(&first.path, &model.facts.architecture, model.width, &model.titles);
                drafts.push(Draft { candidate, model, base });
            }
            Look::Projector(projector) => projectors.push((first, *projector)),
            Look::Adapter(header) => adapters.push((first, header.as_ref())),
            Look::Unusable(what) => problems.push(Problem { path: first.path.clone(), what: what.clone() }),
        }
    }
    let nameless: Vec<_> = drafts
        .iter()
        .map(|Draft { candidate, .. }| Nameless {
            place: candidate.place,
            path: &candidate.group.first().path,
            wishes: &candidate.wishes,
        })
        .collect();
    let mut models: Vec<Found> = assign(&nameless)
        .into_iter()
        .zip(&drafts)
        .map(|(named, draft)| {
            let Draft { candidate, model, .. } = draft;
            let model = Model { facts: model.facts.clone(), width: None, titles: Vec::new() };
            let mut model = found(named, candidate.because, &candidate.group, model);
            model.ollama.clone_from(&candidate.layers);
            model
        })
        .collect();

    let mut parts: BTreeMap<PathBuf, Part> = BTreeMap::new();
    pair_projectors(&drafts, &projectors, &mut models, &mut parts);
    pair_adapters(&drafts, &adapters, &mut models, &mut parts);
    let disk_bytes = disk_bytes(&drafts, &parts);
    models.sort_by(|a, b| a.name.cmp(&b.name));
    problems.sort_by(|a, b| a.path.cmp(&b.path));
    Library { models, parts: parts.into_values().collect(), problems, disk_bytes, seen: Seen::default() }
}

fn part<'a>(parts: &'a mut BTreeMap<PathBuf, Part>, file: &File, kind: PartKind) -> &'a mut Part {
    parts.entry(file.path.clone()).or_insert_with(|| Part {
        path: file.path.clone(),
        kind,
        size_bytes: file.bytes,
        models: Vec::new(),
    })
}

fn pair_projectors(
    drafts: &[Draft],
    projectors: &[(&File, look::Projector)],
    models: &mut [Found],
    parts: &mut BTreeMap<PathBuf, Part>,
) {
    for (file, _) in projectors {
        part(parts, file, PartKind::Projector);
    }
    let at_path: Vec<_> = projectors.iter().map(|(file, projector)| (file.path.as_path(), *projector)).collect();
    let bases: Vec<&Base> = drafts.iter().map(|draft| &draft.base).collect();
    for (draft, model) in drafts.iter().zip(models) {
        let (file, sees) = match &draft.candidate.projector {
            Some(file) => (file, true),
            None => match projector_for(&draft.base, &bases, &at_path) {
                Some(at) => (projectors[at].0, projectors[at].1.sees),
                None => continue,
            },
        };
        part(parts, file, PartKind::Projector).models.push(model.name.clone());
        model.projector = Some(file.path.clone());
        if sees {
            model.facts.set(Capability::Vision, true);
        }
    }
}

fn pair_adapters(
    drafts: &[Draft],
    adapters: &[(&File, &Header)],
    models: &mut [Found],
    parts: &mut BTreeMap<PathBuf, Part>,
) {
    let bases: Vec<&Base> = drafts.iter().map(|draft| &draft.base).collect();
    for (file, header) in adapters {
        let part = part(parts, file, PartKind::Adapter);
        for at in bases_of(header, &bases) {
            part.models.push(models[at].name.clone());
            models[at].adapters.push(file.path.clone());
        }
    }
    // Those that Ollama's manifests name are part of their model.
    for model in models {
        for path in model.ollama.iter().flat_map(|layers| &layers.adapters) {
            if let Some(file) = File::at(path.clone()) {
                part(parts, &file, PartKind::Adapter).models.push(model.name.clone());
            }
        }
    }
}

fn disk_bytes(drafts: &[Draft], parts: &BTreeMap<PathBuf, Part>) -> u64 {
    let weights = drafts.iter().flat_map(|draft| draft.candidate.group.files.iter().cloned());
    let others = parts.keys().filter_map(|path| File::at(path.clone()));
    weights.chain(others).map(|file| (file.id, file.bytes)).collect::<HashMap<_, _>>().values().sum()
}

/// A folder full of other files should not fill the log, and another user's folder is no surprise.
fn log(problems: &[Problem]) {
    const SHOWN: usize = 5;
    let (folders, files): (Vec<_>, Vec<_>) = problems.iter().partition(|problem| problem.path.is_dir());
    for Problem { path, what } in folders {
        tracing::debug!(path = %path.display(), "{what}");
    }
    for Problem { path, what } in files.iter().take(SHOWN) {
        tracing::warn!(path = %path.display(), "not a usable model: {what}");
    }
    if files.len() > SHOWN {
        tracing::warn!("{} more files could not be used; `shimmy discover` lists them", files.len() - SHOWN);
    }
}
