//! Models that are made out of another one, or of files that were sent: a manifest of their own, and the small blobs that
//! are theirs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use super::digest::Digest;
use super::error::PullError;
use super::manifest::{self, Layer, LayerKind, MAX_BYTES, Manifest, small_file};
use super::model_name::ModelName;
use super::partial::disk;
use super::store::{Store, StoreError, link};
use super::upload::Upload;
use crate::gguf::{self, GgufError, Header};
use crate::library::Found;

/// What a model is made of.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// The model whose layers are taken, but for those that the recipe has itself.
    pub base: Option<Arc<Found>>,
    /// GGUF files in the store, by the names that they were sent under: weights, all shards of them, and projectors.
    pub files: BTreeMap<String, Digest>,
    /// LoRA adapters in the store.
    pub adapters: BTreeMap<String, Digest>,
    pub template: Option<String>,
    pub system: Option<String>,
    /// Beside those of the base.
    pub parameters: Map<String, Value>,
    /// Turns that stand before each conversation.
    pub messages: Vec<Value>,
    pub licenses: Vec<String>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// It was there.
    Using(Digest),
    /// It is new.
    Creating(Digest),
    /// A file that lies elsewhere is read, to know its digest.
    Reading(PathBuf),
    Writing,
}

impl Made {
    /// In Ollama's words, where it has any.
    #[must_use]
    pub fn status(&self) -> String {
        match self {
            Self::Using(digest) => format!("using existing layer {digest}"),
            Self::Creating(digest) => format!("creating new layer {digest}"),
            Self::Reading(path) => format!("reading {}", path.display()),
            Self::Writing => "writing manifest".into(),
        }
    }
}

/// Makes it, under a name that may be another model's of the store, whose place it takes. Blocks: weights that lie elsewhere are
/// read, and linked or copied.
///
/// # Errors
/// What is wrong with the recipe, or a blob that is not there.
pub fn make(store: &Store, name: &ModelName, recipe: &Recipe, tell: &mut dyn FnMut(Made)) -> Result<(), PullError> {
    let mut maker = Maker { store, name, tell };
    let mut layers = match &recipe.base {
        Some(base) => maker.layers_of(base)?,
        None => maker.weights(&recipe.files)?,
    };
    let weights = layers.iter().find(|layer| layer.kind() == LayerKind::Model);
    let weights = weights.ok_or_else(|| maker.bad("it has no weights; give `from`, or a GGUF file in `files`"))?;
    let header = maker.header(&weights.digest, "the weights")?;
    if !recipe.adapters.is_empty() {
        layers.retain(|layer| layer.kind() != LayerKind::Adapter);
    }
    for (file, digest) in &recipe.adapters {
        layers.push(maker.adapter(file, digest, &header)?);
    }
    maker.texts(recipe, &mut layers)?;
    let config = manifest::config(&header, &layers);
    let config_layer = manifest::config_layer(&config);
    store.add_bytes(&config_layer.digest, &config)?;
    (maker.tell)(Made::Writing);
    Ok(store.write(name, &Manifest::new(config_layer, layers, None))?)
}

struct Maker<'a> {
    store: &'a Store,
    name: &'a ModelName,
    tell: &'a mut dyn FnMut(Made),
}

