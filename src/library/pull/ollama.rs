//! Ollama's registry: a manifest, and blobs by digest.

use reqwest::{StatusCode, Url};

use super::download::{Wanted, Way};
use super::error::PullError;
use super::http::{Ask, Failure};
use super::manifest::{Layer, MANIFEST_TYPE, Manifest};
use super::model_name::{ModelName, OLLAMA_HOST};
use super::source::shown;
use crate::library::LayerKind;

const MAX_MANIFEST: usize = 1 << 20;
/// Templates, licences and such like are no larger.
const MAX_SMALL: u64 = 16 << 20;

pub(super) struct OllamaModel {
    pub manifest: Manifest,
    /// The manifest as it was sent.
    pub text: Vec<u8>,
    pub files: Vec<Wanted>,
}

/// Asks the registry what `name` is made of.
pub(super) async fn resolve(way: Way<'_>, name: &ModelName) -> Result<OllamaModel, PullError> {
    let address =
        if name.host == OLLAMA_HOST { way.settings.registry.clone() } else { format!("https://{}", name.host) };
    let bad = |why: String| PullError::BadSource { asked: address.clone(), why };
    let base = Url::parse(&address).map_err(|error| bad(error.to_string()))?;
    if base.cannot_be_a_base() {
        return Err(bad("SHIMMY_OLLAMA_REGISTRY must be an address such as https://example.com".into()));
    }
    let at = |parts: [&str; 2]| {
        let mut url = base.clone();
        // It can be a base; that was looked at.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["v2", &name.namespace, &name.model]).extend(parts);
        }
        url
    };
    let url = at(["manifests", &name.tag]);
    let ask = Ask { accept: Some(MANIFEST_TYPE), ..Ask::new(&url, None) };
    let got = way.http.small(&ask, MAX_MANIFEST, way.report).await;
    let (_, text) = got.map_err(|failure| refused(name, &url, failure))?;
    let wrong = |reason: String| PullError::Server { url: shown(&url), reason };
    let manifest = Manifest::parse(&text).map_err(|what| wrong(format!("its answer {what}")))?;
    if manifest.of_kind(LayerKind::Model).next().is_none() {
        return Err(wrong("this model has no weights in GGUF; choose another tag".into()));
    }
    let is_gguf = |layer: &Layer| matches!(layer.kind(), LayerKind::Model | LayerKind::Projector | LayerKind::Adapter);
    if let Some(large) = manifest.blobs().find(|layer| !is_gguf(layer) && layer.size > MAX_SMALL) {
        return Err(wrong(format!("{} has {} bytes, too many for {}", large.digest, large.size, large.media_type)));
    }
    let wanted = |layer: &Layer| Wanted {
        url: at(["blobs", &layer.digest.to_string()]),
        authorization: None,
        what: layer.digest.short().to_owned(),
        digest: Some(layer.digest.clone()),
        size: Some(layer.size),
        is_gguf: is_gguf(layer),
    };
    let files = manifest.blobs().map(wanted).collect();
    Ok(OllamaModel { manifest, text, files })
}

fn refused(name: &ModelName, url: &Url, failure: Failure) -> PullError {
    match failure {
        Failure::Refused { status: StatusCode::NOT_FOUND, reason } => PullError::NotFound {
            what: format!("model '{name}' in the registry of {}", name.host),
            advice: format!("{reason}; a model of the hub is hf:ORG/REPO"),
        },
        Failure::Refused { status: status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), reason } => {
            PullError::Denied {
                what: format!("model '{name}'"),
                status: status.as_u16(),
                advice: format!("{reason}; the name may be wrong, and private models cannot be fetched"),
            }
        }
        failure => failure.into_error(url),
    }
}
