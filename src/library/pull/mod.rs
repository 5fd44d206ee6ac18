//! Fetches models from the hub, from Ollama's registry and from plain addresses, and keeps them in shimmy's own store.

mod allowed;
mod digest;
mod download;
mod error;
mod http;
mod hub;
mod make;
pub(super) mod manifest;
mod model_name;
mod ollama;
mod partial;
mod progress;
mod quant;
mod ranges;
mod settings;
mod source;
mod store;
mod upload;
mod web;

use std::path::PathBuf;

pub use allowed::Allowed;
pub use digest::{Digest, NotADigest};
pub use error::PullError;
pub use make::{Made, Recipe, make};
pub use manifest::{Layer, LayerKind, Manifest};
pub use model_name::{ModelName, NotAName};
pub use progress::{Event, Report};
pub use settings::{MAX_CONNECTIONS, Settings};
pub use source::{HubSource, Source};
pub use store::{Removed, Store, StoreError};
pub use upload::Upload;

use crate::gguf;
use download::{Wanted, Way};
use http::Http;

/// A model that is in the store now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    pub name: ModelName,
    /// Its file, or the first of its shards.
    pub path: PathBuf,
    pub size_bytes: u64,
}

/// Blobs that somebody removed while others were being fetched are fetched again.
const MAX_ROUNDS: u32 = 3;

/// Fetches a model, or what is missing of it. Dropping the future stops it; the next call goes on from there.
///
/// # Errors
/// [`PullError`], with what to do.
pub async fn pull(source: &Source, settings: &Settings, report: &Report<'_>) -> Result<Pulled, PullError> {
    let http = Http::new(settings)?;
    let store = Store::new(settings.root.clone());
    let way = Way { http: &http, store: &store, settings, report };
    report(Event::Manifest);
    match source {
        Source::Hub(hub) => pull_from_hub(way, hub).await,
        Source::Ollama(name) => {
            let model = ollama::resolve(way, name).await?;
            let write = || store.write_bytes(name, &model.manifest, &model.text);
            fetch_and_write(way, &model.files, |_| write()).await?;
            pulled(&store, name)
        }
        Source::Url { url, digest } => {
            let name = web::name(url, &store)
                .map_err(|error| PullError::BadSource { asked: source::shown(url), why: error.to_string() })?;
            let files = [web::wanted(url, digest.as_ref())];
            fetch_and_write(way, &files, |fetched| write_new(&store, &name, fetched, None, &source::shown(url)))
                .await?;
            pulled(&store, &name)
        }
    }
}

async fn pull_from_hub(way: Way<'_>, source: &HubSource) -> Result<Pulled, PullError> {
    let bad = |error: NotAName| PullError::BadSource { asked: source.repo.clone(), why: error.why };
    let model = hub::resolve(way, source).await?;
    let (org, repo) = source.repo.split_once('/').unwrap_or((model_name::LIBRARY, &source.repo));
    let name = ModelName::new("hf.co", org, repo, &model_name::as_part(&model.label)).map_err(bad)?;
    let shards = model.files.len();
    let mut files = model.files;
    files.extend(model.projector);
    let write = |fetched: &[(Digest, u64)]| {
        let (shards, projector) = fetched.split_at(shards);
        write_new(way.store, &name, shards, projector.first(), &model.source)
    };
    let done = fetch_and_write(way, &files, write).await;
    done.map_err(|error| match error {
        PullError::Denied { status, advice, .. } => hub::denied(way, source, status, &advice),
        error => error,
    })?;
    pulled(way.store, &name)
}

/// Fetches all files, then makes the model known.
async fn fetch_and_write(
    way: Way<'_>,
    files: &[Wanted],
    write: impl Fn(&[(Digest, u64)]) -> Result<(), StoreError>,
) -> Result<(), PullError> {
    download::check_space_for(way.store, files)?;
    let _pulling = way.store.pulling()?;
    let mut round = 0;
    loop {
        let mut fetched = Vec::new();
        for file in files {
            fetched.push(download::fetch(way, file).await?);
        }
        (way.report)(Event::Writing);
        round += 1;
        match write(&fetched) {
            Err(StoreError::NoSuchBlob(_)) if round < MAX_ROUNDS => {}
            result => return Ok(result?),
        }
    }
}

/// A manifest for files that came without one.
fn write_new(
    store: &Store,
    name: &ModelName,
    shards: &[(Digest, u64)],
    projector: Option<&(Digest, u64)>,
    source: &str,
) -> Result<(), StoreError> {
    let layer = |kind, (digest, size): &(Digest, u64)| Layer::new(kind, digest.clone(), *size);
    let mut layers: Vec<Layer> = shards.iter().map(|file| layer(LayerKind::Model, file)).collect();
    layers.extend(projector.map(|file| layer(LayerKind::Projector, file)));
    let Some(first) = layers.first() else { return Ok(()) };
    let path = store.blob(&first.digest);
    let header = match gguf::Header::open(&path) {
        Err(gguf::GgufError::NotFound(_)) => return Err(StoreError::NoSuchBlob(first.digest.clone())),
        other => other.map_err(|error| StoreError::Damaged { path, what: error.to_string() })?,
    };
    let config = manifest::config(&header, &layers);
    let config_layer = manifest::config_layer(&config);
    store.add_bytes(&config_layer.digest, &config)?;
    store.write(name, &Manifest::new(config_layer, layers, Some(source)))
}

fn pulled(store: &Store, name: &ModelName) -> Result<Pulled, PullError> {
    let gone = || StoreError::NoSuchModel { asked: name.to_string(), root: store.root().to_owned() };
    let manifest = store.get(name).ok_or_else(gone)?;
    let path = store.model_file(&manifest).ok_or_else(gone)?;
    Ok(Pulled { name: name.clone(), path, size_bytes: manifest.size() })
}

/// Removes what pulls that did not end left behind. Returns how many bytes that frees.
///
/// # Errors
/// Where something cannot be removed.
pub fn remove_unfinished(store: &Store) -> Result<u64, StoreError> {
    partial::remove_unfinished(store).map_err(store::at(store.root()))
}
