//! A blob that a client sends.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::error::PullError;
use super::partial::{check_space, disk, keep, not_written};
use super::store::Store;

/// Bytes that stay free on the disk, for everybody else.
const RESERVE: u64 = 64 << 20;
/// How often it is looked how many are.
const LOOK_EVERY: u64 = 32 << 20;

/// What came so far, in a file that nobody takes for a blob. Dropping it removes it.
#[derive(Debug)]
pub struct Upload {
    path: PathBuf,
    file: File,
    hash: Sha256,
    bytes: u64,
    /// From here on it is looked again how much is free.
    looked: u64,
}

impl Upload {
    /// `announced` bytes are to come, where that is known.
    ///
    /// # Errors
    /// Where there is no space for them, or the folder cannot be written.
    pub fn begin(store: &Store, announced: Option<u64>) -> Result<Self, PullError> {
        let dir = store.partial();
        fs::create_dir_all(&dir).map_err(disk(&dir))?;
        let path = dir.join(format!("upload-{}-{:016x}", std::process::id(), fastrand::u64(..)));
        let file = File::options().write(true).create_new(true).open(&path).map_err(disk(&path))?;
        let upload = Self { path, file, hash: Sha256::new(), bytes: 0, looked: 0 };
        // Whoever tidies up leaves it alone.
        upload.file.lock().map_err(disk(&upload.path))?;
        upload.check_space(announced.unwrap_or(0))?;
        Ok(upload)
    }

    /// # Errors
    /// Where the disk is full, or nearly.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PullError> {
        if self.bytes + bytes.len() as u64 > self.looked + LOOK_EVERY {
            self.looked = self.bytes;
            self.check_space(bytes.len() as u64)?;
        }
        self.file.write_all(bytes).map_err(|error| not_written(&self.path, bytes.len() as u64, error))?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes it the blob that it was announced as. Returns its bytes.
    ///
    /// # Errors
    /// [`PullError::WrongDigest`] where it is another one.
    pub fn finish(self, store: &Store, expected: &Digest) -> Result<u64, PullError> {
        let found = Digest::from_hash(self.hash.clone());
        if found != *expected {
            return Err(PullError::WrongDigest { what: "what was sent".into(), expected: expected.clone(), found });
        }
        keep(store, &self.file, &self.path, expected)?;
        Ok(self.bytes)
    }

    fn check_space(&self, needed: u64) -> Result<(), PullError> {
        check_space(self.path.parent().unwrap_or(&self.path), needed.saturating_add(RESERVE))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // A blob has another name by now.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, PullError, Store, Upload};

    fn left(store: &Store) -> usize {
        std::fs::read_dir(store.partial()).map_or(0, Iterator::count)
    }

    #[test]
    fn only_what_was_announced_becomes_a_blob() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::new(dir.path().into());
        let digest = Digest::of(b"weights");
        let mut upload = Upload::begin(&store, Some(7)).expect("begun");
        for part in [b"wei".as_slice(), b"ghts"] {
            upload.write(part).expect("written");
        }
        assert!(!store.has(&digest), "it is not whole");
        assert_eq!(upload.finish(&store, &digest).expect("it is that"), 7);
        assert_eq!(std::fs::read(store.blob(&digest)).expect("there"), b"weights");
        let mut upload = Upload::begin(&store, None).expect("begun");
        upload.write(b"other").expect("written");
        assert!(matches!(upload.finish(&store, &digest), Err(PullError::WrongDigest { .. })));
        drop(Upload::begin(&store, None).expect("begun"));
        assert_eq!(left(&store), 0);
    }

    #[test]
    fn more_than_there_is_space_for_is_refused_before_it_comes() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::new(dir.path().into());
        let refused = Upload::begin(&store, Some(u64::MAX / 2)).expect_err("no disk is that large").to_string();
        assert!(refused.contains("are free; make room"), "{refused}");
        assert_eq!(left(&store), 0);
    }
}
