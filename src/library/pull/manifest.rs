//! Manifests of shimmy's store and of Ollama's, which have the same form.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::digest::Digest;
use crate::gguf;
use crate::library::Facts;

pub const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";
const LAYER_TYPE: &str = "application/vnd.ollama.image.";
/// Where a manifest says what it was fetched from.
const SOURCE: &str = "shimmy.source";
/// Manifests and layers of text are small; whatever is larger is none.
pub(super) const MAX_BYTES: u64 = 1 << 20;
/// A model in shards has a layer for each.
const MAX_LAYERS: usize = 4096;

/// What a layer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    Model,
    Projector,
    Adapter,
    Template,
    System,
    Parameters,
    Messages,
    License,
    /// One that shimmy has no use for.
    Other,
}

const KINDS: [LayerKind; 8] = [
    LayerKind::Model,
    LayerKind::Projector,
    LayerKind::Adapter,
    LayerKind::Template,
    LayerKind::System,
    LayerKind::Parameters,
    LayerKind::Messages,
    LayerKind::License,
];

/// The end of a layer's media type. Ollama has more kinds, which are kept as they are.
fn word(kind: LayerKind) -> &'static str {
    match kind {
        LayerKind::Model => "model",
        LayerKind::Projector => "projector",
        LayerKind::Adapter => "adapter",
        LayerKind::Template => "template",
        LayerKind::System => "system",
        LayerKind::Parameters => "params",
        LayerKind::Messages => "messages",
        LayerKind::License => "license",
        LayerKind::Other => "other",
    }
}

/// A blob, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Layer {
    #[serde(rename = "mediaType")]
    pub media_type: String,
    pub digest: Digest,
    #[serde(default)]
    pub size: u64,
}

impl Layer {
    #[must_use]
    pub fn new(kind: LayerKind, digest: Digest, size: u64) -> Self {
        Self { media_type: format!("{LAYER_TYPE}{}", word(kind)), digest, size }
    }

    #[must_use]
    pub fn kind(&self) -> LayerKind {
        let end = self.media_type.strip_prefix(LAYER_TYPE);
        KINDS.into_iter().find(|kind| end == Some(word(*kind))).unwrap_or(LayerKind::Other)
    }
}

/// The blobs of one model. Several model layers are the shards of one, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    #[serde(default, rename = "schemaVersion")]
    schema_version: u32,
    #[serde(default, rename = "mediaType")]
    media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Layer>,
    #[serde(default)]
    pub layers: Vec<Layer>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    annotations: Map<String, Value>,
}

impl Manifest {
    #[must_use]
    pub fn new(config: Layer, layers: Vec<Layer>, source: Option<&str>) -> Self {
        let annotations = source.map(|source| (SOURCE.to_owned(), Value::from(source))).into_iter().collect();
        Self { schema_version: 2, media_type: MANIFEST_TYPE.into(), config: Some(config), layers, annotations }
    }

    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| format!("is no manifest: {error}"))?;
        if manifest.layers.len() > MAX_LAYERS {
            return Err(format!("names {} layers; at most {MAX_LAYERS} are possible", manifest.layers.len()));
        }
        Ok(manifest)
    }

    /// # Errors
    /// What is wrong with the file, in words.
    pub fn read(path: &Path) -> Result<Self, String> {
        Self::parse(&small_file(path)?)
    }

    /// What it was fetched from, where that is known.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.annotations.get(SOURCE)?.as_str()
    }

    /// What the folder of the shards is called, where the weights lie in several files: by all of them, as models may share some.
    #[must_use]
    pub fn shards_folder(&self) -> Option<String> {
        let digests: Vec<&str> = self.of_kind(LayerKind::Model).map(|layer| layer.digest.hex()).collect();
        (digests.len() > 1).then(|| Digest::of(digests.join("\n").as_bytes()).hex().to_owned())
    }

    pub fn of_kind(&self, kind: LayerKind) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(move |layer| layer.kind() == kind)
    }

    /// All blobs, that of the configuration among them.
    pub fn blobs(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().chain(&self.config)
    }

    /// Bytes of all blobs.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.blobs().map(|layer| layer.size).fold(0, u64::saturating_add)
    }
}

/// The configuration blob of a model that comes without one: what Ollama's own commands show.
#[must_use]
pub fn config(header: &gguf::Header, layers: &[Layer]) -> Vec<u8> {
    let facts = Facts::of(header);
    let ids: Vec<String> = layers.iter().map(|layer| layer.digest.to_string()).collect();
    json!({
        "model_format": "gguf",
        "model_family": facts.architecture,
        "model_families": [facts.architecture],
        "model_type": format!("{}M", facts.parameters / 1_000_000),
        "file_type": facts.quantization,
        "architecture": "amd64",
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": ids },
    })
    .to_string()
    .into_bytes()
}

#[must_use]
pub fn config_layer(config: &[u8]) -> Layer {
    Layer { media_type: CONFIG_TYPE.into(), digest: Digest::of(config), size: config.len() as u64 }
}

/// A manifest, or a layer of text.
pub(in crate::library) fn small_file(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = beginning(path, MAX_BYTES + 1)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("{} is longer than {MAX_BYTES} bytes", path.display()));
    }
    Ok(bytes)
}

/// A layer of text that may be of any length, of which no more than this is of use.
pub(in crate::library) fn long_text(path: &Path) -> Result<String, String> {
    let bytes = beginning(path, MAX_BYTES)?;
    // A character may be cut in two.
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned())
}

fn beginning(path: &Path, bytes: u64) -> Result<Vec<u8>, String> {
    let fail = |error: std::io::Error| format!("cannot be read: {}: {error}", path.display());
    let mut read = Vec::new();
    File::open(path).map_err(fail)?.take(bytes).read_to_end(&mut read).map_err(fail)?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{LayerKind, Manifest};

    fn manifest(digest: &str) -> Vec<u8> {
        json!({ "layers": [{ "mediaType": "application/vnd.ollama.image.params", "digest": digest }] })
            .to_string()
            .into_bytes()
    }

    #[test]
    fn a_digest_cannot_lead_out_of_the_store() {
        let short = "0".repeat(63);
        for digest in ["sha256:../../../etc/passwd", "sha256:", "md5:00", "sha256:zz", &short] {
            let refused = Manifest::parse(&manifest(digest)).expect_err("no digest");
            assert!(refused.contains("is not a SHA-256 digest"), "{refused}");
        }
    }

    #[test]
    fn digests_are_those_of_files_however_they_are_written() {
        for digest in [format!("sha256:{}", "AB".repeat(32)), format!("sha256-{}", "ab".repeat(32))] {
            let read = Manifest::parse(&manifest(&digest)).expect("layers");
            assert_eq!(read.layers[0].kind(), LayerKind::Parameters);
            assert_eq!(read.layers[0].digest.file_name(), format!("sha256-{}", "ab".repeat(32)));
        }
        assert!(Manifest::parse(b"{").is_err() && Manifest::parse(b"{}").is_ok_and(|read| read.layers.is_empty()));
        let many = json!({ "layers": vec![json!({ "mediaType": "x", "digest": "0".repeat(64) }); 5000] }).to_string();
        assert!(Manifest::parse(many.as_bytes()).expect_err("too many").contains("5000 layers"));
    }
}