impl Maker<'_> {
    fn bad(&self, why: impl Into<String>) -> PullError {
        PullError::BadSource { asked: self.name.to_string(), why: why.into() }
    }

    /// Those of a model of ours are shared; others become ours.
    fn layers_of(&mut self, base: &Found) -> Result<Vec<Layer>, PullError> {
        if let Some(manifest) = self.store.owned(base).ok().and_then(|name| self.store.get(&name)) {
            manifest.layers.iter().for_each(|layer| (self.tell)(Made::Using(layer.digest.clone())));
            return Ok(manifest.layers);
        }
        let header = Header::skim(&base.path).map_err(|error| self.bad(error.to_string()))?;
        let files = gguf::shards(&header).map_err(|error| self.bad(error.to_string()))?;
        let mut layers = Vec::new();
        for path in &files {
            layers.push(self.adopt(LayerKind::Model, path)?);
        }
        if let Some(path) = &base.projector {
            layers.push(self.adopt(LayerKind::Projector, path)?);
        }
        let Some(kept) = &base.ollama else { return Ok(layers) };
        for path in &kept.adapters {
            layers.push(self.adopt(LayerKind::Adapter, path)?);
        }
        let texts = [(LayerKind::Template, &kept.template), (LayerKind::System, &kept.system)];
        for (kind, text) in texts {
            layers.extend(text.as_ref().map(|text| self.text(kind, text.as_bytes())).transpose()?);
        }
        if !kept.parameters.is_empty() {
            layers.push(self.json(LayerKind::Parameters, &kept.parameters)?);
        }
        if !kept.messages.is_empty() {
            layers.push(self.json(LayerKind::Messages, &kept.messages)?);
        }
        for text in &kept.licenses {
            layers.push(self.text(LayerKind::License, text.as_bytes())?);
        }
        Ok(layers)
    }

    /// Of files that were sent, all parts of the weights in their order.
    fn weights(&mut self, files: &BTreeMap<String, Digest>) -> Result<Vec<Layer>, PullError> {
        let (mut weights, mut rest) = (Vec::new(), Vec::new());
        for (file, digest) in files {
            let header = self.header(digest, file)?;
            if header.is_adapter() {
                return Err(self.bad(format!("{file} is a LoRA adapter; give it in `adapters`")));
            }
            let part = header.get("split.no").and_then(gguf::Value::as_u64).unwrap_or(0);
            // As a look at the disk will check them.
            let checked = match header.is_projector() || part > 0 {
                true => gguf::check_tensors(&header),
                false => gguf::validate_outline(&header),
            };
            checked.map_err(|error| self.unusable(file, header.path(), &error))?;
            if header.is_projector() {
                rest.push(self.layer(LayerKind::Projector, digest)?);
            } else {
                weights.push((part, header.split_count().max(1), self.layer(LayerKind::Model, digest)?));
            }
        }
        weights.sort_by_key(|(part, ..)| *part);
        let all = weights.len() as u64;
        if !weights.iter().zip(0..).all(|((part, parts, _), at)| (*part, *parts) == (at, all)) {
            let given = weights.iter().map(|(part, parts, _)| format!("{} of {parts}", part.saturating_add(1)));
            let given = given.collect::<Vec<_>>().join(", ");
            return Err(
                self.bad(format!("all parts of its weights are needed, each once, and these were given: {given}"))
            );
        }
        Ok(weights.into_iter().map(|(.., layer)| layer).chain(rest).collect())
    }

    fn adapter(&mut self, file: &str, digest: &Digest, base: &Header) -> Result<Layer, PullError> {
        let header = self.header(digest, file)?;
        if !header.is_adapter() {
            return Err(self.bad(format!("{file} is not a LoRA adapter")));
        }
        gguf::validate_adapter(&header, base).map_err(|error| self.bad(format!("{file}: {error}")))?;
        self.layer(LayerKind::Adapter, digest)
    }

    /// Templates, prompts and parameters of the recipe in the places of the base's.
    fn texts(&mut self, recipe: &Recipe, layers: &mut Vec<Layer>) -> Result<(), PullError> {
        for (kind, text) in [(LayerKind::Template, &recipe.template), (LayerKind::System, &recipe.system)] {
            if let Some(text) = text {
                let layer = self.text(kind, text.as_bytes())?;
                replace(layers, layer);
            }
        }
        if !recipe.parameters.is_empty() {
            let mut all: Map<String, Value> = match layers.iter().find(|layer| layer.kind() == LayerKind::Parameters) {
                Some(layer) => {
                    let path = self.store.blob(&layer.digest);
                    let read =
                        small_file(&path).and_then(|text| serde_json::from_slice(&text).map_err(|e| e.to_string()));
                    read.map_err(|what| StoreError::Damaged { path, what })?
                }
                None => Map::new(),
            };
            all.extend(recipe.parameters.clone());
            let layer = self.json(LayerKind::Parameters, &all)?;
            replace(layers, layer);
        }
        if !recipe.messages.is_empty() {
            let layer = self.json(LayerKind::Messages, &recipe.messages)?;
            replace(layers, layer);
        }
        for text in &recipe.licenses {
            layers.push(self.text(LayerKind::License, text.as_bytes())?);
        }
        Ok(())
    }

    fn json(&mut self, kind: LayerKind, value: &impl Serialize) -> Result<Layer, PullError> {
        let bytes = serde_json::to_vec(value).map_err(|error| self.bad(error.to_string()))?;
        self.text(kind, &bytes)
    }

    fn text(&mut self, kind: LayerKind, bytes: &[u8]) -> Result<Layer, PullError> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(self.bad(format!("a text of {} bytes is too long; at most {MAX_BYTES} are taken", bytes.len())));
        }
        let digest = Digest::of(bytes);
        let step = if self.store.has(&digest) { Made::Using } else { Made::Creating };
        (self.tell)(step(digest.clone()));
        self.store.add_bytes(&digest, bytes)?;
        Ok(Layer::new(kind, digest, bytes.len() as u64))
    }

    /// A blob that is there.
    fn layer(&mut self, kind: LayerKind, digest: &Digest) -> Result<Layer, PullError> {
        let path = self.store.blob(digest);
        let size = path.metadata().map_err(disk(&path))?.len();
        (self.tell)(Made::Using(digest.clone()));
        Ok(Layer::new(kind, digest.clone(), size))
    }

    fn header(&self, digest: &Digest, file: &str) -> Result<Header, PullError> {
        let path = self.store.blob(digest);
        Header::open(&path).map_err(|error| match error {
            GgufError::NotFound(_) => StoreError::NoSuchBlob(digest.clone()).into(),
            error => self.unusable(file, &path, &error),
        })
    }

    /// Without the blob's path, which whoever sent it does not know.
    fn unusable(&self, file: &str, path: &Path, error: &GgufError) -> PullError {
        let reason = error.to_string();
        let reason = reason.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&reason);
        self.bad(format!("{file} is not a GGUF file that can be used: {reason}"))
    }

    /// Takes a file that lies elsewhere into the store, without a copy where both lie on one disk.
    fn adopt(&mut self, kind: LayerKind, path: &Path) -> Result<Layer, PullError> {
        // The hub's cache has links to its files.
        let path = path.canonicalize().map_err(disk(path))?;
        (self.tell)(Made::Reading(path.clone()));
        let mut file = File::open(&path).map_err(disk(&path))?;
        let digest = Digest::of_file(&file, |_| true).map_err(disk(&path))?;
        let digest = digest.ok_or_else(|| disk(&path)(std::io::Error::other("interrupted")))?;
        if !self.store.has(&digest) {
            if link(&path, &self.store.blob(&digest)).is_err() {
                std::io::Seek::rewind(&mut file).map_err(disk(&path))?;
                self.copy(file, &path, &digest)?;
            }
            (self.tell)(Made::Creating(digest.clone()));
        }
        self.layer(kind, &digest)
    }

    fn copy(&self, mut file: File, path: &Path, digest: &Digest) -> Result<(), PullError> {
        let mut upload = Upload::begin(self.store, file.metadata().ok().map(|meta| meta.len()))?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(disk(path))? {
                0 => break,
                read => upload.write(&buffer[..read])?,
            }
        }
        upload.finish(self.store, digest).map(drop)
    }
}

fn replace(layers: &mut Vec<Layer>, new: Layer) {
    layers.retain(|layer| layer.kind() != new.kind());
    layers.push(new);
}

#[cfg(test)]
#[path = "make_tests.rs"]
mod tests;
