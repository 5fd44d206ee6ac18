//! Finds GGUF files in folders: through links, without going round in circles, and without opening anything.

use std::collections::HashSet;
use std::fs::{DirEntry, Metadata};
use std::path::{Path, PathBuf};

use super::found::Problem;
use super::notes::Notes;
use super::ollama_store;

/// A folder by mistake, such as a whole disk, is left after this many entries.
const MAX_ENTRIES: usize = 500_000;

/// What tells two files apart, whatever they are called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId(#[cfg(unix)] (u64, u64), #[cfg(not(unix))] PathBuf);

impl FileId {
    #[cfg(unix)]
    fn new(_: &Path, metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self((metadata.dev(), metadata.ino()))
    }

    #[cfg(not(unix))]
    fn new(path: &Path, _: &Metadata) -> Self {
        Self(path.canonicalize().unwrap_or_else(|_| path.to_owned()))
    }
}

/// A regular file, or a link to one.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub path: PathBuf,
    pub id: FileId,
    pub bytes: u64,
}

impl File {
    /// `None` for anything but a regular file.
    pub fn at(path: PathBuf) -> Option<Self> {
        let metadata = path.metadata().ok().filter(Metadata::is_file)?;
        Some(Self { id: FileId::new(&path, &metadata), bytes: metadata.len(), path })
    }
}

/// A folder that is still to be looked into.
struct Ahead {
    path: PathBuf,
    is_link: bool,
}

