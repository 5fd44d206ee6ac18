//! shimmy's own models on disk: `manifests` that name `blobs`, as Ollama lays them out, and `partial` downloads.
//!
//! A model is there when its manifest is, and that is written last. What is half fetched lies in `partial`, where nobody looks
//! for models.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use walkdir::WalkDir;

use super::digest::Digest;
use super::manifest::{Layer, Manifest, small_file};
use super::model_name::ModelName;
use crate::library::ollama_store::SHARDS;
use crate::library::{Found, LayerKind};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("no model {asked:?} in {}", .root.display())]
    NoSuchModel { asked: String, root: PathBuf },
    #[error("{asked:?} can mean {}; give the whole name", .names.join(" or "))]
    Ambiguous { asked: String, names: Vec<String> },
    #[error("blob {0} is not in the store")]
    NoSuchBlob(Digest),
    /// Somebody else's.
    #[error("{name} is not in shimmy's own folder: {} was found because of {because}; {advice}", .path.display())]
    NotOurs { name: String, path: PathBuf, because: &'static str, advice: &'static str },
    #[error("{}: {what}", .path.display())]
    Damaged { path: PathBuf, what: String },
}

/// Who locks this file with others pulls something.
const PULLS: &str = ".pulls";

/// What a removal did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// As it is listed.
    pub name: String,
    /// Blobs that other models use, too, stay.
    pub freed_bytes: u64,
}

