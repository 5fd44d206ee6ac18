//! Which keys are right at the moment.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::SystemTime;

use subtle::Choice;

use super::error::AccessError;
use super::key::{ApiKey, KeyHash};
use super::key_file::{KeyFile, KeyFileError, NamedKey};

/// What stands for the name of a key that has none.
const FROM_OPTIONS: &str = "--api-key";

#[derive(Debug)]
pub(super) struct Keys {
    given: Vec<KeyHash>,
    file: Option<WatchedFile>,
    /// Set by the first key there is, and never taken back: nobody opens a server by emptying a file.
    required: AtomicBool,
}

#[derive(Debug)]
struct WatchedFile {
    path: PathBuf,
    state: RwLock<FileState>,
}

#[derive(Debug)]
struct FileState {
    stamp: Option<Stamp>,
    keys: Vec<NamedKey>,
}

/// Differs where a file was written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let facts = fs::metadata(path).ok()?;
        Some(Self { modified: facts.modified().ok(), bytes: facts.len(), inode: inode(&facts) })
    }
}

#[cfg(unix)]
fn inode(facts: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(facts)
}

#[cfg(not(unix))]
fn inode(_facts: &Metadata) -> u64 {
    0
}

impl Keys {
    /// `file` has to be there, `default_file` is used where it is.
    pub fn new(given: &[ApiKey], file: Option<&Path>, default_file: Option<PathBuf>) -> Result<Self, AccessError> {
        for (index, key) in given.iter().enumerate() {
            if let Some(problem) = key.problem() {
                return Err(AccessError::BadKey { number: index + 1, problem });
            }
            if key.is_short() {
                tracing::warn!(
                    number = index + 1,
                    "an API key is short enough to be guessed; `shimmy key new` makes long ones"
                );
            }
        }
        let file = match (file, default_file) {
            (Some(path), _) => Some(WatchedFile::open(path.to_owned(), false)?),
            (None, Some(path)) => Some(WatchedFile::open(path, true)?),
            (None, None) => None,
        };
        let keys = Self { given: given.iter().map(ApiKey::hash).collect(), file, required: AtomicBool::new(false) };
        keys.note_required();
        Ok(keys)
    }

    pub fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// Whether a request needs a key. Looks whether the file has changed; so does nothing else here.
    pub fn are_required(&self) -> bool {
        if let Some(file) = &self.file
            && file.reread()
        {
            self.note_required();
        }
        self.required.load(Ordering::Relaxed)
    }

    fn note_required(&self) {
        let some = !self.given.is_empty() || self.file.as_ref().is_some_and(|file| !file.read().keys.is_empty());
        if some && !self.required.swap(true, Ordering::Relaxed) {
            tracing::info!("requests need an API key");
        }
    }

    /// The name of this key, where it is one of ours. Takes the same time for all keys that are not.
    pub fn find(&self, key: &KeyHash) -> Option<String> {
        let mut found = Choice::from(0);
        for given in &self.given {
            found |= given.is(key);
        }
        let mut name = bool::from(found).then(|| FROM_OPTIONS.to_owned());
        if let Some(file) = &self.file {
            for named in &file.read().keys {
                if bool::from(named.hash.is(key)) {
                    name = Some(named.name.to_string());
                }
            }
        }
        name
    }
}

impl WatchedFile {
    fn open(path: PathBuf, may_be_missing: bool) -> Result<Self, KeyFileError> {
        // Before it is read: what is written meanwhile then makes a difference.
        let stamp = Stamp::of(&path);
        let keys = match KeyFile::read(&path) {
            Ok(file) => file.keys().cloned().collect(),
            Err(KeyFileError::Missing(_)) if may_be_missing => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, state: RwLock::new(FileState { stamp, keys }) })
    }

    /// The state is whole whatever happened to who held the lock.
    fn read(&self) -> RwLockReadGuard<'_, FileState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file again where it has changed, and says whether that gave other keys. One `stat` where not.
    fn reread(&self) -> bool {
        let stamp = Stamp::of(&self.path);
        if stamp == self.read().stamp {
            return false;
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if stamp == state.stamp {
            return false;
        }
        state.stamp = stamp;
        match KeyFile::read(&self.path) {
            Ok(file) => {
                state.keys = file.keys().cloned().collect();
                tracing::info!(file = %self.path.display(), keys = state.keys.len(), "the key file has changed");
                true
            }
            Err(error) => {
                tracing::error!(%error, keys = state.keys.len(), "the keys that were read before stay in force");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::key_file::KeyFile;
    use super::{ApiKey, Keys, NamedKey};

    fn key(text: &str) -> ApiKey {
        ApiKey::from(text.to_owned())
    }

    fn add(path: &Path, name: &str) {
        KeyFile::add(path, NamedKey { name: name.parse().unwrap(), hash: key(name).hash() }).unwrap();
    }

    fn found(keys: &Keys, text: &str) -> Option<String> {
        assert!(keys.are_required());
        keys.find(&key(text).hash())
    }

    #[test]
    fn keys_come_from_options_and_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        add(&path, "a");
        let keys = Keys::new(&[key("given-on-the-command-line")], Some(&path), None).unwrap();
        assert_eq!(found(&keys, "given-on-the-command-line").as_deref(), Some("--api-key"));
        assert_eq!(found(&keys, "a").as_deref(), Some("a"));
        assert_eq!(found(&keys, "b"), None);
        assert_eq!(found(&keys, ""), None);
    }

    #[test]
    fn the_file_is_read_again_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let keys = Keys::new(&[], None, Some(path.clone())).unwrap();
        assert!(!keys.are_required(), "no key, no file");
        add(&path, "a");
        assert_eq!(found(&keys, "a").as_deref(), Some("a"));
        add(&path, "b");
        KeyFile::remove(&path, &"a".parse().unwrap()).unwrap();
        assert_eq!(found(&keys, "a"), None);
        assert_eq!(found(&keys, "b").as_deref(), Some("b"));
        std::fs::write(&path, "broken").unwrap();
        assert_eq!(found(&keys, "b").as_deref(), Some("b"), "the old keys stay");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found(&keys, "b").as_deref(), Some("b"), "the old keys stay");
        std::fs::write(&path, "# none\n").unwrap();
        assert_eq!(found(&keys, "b"), None, "an empty file lets nobody in, not everybody");
    }

    #[test]
    fn a_file_that_is_named_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("keys");
        let error = Keys::new(&[], Some(&missing), None).unwrap_err().to_string();
        assert!(error.contains("no such file; `shimmy key new NAME --api-key-file "), "{error}");
        std::fs::write(&missing, "a\n").unwrap();
        assert!(
            !Keys::new(&[], None, Some(missing.join("shimmy/keys"))).unwrap().are_required(),
            "a home that is a file"
        );
        let error = Keys::new(&[], None, Some(missing)).unwrap_err().to_string();
        assert!(error.contains("keys, line 1: not a name and a hash"), "{error}");
    }

    #[test]
    fn keys_that_no_request_can_carry_are_refused_unseen() {
        for text in ["", "top secret"] {
            let error = Keys::new(&[key("good-and-long-enough"), key(text)], None, None).unwrap_err().to_string();
            assert!(
                error.starts_with("API key 2 of --api-key or SHIMMY_API_KEY ") && !error.contains("top"),
                "{error}"
            );
        }
    }
}