/// GGUF files below `dir`, or `dir` itself where it is one. Each folder is entered once, by the shortest way, and by its
/// own name rather than by a link. What a store keeps in folders of its own is left out; `dir` may be one that was not written to
/// yet, which does not show.
pub(super) fn gguf_files(dir: &Path, depth: usize, is_store: bool, notes: &mut Notes) -> Vec<File> {
    let store = is_store.then_some(dir);
    let mut files: Vec<File> = File::at(dir.to_owned()).into_iter().filter(|file| is_gguf(&file.path)).collect();
    let mut entered = HashSet::new();
    let mut left = MAX_ENTRIES;
    let mut level = vec![Ahead { path: dir.to_owned(), is_link: false }];
    for _ in 0..depth {
        level.sort_by(|a, b| (a.is_link, &a.path).cmp(&(b.is_link, &b.path)));
        let mut next = Vec::new();
        for Ahead { path, .. } in level {
            let is_new = path.metadata().is_ok_and(|metadata| entered.insert(FileId::new(&path, &metadata)));
            if !is_new {
                continue;
            }
            notes.seen.note(&path);
            match std::fs::read_dir(&path) {
                Ok(entries) => {
                    for entry in entries.flatten().take(left) {
                        left -= 1;
                        sort_out(&entry, store, &mut files, &mut next);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {}
                Err(error) => notes.problems.push(Problem { path, what: format!("cannot be read: {error}") }),
            }
        }
        level = next;
    }
    files.iter().for_each(|file| notes.seen.note(&file.path));
    if left == 0 {
        let what = format!("more than {MAX_ENTRIES} entries; what lies beyond was not looked at");
        notes.problems.push(Problem { path: dir.to_owned(), what });
    }
    files
}

/// Links that lead nowhere or back to themselves are passed over, and so is what is neither file nor folder.
fn sort_out(entry: &DirEntry, store: Option<&Path>, files: &mut Vec<File>, next: &mut Vec<Ahead>) {
    let Ok(kind) = entry.file_type() else { return };
    let path = entry.path();
    if is_gguf(&path)
        && (kind.is_file() || kind.is_symlink())
        && let Some(file) = File::at(path.clone())
    {
        files.push(file);
        return;
    }
    let is_link = kind.is_symlink();
    if (kind.is_dir() || (is_link && path.is_dir())) && !is_beside_the_point(&path, store) {
        next.push(Ahead { path, is_link });
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// Folders that hold no names of models: of a hub's cache, and of a store in Ollama's form.
fn is_beside_the_point(folder: &Path, store: Option<&Path>) -> bool {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let in_repository = || folder.parent().is_some_and(|parent| name(parent).starts_with("models--"));
    let in_store = || folder.parent().is_some_and(|parent| store == Some(parent) || ollama_store::is_store(parent));
    match name(folder).as_str() {
        "blobs" | "refs" | ".no_exist" if in_repository() => true,
        ".git" | ".locks" => true,
        own if ollama_store::FOLDERS.contains(&own) => in_store(),
        other => other.starts_with("datasets--") || other.starts_with("spaces--"),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use super::gguf_files;
    use crate::library::notes::Notes;

    fn names(dir: &Path) -> (Vec<String>, Vec<String>) {
        let mut notes = Notes::default();
        let mut files = gguf_files(dir, 8, false, &mut notes);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let name = |path: &Path| path.strip_prefix(dir).expect("below").display().to_string();
        (
            files.iter().map(|file| name(&file.path)).collect(),
            notes.problems.iter().map(|found| name(&found.path)).collect(),
        )
    }

    #[test]
    fn links_are_followed_but_not_in_circles() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for folder in ["a", "b", "a/blobs"] {
            fs::create_dir(at(folder)).expect("created");
        }
        for file in ["a/one.gguf", "b/two.GGUF", "b/three.txt", "a/blobs/four.gguf"] {
            fs::write(at(file), "x").expect("written");
        }
        symlink(dir.path(), at("a/up")).expect("linked");
        symlink(at("b"), at("a/other")).expect("linked");
        symlink(at("a"), at("b/other")).expect("linked");
        symlink("nowhere.gguf", at("dangling.gguf")).expect("linked");
        symlink("self.gguf", at("self.gguf")).expect("linked");
        symlink("a/one.gguf", at("link.gguf")).expect("linked");
        let (files, problems) = names(dir.path());
        assert_eq!(files, ["a/blobs/four.gguf", "a/one.gguf", "b/two.GGUF", "link.gguf"]);
        assert!(problems.is_empty(), "{problems:?}");
    }

    /// Each folder links to all others: without the memory of where we were, eight levels of 30 folders are more than 10¹¹ paths.
    #[test]
    fn folders_that_all_link_to_each_other_are_entered_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = |n: usize| dir.path().join(format!("d{n:02}"));
        for n in 0..30 {
            fs::create_dir(folder(n)).expect("created");
            fs::write(folder(n).join("m.gguf"), "x").expect("written");
        }
        for from in 0..30 {
            for to in 0..30 {
                symlink(folder(to), folder(from).join(format!("to{to:02}"))).expect("linked");
            }
        }
        let found = names(dir.path()).0;
        assert_eq!(found.len(), 30);
        assert_eq!(found[29], "d29/m.gguf", "by the shortest way");
    }

    #[test]
    fn what_is_no_file_is_passed_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(at("pipe.gguf")).status().expect("mkfifo");
        assert!(made.success());
        let _socket = UnixListener::bind(at("socket.gguf")).expect("bound");
        symlink("/dev/zero", at("device.gguf")).expect("linked");
        fs::create_dir(at("folder.gguf")).expect("created");
        fs::write(at("folder.gguf/real.gguf"), "x").expect("written");
        assert_eq!(names(dir.path()).0, ["folder.gguf/real.gguf"]);
        let refused = crate::gguf::Header::open(&at("pipe.gguf")).expect_err("no file").to_string();
        assert!(refused.contains("is a pipe, socket or device"), "{refused}");
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_told_and_the_rest_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let closed = dir.path().join("closed");
        fs::create_dir(&closed).expect("created");
        fs::write(dir.path().join("open.gguf"), "x").expect("written");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("closed");
        let is_root = fs::read_dir(&closed).is_ok();
        let (files, problems) = names(dir.path());
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("opened");
        assert_eq!(files, ["open.gguf"]);
        assert!(is_root || problems == ["closed"], "{problems:?}");
    }
}
