//! A file that is being fetched: its bytes, and beside them a note of which of them are there.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::PullError;
use super::progress::{Event, Report};
use super::ranges::Ranges;
use super::store::{self, Store};

/// How often a process that waits for another's download looks again.
const LOOK: Duration = Duration::from_millis(200);

/// What the note says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Of the whole file, where the server said so.
    pub size: Option<u64>,
    /// The ETag or date of the file that these bytes are of.
    pub validator: Option<String>,
    pub done: Ranges,
}

/// Locked while it lives: of several processes that want the same file, one writes.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    note: PathBuf,
    file: Arc<File>,
    state: Mutex<State>,
    /// What the note says; nothing where there is to be none.
    noted: Mutex<Option<State>>,
}

/// A pull that is given up keeps what it has. The lock goes with the last hold of the file, after that.
impl Drop for Partial {
    fn drop(&mut self) {
        let state = self.state();
        let noted = self.noted.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if noted.is_some_and(|noted| noted != state) {
            let (file, note) = (Arc::clone(&self.file), self.note.clone());
            runtime.spawn_blocking(move || write_note(&file, &note, &state));
        }
    }
}

fn write_note(file: &File, note: &Path, state: &State) -> Result<(), PullError> {
    let text = serde_json::to_vec(state).map_err(|error| disk(note)(error.into()))?;
    // What cannot be flushed is a device, and has no bytes to lose.
    let _ = file.sync_data();
    Ok(store::write_file(note, &text)?)
}

impl Partial {
    /// Opens what an earlier pull left. Nothing where another process has finished the blob meanwhile.
    pub async fn open(
        store: &Store,
        key: &str,
        blob: Option<&Digest>,
        what: &str,
        report: &Report<'_>,
    ) -> Result<Option<Self>, PullError> {
        let dir = store.partial();
        let path = dir.join(key);
        fs::create_dir_all(&dir).map_err(disk(&dir))?;
        let mut told = false;
        loop {
            if blob.is_some_and(|blob| store.has(blob)) {
                return Ok(None);
            }
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(disk(&path))?;
            match file.try_lock() {
                // Whoever had it may have made a blob of it between our opening and our locking.
                Ok(()) if is_same(&file, &path) => return Ok(Some(Self::with(file, path))),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        report(Event::Waiting { what: what.into() });
                        told = true;
                    }
                    tokio::time::sleep(LOOK).await;
                }
                Err(TryLockError::Error(error)) => return Err(disk(&path)(error)),
            }
        }
    }

    fn with(file: File, path: PathBuf) -> Self {
        let note = note_path(&path);
        let read: State = fs::read(&note).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        // The note is written after the bytes; a file that is shorter than it says was cut by something else.
        let is_there = file.metadata().is_ok_and(|meta| meta.len() >= read.done.end());
        let state = if is_there { read } else { State::default() };
        let noted = Mutex::new(Some(state.clone()));
        Self { path, note, file: Arc::new(file), state: Mutex::new(state), noted }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn covered(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).done.covered()
    }

    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Begins anew, in the same file: whoever waits for its lock has it open.
    pub async fn reset(&self) -> Result<(), PullError> {
        self.change(|state| *state = State::default());
        self.file.set_len(0).map_err(disk(&self.path))?;
        self.save().await
    }

    /// Writes off the async threads.
    pub async fn write(&self, offset: u64, bytes: Vec<u8>) -> Result<(), PullError> {
        let range = offset..offset + bytes.len() as u64;
        let file = Arc::clone(&self.file);
        let written = tokio::task::spawn_blocking(move || write_at(&file, &bytes, offset)).await;
        let written = written.unwrap_or_else(|died| Err(io::Error::other(died)));
        let missing = || self.state().size.unwrap_or(range.end).saturating_sub(self.covered());
        written.map_err(|error| not_written(&self.path, missing(), error))?;
        self.change(|state| state.done.insert(range));
        Ok(())
    }

    /// Notes what is there. The bytes come first, so that after a power failure the note does not promise what is not there.
    pub async fn save(&self) -> Result<(), PullError> {
        let state = self.state();
        let (file, note, now) = (Arc::clone(&self.file), self.note.clone(), state.clone());
        let saved = tokio::task::spawn_blocking(move || write_note(&file, &note, &now)).await;
        saved.map_err(|died| disk(&self.note)(io::Error::other(died)))??;
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        Ok(())
    }

    /// Makes it the blob that it is.
    pub fn finish(self, store: &Store, digest: &Digest) -> Result<(), PullError> {
        keep(store, &self.file, &self.path, digest)?;
        // Without its file it would be passed over.
        let _ = fs::remove_file(&self.note);
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}

fn note_path(path: &Path) -> PathBuf {
    path.with_extension("json")
}

