//! What is noted during a look at the disk: what could not be used, and what was there, so that a later question whether
//! anything changed costs no second look.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::found::Problem;

#[derive(Debug, Default)]
pub(super) struct Notes {
    pub problems: Vec<Problem>,
    pub seen: Seen,
}

/// The folders that were entered, and the files that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    entries: Vec<(PathBuf, Option<Mark>)>,
    /// Something was written just before it was looked at: more may have come within the same tick of the file system's
    /// clock, which nothing would tell.
    unsettled: bool,
}

/// Changes with whatever is added to a folder, removed from it or renamed, and with what is written to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    written: Option<SystemTime>,
    bytes: u64,
}

/// The coarsest clock of a file system, FAT's.
const TICK: Duration = Duration::from_secs(2);

impl Mark {
    fn of(path: &Path) -> Option<Self> {
        let meta = path.metadata().ok()?;
        Some(Self { written: meta.modified().ok(), bytes: if meta.is_file() { meta.len() } else { 0 } })
    }
}

impl Seen {
    /// To be called before the folder or file is read. What is not there may come.
    pub(super) fn note(&mut self, path: &Path) {
        let mark = Mark::of(path);
        let written = mark.and_then(|mark| mark.written);
        self.unsettled |= written.is_some_and(|written| written.elapsed().is_ok_and(|age| age < TICK));
        self.entries.push((path.to_owned(), mark));
    }

    /// Whether another look would find the same. Asks the file system for one entry after the other, and opens none.
    #[must_use]
    pub fn is_current(&self) -> bool {
        !self.unsettled && self.entries.iter().all(|(path, mark)| Mark::of(path) == *mark)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::Seen;

    /// As if all had been written an hour ago.
    fn age(paths: &[&Path]) {
        for path in paths {
            let time = SystemTime::now() - Duration::from_secs(3600);
            File::open(path).expect("opened").set_modified(time).expect("set");
        }
    }

    #[test]
    fn whatever_comes_goes_or_is_written_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, absent) = (dir.path().join("a"), dir.path().join("absent"));
        fs::write(&file, "one").expect("written");
        let look = || {
            age(&[&file, dir.path()]);
            let mut seen = Seen::default();
            [dir.path(), &file, &absent].iter().for_each(|path| seen.note(path));
            assert!(seen.is_current());
            seen
        };
        let seen = look();
        fs::write(dir.path().join("b"), "").expect("written");
        assert!(!seen.is_current(), "a file came");
        let seen = look();
        fs::remove_file(dir.path().join("b")).expect("removed");
        assert!(!seen.is_current(), "a file went");
        let seen = look();
        fs::write(&file, "two!").expect("written");
        assert!(!seen.is_current(), "a file was written");
        let seen = look();
        fs::create_dir(&absent).expect("created");
        age(&[dir.path()]);
        assert!(!seen.is_current(), "what was not there is");
        assert!(Seen::default().is_current());
    }

    #[test]
    fn what_was_written_just_now_is_looked_at_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut seen = Seen::default();
        seen.note(dir.path());
        assert!(!seen.is_current());
    }
}
