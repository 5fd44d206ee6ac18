//! Models that guess ahead for others: from the name in a setting to a file.

use std::path::{Path, PathBuf};

use super::Catalog;
use crate::library::did_you_mean;
use crate::runner::ModelSource;

/// Whether a setting is the path of a file rather than a model's name.
pub(super) fn is_path(wanted: &str) -> bool {
    let is_gguf = Path::new(wanted).extension().is_some_and(|ext| ext.eq_ignore_ascii_case("gguf"));
    is_gguf || wanted.starts_with(['/', '.', '~'])
}

impl Catalog {
    /// The file that a setting means, a model's name or a path.
    pub(super) fn draft_file(&self, wanted: &str) -> Result<PathBuf, String> {
        if is_path(wanted) {
            return Ok(wanted.into());
        }
        let named = self.listed(wanted).and_then(|name| self.models.get(&name));
        match named.map(|model| &model.spec.source) {
            Some(ModelSource::Gguf { path }) => Ok(path.clone()),
            Some(ModelSource::Absent { why }) => Err(why.clone()),
            Some(ModelSource::Stub(_)) => Err(format!("{wanted:?} is no file")),
            None => {
                let near = did_you_mean(wanted, self.models.keys().map(String::as_str));
                Err(format!("there is no model {wanted:?} on this machine that could draft{near}"))
            }
        }
    }

    /// Gives each model the file of the one that drafts for it, which may be one of `others`. None drafts for itself.
    pub(super) fn find_drafts(&mut self, others: Option<&Self>) {
        let asked = self.models.iter().filter_map(|(name, model)| Some((name.clone(), model.draft.clone()?)));
        for (name, wanted) in asked.collect::<Vec<_>>() {
            let found = others.unwrap_or(self).draft_file(&wanted);
            let Some(model) = self.models.get_mut(&name) else { continue };
            match found {
                Ok(path) if model.spec.source == (ModelSource::Gguf { path: path.clone() }) => {}
                Ok(path) => model.spec.draft = Some(path),
                // It is not run without what was asked for.
                Err(why) => model.spec.source = ModelSource::Absent { why },
            }
        }
    }
}
