//! Finds the models that a projector or a LoRA adapter belongs to.

use std::cell::OnceCell;
use std::path::Path;

use crate::gguf::{self, Header};

use super::look::{Projector, titles};
use super::name::name_from_path;

/// A model, as far as pairing goes.
#[derive(Debug)]
pub(super) struct Base<'a> {
    pub path: &'a Path,
    pub architecture: &'a str,
    pub width: Option<u64>,
    /// Names that it is known by: of file, repository and header.
    known_as: Vec<String>,
    header: OnceCell<Option<Header>>,
}

impl<'a> Base<'a> {
    pub fn new(path: &'a Path, architecture: &'a str, width: Option<u64>, titles: &[String]) -> Self {
        let repository = super::hub::InRepository::of(path).map(|place| place.repository);
        let old = name_from_path(path);
        let known_as = titles.iter().chain(repository.iter()).chain([&old]).map(|name| letters(name)).collect();
        Self { path, architecture, width, known_as, header: OnceCell::new() }
    }

    fn is_called(&self, name: &str) -> bool {
        let name = letters(name);
        !name.is_empty() && self.known_as.contains(&name)
    }

    /// In the same folder, or in one right above or below.
    fn is_near(&self, path: &Path) -> bool {
        let (Some(mine), Some(its)) = (self.path.parent(), path.parent()) else { return false };
        mine == its || mine.parent() == Some(its) || its.parent() == Some(mine)
    }

    fn header(&self) -> Option<&Header> {
        self.header.get_or_init(|| Header::skim(self.path).ok()).as_ref()
    }
}

/// `Llama 3.2 1B`, `me/Llama-3.2-1B-GGUF` and `llama-3.2-1b` are `llama321b`.
fn letters(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name).to_lowercase();
    let bare = last.strip_suffix("-gguf").unwrap_or(&last);
    bare.chars().filter(|c| c.is_alphanumeric()).collect()
}

/// A projector's path with what its header says.
pub(super) type AtPath<'a> = (&'a Path, Projector);

/// The best of `projectors` for the model, by its number.
pub(super) fn projector_for(base: &Base, bases: &[&Base], projectors: &[AtPath]) -> Option<usize> {
    let scored = projectors.iter().enumerate().filter_map(|(at, (path, projector))| {
        let score = fit(base, bases, path, projector)?;
        Some((std::cmp::Reverse(score), !projector.sees, projector.rank, *path, at))
    });
    scored.min().map(|best| best.4)
}

/// How sure it is that they belong together. The same width is needed; beyond that the projector's name counts, and
/// whether there is anything else nearby that it could belong to.
fn fit(base: &Base, bases: &[&Base], path: &Path, projector: &Projector) -> Option<u32> {
    let widths = projector.width.zip(base.width);
    if !base.is_near(path) || widths.is_some_and(|(its, mine)| its != mine) {
        return None;
    }
    let said = name_from_path(path).replace("mmproj", "");
    let says_nothing = ["", "model"].contains(&letters(&said).as_str());
    if !says_nothing && base.is_called(&said) {
        return Some(3);
    }
    if says_nothing && widths.is_some() {
        return Some(2);
    }
    let family = name_from_path(base.path);
    let mut near = bases.iter().filter(|other| other.is_near(path));
    near.all(|other| name_from_path(other.path) == family).then_some(1)
}

/// The models that the adapter fits: those that its header names as its base, or else those nearby. Its tensors must fit
/// theirs either way.
pub(super) fn bases_of(adapter: &Header, bases: &[&Base]) -> Vec<usize> {
    let named = titles(adapter, &["general.base_model.0.name", "general.base_model.0.repo_url"]);
    let same: Vec<usize> = (0..bases.len()).filter(|at| bases[*at].architecture == adapter.architecture()).collect();
    let fitting = |wanted: &dyn Fn(&Base) -> bool| -> Vec<usize> {
        let fits = |base: &Base| {
            wanted(base) && base.header().is_some_and(|header| gguf::validate_adapter(adapter, header).is_ok())
        };
        same.iter().copied().filter(|at| fits(bases[*at])).collect()
    };
    let by_name = fitting(&|base| named.iter().any(|name| base.is_called(name)));
    if by_name.is_empty() { fitting(&|base| base.is_near(adapter.path())) } else { by_name }
}
