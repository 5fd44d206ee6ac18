//! Reads the models that Ollama has downloaded: manifests name blobs, one of which is the GGUF file.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use walkdir::WalkDir;

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
}

/// Names (`llama3:latest`) and files of the store in `dir`. Manifests lie at `manifests/HOST/NAMESPACE/MODEL/TAG`.
pub(super) fn models(dir: &Path) -> Vec<(String, PathBuf)> {
    let manifests = dir.join("manifests");
    let walk = WalkDir::new(&manifests).min_depth(4).max_depth(4).sort_by_file_name();
    walk.into_iter().flatten().filter_map(|entry| model(dir, &manifests, entry.path())).collect()
}

fn model(dir: &Path, manifests: &Path, path: &Path) -> Option<(String, PathBuf)> {
    let parts: Vec<_> =
        path.strip_prefix(manifests).ok()?.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let [_, namespace, model, tag] = parts.as_slice() else { return None };
    let manifest: Manifest = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let layer = manifest.layers.into_iter().find(|layer| layer.media_type == "application/vnd.ollama.image.model")?;
    let blob = dir.join("blobs").join(layer.digest.replace(':', "-"));
    let name = if namespace == "library" { format!("{model}:{tag}") } else { format!("{namespace}/{model}:{tag}") };
    blob.is_file().then(|| (name.to_lowercase(), blob))
}

#[cfg(test)]
mod tests {
    use super::models;

    #[test]
    fn a_manifest_leads_to_its_blob() {
        let dir = tempfile::tempdir().expect("a directory");
        let tag = dir.path().join("manifests/host/library/Llama3/8b");
        std::fs::create_dir_all(tag.parent().expect("a parent")).expect("created");
        let manifest = r#"{"layers":[{"mediaType":"application/vnd.ollama.image.license","digest":"sha256:00"},
            {"mediaType":"application/vnd.ollama.image.model","digest":"sha256:ab"}]}"#;
        std::fs::write(&tag, manifest).expect("written");
        assert!(models(dir.path()).is_empty(), "the blob is missing");
        std::fs::create_dir(dir.path().join("blobs")).expect("created");
        let blob = dir.path().join("blobs/sha256-ab");
        std::fs::write(&blob, "GGUF").expect("written");
        assert_eq!(models(dir.path()), [("llama3:8b".to_owned(), blob)]);
    }
}