/// The folder. It need not exist before something is written.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    #[must_use]
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.file_name())
    }

    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.blob(digest).is_file()
    }

    fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    pub(super) fn partial(&self) -> PathBuf {
        self.root.join("partial")
    }

    fn manifest_path(&self, name: &ModelName) -> PathBuf {
        self.manifests().join(name.path())
    }

    /// The file of a model: its blob, or the first of its shards under a name that says so.
    #[must_use]
    pub fn model_file(&self, manifest: &Manifest) -> Option<PathBuf> {
        let shards: Vec<&Layer> = manifest.of_kind(LayerKind::Model).collect();
        let first = shards.first()?;
        let folder = manifest.shards_folder();
        Some(folder.map_or_else(|| self.blob(&first.digest), |folder| self.shard(&folder, 1, shards.len())))
    }

    /// llama.cpp finds shards by their names, which blobs do not have.
    fn shard(&self, folder: &str, number: usize, count: usize) -> PathBuf {
        self.root.join(SHARDS).join(folder).join(format!("model-{number:05}-of-{count:05}.gguf"))
    }

    /// Held by whoever writes a manifest or removes blobs, so that no model loses a blob that it was about to name.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        let (path, file) = self.lock_file(".lock")?;
        file.lock().map_err(at(&path))?;
        Ok(file)
    }

    /// Held by each pull from before its first file is whole until a manifest names all of them.
    ///
    /// # Errors
    /// As [`Store::lock`].
    pub(super) fn pulling(&self) -> Result<File, StoreError> {
        let (path, file) = self.lock_file(PULLS)?;
        file.lock_shared().map_err(at(&path))?;
        Ok(file)
    }

    fn lock_file(&self, name: &str) -> Result<(PathBuf, File), StoreError> {
        fs::create_dir_all(&self.root).map_err(at(&self.root))?;
        let path = self.root.join(name);
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
        Ok((path, file))
    }

    /// Makes a model known. Fails with [`StoreError::NoSuchBlob`] where one of its blobs has gone meanwhile.
    ///
    /// # Errors
    /// Where a blob is missing or the folder cannot be written.
    pub fn write(&self, name: &ModelName, manifest: &Manifest) -> Result<(), StoreError> {
        let text = serde_json::to_vec(manifest).map_err(|error| self.damaged(name, &error))?;
        self.write_bytes(name, manifest, &text)
    }

    /// As [`Store::write`], with the bytes that a registry sent, whose digest others may compare.
    pub(super) fn write_bytes(&self, name: &ModelName, manifest: &Manifest, text: &[u8]) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        if let Some(missing) = manifest.blobs().find(|layer| !self.has(&layer.digest)) {
            return Err(StoreError::NoSuchBlob(missing.digest.clone()));
        }
        let shards: Vec<&Layer> = manifest.of_kind(LayerKind::Model).collect();
        if let Some(folder) = manifest.shards_folder() {
            for (index, layer) in shards.iter().enumerate() {
                link(&self.blob(&layer.digest), &self.shard(&folder, index + 1, shards.len()))?;
            }
        }
        let path = self.manifest_path(&self.known_as(name));
        let old = Manifest::read(&path).ok().filter(|old| old != manifest);
        write_file(&path, text)?;
        if let Some(Err(error)) = old.map(|old| self.remove_unused(&old)) {
            // The model is there all the same.
            tracing::warn!(%error, "what {name} was before could not be removed");
        }
        Ok(())
    }

    /// Names differ by more than case, also where file systems tell cases apart.
    fn known_as(&self, name: &ModelName) -> ModelName {
        let full = name.full();
        let known = self.names().map(|(known, _)| known).find(|known| known.full().eq_ignore_ascii_case(&full));
        known.unwrap_or_else(|| name.clone())
    }

    /// Puts a small blob into the store.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn add_blob(&self, kind: LayerKind, bytes: &[u8]) -> Result<Layer, StoreError> {
        let digest = Digest::of(bytes);
        self.add_bytes(&digest, bytes)?;
        Ok(Layer::new(kind, digest, bytes.len() as u64))
    }

    pub(super) fn add_bytes(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        if self.has(digest) { Ok(()) } else { write_file(&self.blob(digest), bytes) }
    }

    /// All models that are whole enough to have a manifest that can be read.
    #[must_use]
    pub fn list(&self) -> Vec<(ModelName, Manifest)> {
        self.names().filter_map(|(name, path)| Some((name, Manifest::read(&path).ok()?))).collect()
    }

    /// All models, for removals: a manifest that cannot be read names blobs that we do not know of.
    fn all(&self) -> Result<Vec<(ModelName, Manifest)>, StoreError> {
        let read = |(name, path): (ModelName, PathBuf)| match Manifest::read(&path) {
            Ok(manifest) => Ok((name, manifest)),
            Err(what) => Err(StoreError::Damaged { path, what }),
        };
        self.entries().map(|entry| entry.and_then(read)).collect()
    }

    fn names(&self) -> impl Iterator<Item = (ModelName, PathBuf)> {
        self.entries().flatten()
    }

    /// Names with the files of their manifests, and what keeps others from being seen.
    fn entries(&self) -> impl Iterator<Item = Result<(ModelName, PathBuf), StoreError>> {
        let manifests = self.manifests();
        let walk = WalkDir::new(&manifests).min_depth(4).max_depth(4).sort_by_file_name();
        walk.into_iter().filter_map(move |entry| match entry {
            Ok(entry) if entry.file_type().is_dir() => None,
            Ok(entry) => {
                let name = ModelName::at(entry.path().strip_prefix(&manifests).ok()?)?;
                Some(Ok((name, entry.into_path())))
            }
            Err(error) if error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound) => None,
            Err(error) => {
                let path = error.path().unwrap_or(&manifests).to_owned();
                Some(Err(StoreError::Damaged { path, what: format!("cannot be read: {error}") }))
            }
        })
    }

    /// The name under which the store has a model that was found.
    ///
    /// # Errors
    /// [`StoreError::NotOurs`], with where it lies.
    pub fn owned(&self, found: &Found) -> Result<ModelName, StoreError> {
        let same = |dir: &Path, path: &Path| path.strip_prefix(dir).ok().and_then(ModelName::at);
        let manifest = found.ollama.as_ref().map(|layers| &layers.manifest);
        let name = manifest.and_then(|path| {
            // A link may lead to the same folder.
            let whole = || same(&self.manifests().canonicalize().ok()?, &path.canonicalize().ok()?);
            same(&self.manifests(), path).or_else(whole)
        });
        name.ok_or_else(|| StoreError::NotOurs {
            name: found.name.clone(),
            path: found.path.clone(),
            because: found.because,
            advice: match manifest {
                Some(_) => "`ollama rm` removes it, and `ollama cp` copies it",
                None => "the file is yours, or another program's, to remove or to copy",
            },
        })
    }

    /// The model that a user means.
    ///
    /// # Errors
    /// Where there is none, or more than one.
    pub fn find(&self, asked: &str) -> Result<(ModelName, Manifest), StoreError> {
        let mut found: Vec<_> = self.list().into_iter().filter(|(name, _)| name.answers_to(asked)).collect();
        if let Some(exact) = found.iter().position(|(name, _)| name.full() == asked) {
            return Ok(found.swap_remove(exact));
        }
        match (found.pop(), found.is_empty()) {
            (Some(one), true) => Ok(one),
            (None, _) => Err(StoreError::NoSuchModel { asked: asked.into(), root: self.root.clone() }),
            (Some(last), false) => {
                found.push(last);
                let names = found
                    .iter()
                    .map(|(name, _)| format!("{}/{}/{}:{}", name.host, name.namespace, name.model, name.tag));
                Err(StoreError::Ambiguous { asked: asked.into(), names: names.collect() })
            }
        }
    }

    pub(super) fn get(&self, name: &ModelName) -> Option<Manifest> {
        Manifest::read(&self.manifest_path(&self.known_as(name))).ok()
    }

    /// Gives a model a second name. No byte of it is copied.
    ///
    /// # Errors
    /// As [`Store::find`] and [`Store::write`].
    pub fn copy(&self, from: &str, to: &ModelName) -> Result<(), StoreError> {
        let (name, manifest) = self.find(from)?;
        let path = self.manifest_path(&name);
        let text = small_file(&path).map_err(|what| StoreError::Damaged { path, what })?;
        self.write_bytes(to, &manifest, &text)
    }

    /// Takes a model's name away, and the blobs that no other model names.
    ///
    /// # Errors
    /// As [`Store::find`], and where something cannot be removed.
    pub fn remove(&self, asked: &str) -> Result<Removed, StoreError> {
        // No folder is made for a model that is not there.
        self.find(asked)?;
        let _lock = self.lock()?;
        let (name, manifest) = self.find(asked)?;
        let path = self.manifest_path(&name);
        fs::remove_file(&path).map_err(at(&path))?;
        for dir in path.ancestors().skip(1).take(3) {
            // Those that hold others stay.
            if fs::remove_dir(dir).is_err() {
                break;
            }
        }
        let freed_bytes = self.remove_unused(&manifest)?;
        Ok(Removed { name: name.to_string(), freed_bytes })
    }

    fn remove_unused(&self, removed: &Manifest) -> Result<u64, StoreError> {
        let others = match self.all() {
            Ok(others) => others,
            Err(error) => {
                tracing::warn!(%error, "no files were removed, since this may need them; remove it, and then what is left over with `shimmy rm --unfinished`");
                return Ok(0);
            }
        };
        let used: HashSet<&Digest> =
            others.iter().flat_map(|(_, manifest)| manifest.blobs()).map(|layer| &layer.digest).collect();
        if let Some(folder) = removed.shards_folder()
            && !others.iter().any(|(_, manifest)| self.model_file(manifest) == self.model_file(removed))
        {
            let dir = self.root.join(SHARDS).join(folder);
            ignore_missing(fs::remove_dir_all(&dir)).map_err(at(&dir))?;
        }
        let mut freed = 0;
        let unused: HashSet<&Layer> = removed.blobs().filter(|layer| !used.contains(&layer.digest)).collect();
        for layer in unused {
            let path = self.blob(&layer.digest);
            ignore_missing(fs::remove_file(&path)).map_err(at(&path))?;
            freed += layer.size;
        }
        Ok(freed)
    }

    /// Removes the blobs that no manifest names and that nobody touched for a while, in which a model may be about to name
    /// them; none while a pull runs, which may take longer. Returns how many bytes that frees.
    ///
    /// # Errors
    /// Where something cannot be read or removed.
    pub fn remove_orphans(&self, untouched: Duration) -> Result<u64, StoreError> {
        let dir = self.root.join("blobs");
        if !dir.is_dir() {
            return Ok(0);
        }
        let (path, pulls) = self.lock_file(PULLS)?;
        match pulls.try_lock() {
            Err(TryLockError::WouldBlock) => {
                tracing::warn!("a pull runs, which may need files that no model has yet; they stay until it has ended");
                return Ok(0);
            }
            Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
            Ok(()) => {}
        }
        let _lock = self.lock()?;
        let used: HashSet<Digest> =
            self.all()?.iter().flat_map(|(_, manifest)| manifest.blobs()).map(|layer| layer.digest.clone()).collect();
        let mut freed = 0;
        for entry in fs::read_dir(&dir).map_err(at(&dir))? {
            let path = entry.map_err(at(&dir))?.path();
            let digest = path.file_name().and_then(|name| name.to_str()?.parse::<Digest>().ok());
            let Ok(meta) = path.metadata() else { continue };
            let old = meta.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age >= untouched));
            if old && digest.is_some_and(|digest| !used.contains(&digest)) {
                fs::remove_file(&path).map_err(at(&path))?;
                freed += meta.len();
            }
        }
        Ok(freed)
    }

    fn damaged(&self, name: &ModelName, error: &serde_json::Error) -> StoreError {
        StoreError::Damaged { path: self.manifest_path(name), what: error.to_string() }
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
    move |error| StoreError::Io { path: path.to_owned(), error }
}

/// A second name for a file, which costs no space.
pub(super) fn link(from: &Path, to: &Path) -> Result<(), StoreError> {
    let dir = to.parent().unwrap_or(to);
    fs::create_dir_all(dir).map_err(at(dir))?;
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(at(to)),
    }
}

/// Writes a file so that it is there as a whole or not at all, also after the power fails.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let dir = path.parent().unwrap_or(path);
    fs::create_dir_all(dir).map_err(at(dir))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A dot keeps it from being taken for a manifest or blob.
    let temporary = path.with_file_name(format!(".{name}.{}-{}", std::process::id(), fastrand::u64(..)));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_dir(dir)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        StoreError::Io { path: path.to_owned(), error }
    })
}

/// Makes names in a directory last. Elsewhere than on Unix the system does it by itself.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
