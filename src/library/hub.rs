//! The layout of Hugging Face's cache: `models--OWNER--NAME/snapshots/REVISION/FILE`, where files are links to blobs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::notes::Seen;
use super::shards::Group;

/// Where a file lies in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InRepository {
    /// `OWNER/NAME`, or the name alone.
    pub repository: String,
    pub revision: String,
    /// Folder of the repository.
    root: PathBuf,
    /// Within the revision.
    inside: PathBuf,
}

impl InRepository {
    pub fn of(path: &Path) -> Option<Self> {
        let root = path.ancestors().find(|above| folder_repository(above).is_some())?;
        let mut below = path.strip_prefix(root).ok()?.components();
        let (snapshots, revision) = (below.next()?, below.next()?);
        let inside = below.as_path();
        let repository = folder_repository(root)?;
        (snapshots.as_os_str() == "snapshots" && !inside.as_os_str().is_empty()).then(|| Self {
            repository,
            revision: revision.as_os_str().to_string_lossy().into_owned(),
            root: root.to_owned(),
            inside: inside.to_owned(),
        })
    }

    /// The file that says at which revision the branch `main` is.
    fn main(&self) -> PathBuf {
        self.root.join("refs/main")
    }

    /// Whether the branch `main` is at this revision.
    fn is_main(&self) -> bool {
        std::fs::read_to_string(self.main()).is_ok_and(|main| main.trim() == self.revision)
    }

    fn written(&self) -> Option<SystemTime> {
        self.root.join("snapshots").join(&self.revision).metadata().ok()?.modified().ok()
    }
}

fn folder_repository(folder: &Path) -> Option<String> {
    let id = folder.file_name()?.to_str()?.strip_prefix("models--")?;
    (!id.is_empty()).then(|| id.replacen("--", "/", 1))
}

/// Of a file that several revisions have, the one of `main` stays, or else the newest; one with all of its parts goes
/// before either.
pub(super) fn newest_revisions(groups: Vec<Group>, seen: &mut Seen) -> Vec<Group> {
    let mut roots = BTreeSet::new();
    let mut best: BTreeMap<(PathBuf, PathBuf), (Group, InRepository)> = BTreeMap::new();
    let mut kept = Vec::new();
    for group in groups {
        let Some(place) = InRepository::of(&group.first().path) else {
            kept.push(group);
            continue;
        };
        if roots.insert(place.root.clone()) {
            seen.note(&place.main());
        }
        let rank = |group: &Group, place: &InRepository| {
            (group.is_whole(), place.is_main(), place.written(), place.revision.clone())
        };
        let key = (place.root.clone(), place.inside.clone());
        match best.get(&key) {
            Some((other, its)) if rank(other, its) >= rank(&group, &place) => {}
            _ => {
                best.insert(key, (group, place));
            }
        }
    }
    kept.extend(best.into_values().map(|(group, _)| group));
    kept.sort_by(|a, b| a.first().path.cmp(&b.first().path));
    kept
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{InRepository, newest_revisions};
    use crate::library::notes::Notes;
    use crate::library::shards::group;
    use crate::library::walk::gguf_files;

    #[test]
    fn a_path_tells_repository_and_revision() {
        let of = |path: &str| InRepository::of(Path::new(path)).map(|place| (place.repository, place.revision));
        let expected = Some(("me/My--Model".to_owned(), "abc".to_owned()));
        assert_eq!(of("/hub/models--me--My--Model/snapshots/abc/Q4/m.gguf"), expected);
        assert_eq!(of("/hub/models--gpt2/snapshots/abc/m.gguf"), Some(("gpt2".to_owned(), "abc".to_owned())));
        for other in ["/hub/models--me--m/blobs/abc/m.gguf", "/hub/models--/snapshots/a/m.gguf", "/hub/m.gguf"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn the_revision_of_main_is_shown_and_others_files_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("models--me--m");
        for (revision, file) in
            [("zz", "m.gguf"), ("aa", "m.gguf"), ("zz", "old.gguf"), ("aa", "s-00001-of-00002.gguf")]
        {
            let folder = root.join("snapshots").join(revision);
            std::fs::create_dir_all(&folder).expect("created");
            std::fs::write(folder.join(file), "x").expect("written");
        }
        for shard in ["s-00001-of-00002.gguf", "s-00002-of-00002.gguf"] {
            std::fs::write(root.join("snapshots/zz").join(shard), "x").expect("written");
        }
        std::fs::create_dir(root.join("refs")).expect("created");
        std::fs::write(root.join("refs/main"), "aa\n").expect("written");
        let mut notes = Notes::default();
        let groups = newest_revisions(group(gguf_files(dir.path(), 8, false, &mut notes)), &mut notes.seen);
        let paths: Vec<_> = groups
            .iter()
            .map(|group| group.first().path.strip_prefix(root.join("snapshots")).expect("below").display().to_string())
            .collect();
        assert_eq!(paths, ["aa/m.gguf", "zz/old.gguf", "zz/s-00001-of-00002.gguf"]);
    }
}