pub(super) fn disk(path: &Path) -> impl FnOnce(io::Error) -> PullError + '_ {
    move |error| PullError::Disk { path: path.to_owned(), error }
}

/// Makes a file of `partial` that is whole the blob that it is.
pub(super) fn keep(store: &Store, file: &File, path: &Path, digest: &Digest) -> Result<(), PullError> {
    let blob = store.blob(digest);
    let dir = blob.parent().unwrap_or(&blob);
    fs::create_dir_all(dir).map_err(disk(dir))?;
    file.sync_all().map_err(disk(path))?;
    fs::rename(path, &blob).map_err(disk(&blob))?;
    store::sync_dir(dir).map_err(disk(dir))
}

/// Whether there is space for `needed` more bytes in a folder that need not exist.
pub(super) fn check_space(dir: &Path, needed: u64) -> Result<(), PullError> {
    let there = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(dir);
    let free = fs4::available_space(there).map_err(disk(there))?;
    if needed > free { Err(PullError::NoSpace { dir: dir.to_owned(), needed, free }) } else { Ok(()) }
}

/// Why a file could not be written, of which `missing` bytes were to come.
pub(super) fn not_written(path: &Path, missing: u64, error: io::Error) -> PullError {
    if error.kind() != io::ErrorKind::StorageFull {
        return disk(path)(error);
    }
    let dir = path.parent().unwrap_or(path).to_owned();
    let free = fs4::available_space(&dir).unwrap_or(0);
    PullError::NoSpace { dir, needed: missing, free }
}

fn is_same(file: &File, path: &Path) -> bool {
    let opened = file.try_clone().and_then(same_file::Handle::from_file);
    matches!((opened, same_file::Handle::from_path(path)), (Ok(opened), Ok(there)) if opened == there)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}

/// Bytes that an earlier pull left, as its note says.
pub(super) fn noted(store: &Store, key: &str) -> u64 {
    let read = fs::read(note_path(&store.partial().join(key))).ok();
    let state: Option<State> = read.and_then(|text| serde_json::from_slice(&text).ok());
    state.map_or(0, |state| state.done.covered())
}

/// What pulls that did not end left behind, in bytes; files that a pull under way holds stay.
pub(super) fn remove_unfinished(store: &Store) -> io::Result<u64> {
    let mut freed = 0;
    let entries = match fs::read_dir(store.partial()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|ext| ext == "json") {
            continue;
        }
        let file = File::options().write(true).open(&path)?;
        if file.try_lock().is_ok() {
            freed += file.metadata()?.len();
            fs::remove_file(&path)?;
            let _ = fs::remove_file(note_path(&path));
        }
    }
    Ok(freed)
}

#[cfg(test)]
mod tests {
    use super::{Partial, State, remove_unfinished};
    use crate::library::pull::store::Store;

    async fn open(store: &Store) -> Option<Partial> {
        Partial::open(store, "key", None, "a file", &|_| {}).await.expect("opened")
    }

    #[tokio::test]
    async fn what_was_noted_is_known_again_unless_the_bytes_are_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::new(dir.path().into());
        let partial = open(&store).await.expect("new");
        partial.write(3, b"abc".to_vec()).await.expect("written");
        partial.change(|state| state.size = Some(9));
        partial.save().await.expect("saved");
        // Not noted, which happens when it is let go.
        partial.write(7, b"x".to_vec()).await.expect("written");
        drop(partial);
        let again = open(&store).await.expect("there");
        assert_eq!((again.covered(), again.state().done.missing(9)), (4, vec![0..3, 6..7, 8..9]));
        drop(again);
        std::fs::write(store.partial().join("key"), b"ab").expect("cut");
        assert_eq!(open(&store).await.expect("there").state(), State::default());
    }

    #[tokio::test]
    async fn a_file_that_is_being_fetched_is_waited_for_and_not_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::new(dir.path().into());
        let partial = open(&store).await.expect("new");
        partial.write(0, b"abc".to_vec()).await.expect("written");
        assert_eq!(remove_unfinished(&store).expect("read"), 0);
        let digest = "0".repeat(64).parse().expect("a digest");
        let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
        let report = move |event| sender.send(event).expect("a reader");
        let second = Partial::open(&store, "key", Some(&digest), "a file", &report);
        let first = async {
            told.recv().await.expect("it waits");
            partial.finish(&store, &digest).expect("renamed");
        };
        let (second, ()) = tokio::join!(second, first);
        assert!(second.expect("no error").is_none(), "the other has finished it");
        open(&store).await.expect("a new one").write(0, b"abcd".to_vec()).await.expect("written");
        // It is noted by then.
        drop(open(&store).await);
        assert_eq!(remove_unfinished(&store).expect("read"), 4);
    }
}
