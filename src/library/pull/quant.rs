//! Which files of a repository make up the model that is wanted.

use std::collections::BTreeMap;

use super::digest::Digest;
use super::error::PullError;
use crate::library::look::PROJECTOR_FORMATS;
use crate::library::name::quantisation_of;
use crate::library::shards::ShardName;

/// A file of a hub's repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RepoFile {
    pub path: String,
    pub size: u64,
    /// Files that the hub keeps in git itself have none.
    pub digest: Option<Digest>,
}

/// What is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// As the name's tag says it, e.g. `Q4_K_M`.
    pub label: String,
    /// All shards, in order.
    pub files: Vec<RepoFile>,
    /// What turns images into embeddings, where the repository has it.
    pub projector: Option<RepoFile>,
}

/// From what most machines run well to what few can; the first that is there is taken.
const PREFERRED: &[&str] = &[
    "Q4_K_M",
    "UD-Q4_K_XL",
    "Q4_K_S",
    "Q4_K_L",
    "Q4_0",
    "Q4_1",
    "IQ4_XS",
    "IQ4_NL",
    "MXFP4",
    "Q5_K_M",
    "Q5_K_S",
    "Q5_0",
    "Q5_1",
    "Q6_K",
    "Q8_0",
    "Q3_K_M",
    "Q3_K_L",
    "Q3_K_S",
    "Q2_K",
    "F16",
    "FP16",
    "BF16",
    "F32",
    "FP32",
];
/// A model in one file or several.
#[derive(Clone, Debug)]
struct Variant {
    label: Option<String>,
    /// Path without shard number and extension.
    stem: String,
    parts: BTreeMap<u32, RepoFile>,
    /// How many parts the names announce.
    total: u32,
}

pub(super) fn choose(repo: &str, files: &[RepoFile], wanted: Option<&str>) -> Result<Choice, PullError> {
    let (projectors, models): (Vec<&RepoFile>, Vec<&RepoFile>) = files
        .iter()
        .filter(|file| file.path.to_lowercase().ends_with(".gguf") && !file_name(&file.path).contains("imatrix"))
        .partition(|file| file_name(&file.path).to_lowercase().contains("mmproj"));
    let variants = variants(&models);
    if variants.is_empty() {
        let advice = "it has no .gguf file; look for a repository of the same model whose name ends in -GGUF".into();
        return Err(PullError::NotFound { what: format!("a GGUF model in {repo}"), advice });
    }
    let variant = match wanted {
        Some(wanted) => named(repo, &variants, wanted)?,
        None => preferred(repo, &variants)?,
    };
    if variant.parts.len() != variant.total as usize {
        let missing = (1..=variant.total).filter(|number| !variant.parts.contains_key(number));
        let missing: Vec<String> = missing.map(|number| format!("{number:05}")).collect();
        let what = format!("part {} of {} of {}", missing.join(", "), variant.total, variant.stem);
        return Err(PullError::NotFound {
            what,
            advice: format!("{repo} is not complete; choose another quantization"),
        });
    }
    Ok(Choice {
        label: distinct(variant, &variants),
        files: variant.parts.values().cloned().collect(),
        projector: projector(&projectors),
    })
}

/// What the chosen one is called in the store: the first of its names that no other variant has, or pulling two would
/// put one in the place of the other.
fn distinct(chosen: &Variant, all: &[Variant]) -> String {
    let is_own = |name: &&String| all.iter().filter(|one| labels_of_file(&one.stem).contains(name)).count() == 1;
    let names = labels_of_file(&chosen.stem);
    names.iter().find(is_own).unwrap_or(&names[2]).clone()
}

fn variants(files: &[&RepoFile]) -> Vec<Variant> {
    let mut found: BTreeMap<(String, u32), Variant> = BTreeMap::new();
    for file in files {
        let stem = &file.path[..file.path.len() - ".gguf".len()];
        let (whole, number, total) =
            ShardName::parse(stem).map_or((stem, 1, 1), |name| (name.front, name.number, name.total));
        let variant = found.entry((whole.to_owned(), total)).or_insert_with(|| Variant {
            label: label(whole),
            stem: whole.to_owned(),
            parts: BTreeMap::new(),
            total,
        });
        variant.parts.insert(number, (*file).clone());
    }
    found.into_values().collect()
}

