//! Manifests of the store, in the form that Ollama reads and writes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::digest::Digest;
use crate::gguf;
use crate::library::{Facts, LayerKind};

pub const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";
const LAYER_TYPE: &str = "application/vnd.ollama.image.";
/// Where a manifest says what it was fetched from.
const SOURCE: &str = "shimmy.source";

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
    pub size: u64,
}

impl Layer {
    #[must_use]
    pub fn new(kind: LayerKind, digest: Digest, size: u64) -> Self {
        Self { media_type: format!("{LAYER_TYPE}{}", word(kind)), digest, size }
    }

    #[must_use]
    pub fn is(&self, kind: LayerKind) -> bool {
        self.media_type.strip_prefix(LAYER_TYPE) == Some(word(kind))
    }
}

/// The blobs of one model. Several model layers are the shards of one, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType")]
    media_type: String,
    pub config: Layer,
    pub layers: Vec<Layer>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    annotations: Map<String, Value>,
}

impl Manifest {
    #[must_use]
    pub fn new(config: Layer, layers: Vec<Layer>, source: Option<&str>) -> Self {
        let annotations = source.map(|source| (SOURCE.to_owned(), Value::from(source))).into_iter().collect();
        Self { schema_version: 2, media_type: MANIFEST_TYPE.into(), config, layers, annotations }
    }

    /// What it was fetched from, where that is known.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.annotations.get(SOURCE)?.as_str()
    }

    pub fn of_kind(&self, kind: LayerKind) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(move |layer| layer.is(kind))
    }

    /// All blobs, that of the configuration among them.
    pub fn blobs(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().chain([&self.config])
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