/// What may tell a file from the others of its repository, the shortest first. `path` is without extension, with or without a
/// shard's number.
pub(super) fn labels_of_file(path: &str) -> [String; 3] {
    let whole = ShardName::parse(path).map_or(path, |name| name.front);
    let name = file_name(whole).to_owned();
    [label(whole).unwrap_or_else(|| name.clone()), name, whole.replace('/', "-")]
}

/// The quantisation that a path ends in, or that its directory is named after.
pub(super) fn label(stem: &str) -> Option<String> {
    let (dir, name) = stem.rsplit_once('/').unwrap_or(("", stem));
    label_of(name).or_else(|| label_of(file_name(dir)))
}

fn label_of(name: &str) -> Option<String> {
    let lower = name.to_lowercase();
    let quantisation = quantisation_of(&lower)?.to_uppercase();
    let is_dynamic = lower.strip_suffix(&quantisation.to_lowercase()).is_some_and(|front| front.ends_with("ud-"));
    Some(if is_dynamic { format!("UD-{quantisation}") } else { quantisation })
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// By label, or by the file's name with or without extension and shard number.
fn named<'a>(repo: &str, variants: &'a [Variant], wanted: &str) -> Result<&'a Variant, PullError> {
    let is_label =
        |variant: &&Variant| variant.label.as_deref().is_some_and(|label| label.eq_ignore_ascii_case(wanted));
    let has_file = |variant: &&Variant| {
        let files = variant.parts.values().map(|file| file_name(&file.path));
        let stems = files.clone().map(|file| &file[..file.len() - ".gguf".len()]);
        let mut names = files.chain(stems).chain([file_name(&variant.stem), variant.stem.as_str()]);
        names.any(|name| name.eq_ignore_ascii_case(wanted))
    };
    let mut found: Vec<&Variant> = variants.iter().filter(is_label).collect();
    if found.is_empty() {
        found = variants.iter().filter(has_file).collect();
    }
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(missing(repo, variants, format!("quantization or file {wanted:?}"))),
        several => Err(ambiguous(repo, several)),
    }
}

fn preferred<'a>(repo: &str, variants: &'a [Variant]) -> Result<&'a Variant, PullError> {
    if let [only] = variants {
        return Ok(only);
    }
    for label in PREFERRED {
        let found: Vec<&Variant> = variants.iter().filter(|variant| variant.label.as_deref() == Some(label)).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(one),
            several => return Err(ambiguous(repo, several)),
        }
    }
    Err(missing(repo, variants, "quantization that is a usual choice, so that one must be named".into()))
}

fn missing(repo: &str, variants: &[Variant], asked: String) -> PullError {
    let mut there: Vec<String> =
        variants.iter().map(|v| v.label.clone().unwrap_or_else(|| file_name(&v.stem).to_owned())).collect();
    there.sort();
    there.dedup();
    PullError::NoSuchQuantization { repo: repo.into(), asked, there }
}

fn ambiguous(repo: &str, several: &[&Variant]) -> PullError {
    let there = several.iter().map(|variant| file_name(&variant.stem).to_owned()).collect();
    let asked = "single model of that quantization; name the file behind the colon".into();
    PullError::NoSuchQuantization { repo: repo.into(), asked, there }
}

fn projector(projectors: &[&RepoFile]) -> Option<RepoFile> {
    let by_label = |wanted: &&str| {
        let stem = |file: &RepoFile| file.path[..file.path.len() - ".gguf".len()].to_uppercase();
        projectors.iter().find(|file| stem(file).split(['-', '.', '_', '/']).any(|part| part == *wanted))
    };
    let best = PROJECTOR_FORMATS.iter().find_map(by_label).or(projectors.first());
    best.map(|file| (*file).clone())
}

#[cfg(test)]
#[path = "quant_tests.rs"]
mod tests;
