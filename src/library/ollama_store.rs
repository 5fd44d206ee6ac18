//! Reads what Ollama has downloaded: a manifest names blobs, one of which is the GGUF file.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::found::{OllamaLayers, Problem};
use super::notes::{Notes, Seen};
use super::pull::Digest;
use super::pull::manifest::{Layer, LayerKind, Manifest, long_text, small_file};
use super::shards::{self, Group};
use super::walk::File;

/// Where shimmy's own store gives shards their names. Ollama has no models in several files.
pub(super) const SHARDS: &str = "shards";
/// Folders of a store, in which models are found by their manifests alone. Some change all the time while something is fetched.
pub(super) const FOLDERS: [&str; 4] = ["blobs", "manifests", "partial", SHARDS];

/// A manifest and its blobs.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// `llama3:8b`, `me/model:latest`.
    pub name: String,
    /// With the namespace that names leave out, and with the host.
    pub longer: Vec<String>,
    pub weights: Group,
    pub projector: Option<File>,
    pub layers: OllamaLayers,
}

/// Whether a folder is a store of Ollama's.
pub(super) fn is_store(dir: &Path) -> bool {
    dir.join("manifests").is_dir() && dir.join("blobs").is_dir()
}

/// The models of the store in `dir`. Manifests lie at `manifests/HOST/NAMESPACE/MODEL/TAG`.
pub(super) fn models(dir: &Path, notes: &mut Notes) -> Vec<Stored> {
    let manifests = dir.join("manifests");
    let mut found = Vec::new();
    // What is looked at is noted before it is read, and `WalkDir` reads folders after it has named them.
    notes.seen.note(&manifests);
    for entry in WalkDir::new(&manifests).max_depth(4).sort_by_file_name() {
        if let Ok(entry) = entry.as_ref()
            && entry.depth() > 0
        {
            notes.seen.note(entry.path());
        }
        let problem = |path: &Path, what: String| Problem { path: path.to_owned(), what };
        match entry {
            Ok(entry) if entry.depth() == 4 && entry.path().is_file() => {
                match stored(dir, &manifests, entry.path(), &mut notes.seen) {
                    Ok(model) => found.extend(model),
                    Err(what) => notes.problems.push(problem(entry.path(), what)),
                }
            }
            Ok(_) => {}
            Err(error) => {
                let is_absent = error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound);
                if let Some(path) = error.path().filter(|_| !is_absent) {
                    notes.problems.push(problem(path, format!("cannot be read: {error}")));
                }
            }
        }
    }
    found
}

/// `None` where it has no weights here: the model runs elsewhere, or in another format.
fn stored(dir: &Path, manifests: &Path, path: &Path, seen: &mut Seen) -> Result<Option<Stored>, String> {
    let below = path.strip_prefix(manifests).map_err(|error| error.to_string())?;
    let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy().to_lowercase()).collect();
    let [host, namespace, model, tag] = parts.as_slice() else { return Ok(None) };
    let text = small_file(path)?;
    let manifest = Manifest::parse(&text)?;
    let mut blobs = Blobs { dir, seen };
    let weights: Vec<&Layer> = manifest.of_kind(LayerKind::Model).collect();
    let Some(weights) = blobs.weights(manifest.shards_folder(), &weights)? else { return Ok(None) };
    let short = format!("{model}:{tag}");
    let full = format!("{namespace}/{short}");
    let name = if namespace == "library" { short } else { full.clone() };
    let mut longer = vec![full.clone(), format!("{host}/{full}")];
    longer.retain(|longer| *longer != name);
    Ok(Some(Stored {
        name,
        longer,
        weights,
        projector: manifest.of_kind(LayerKind::Projector).next().map(|layer| blobs.blob(layer)).transpose()?,
        layers: OllamaLayers {
            manifest: path.to_owned(),
            digest: Digest::of(&text).hex().to_owned(),
            ..blobs.read(&manifest.layers)?
        },
    }))
}

/// The files of a store, each of which is noted before it is looked at.
struct Blobs<'a> {
    dir: &'a Path,
    seen: &'a mut Seen,
}

impl Blobs<'_> {
    fn file(&mut self, path: PathBuf) -> Option<File> {
        self.seen.note(&path);
        File::at(path)
    }

    fn blob(&mut self, layer: &Layer) -> Result<File, String> {
        let path = self.dir.join("blobs").join(layer.digest.file_name());
        let lack = format!("needs {}, which is not there; pull the model again", path.display());
        self.file(path).ok_or(lack)
    }

    fn weights(&mut self, folder: Option<String>, layers: &[&Layer]) -> Result<Option<Group>, String> {
        let Some(folder) = folder else {
            return layers.first().map(|layer| self.blob(layer).map(Group::of_one)).transpose();
        };
        let dir = self.dir.join(SHARDS).join(folder);
        let name = |number| format!("model-{number:05}-of-{:05}.gguf", layers.len());
        let files = (1..=layers.len()).filter_map(|number| self.file(dir.join(name(number)))).collect();
        let group = shards::group(files).into_iter().next().filter(|group| group.has_first);
        group.map(Some).ok_or_else(|| format!("needs {}, which is not there; pull the model again", dir.display()))
    }

    fn read(&mut self, layers: &[Layer]) -> Result<OllamaLayers, String> {
        let mut read = OllamaLayers::default();
        for layer in layers {
            let damaged = |error: serde_json::Error| format!("its layer {} is damaged: {error}", layer.digest);
            match layer.kind() {
                LayerKind::Template => read.template = Some(self.text(layer)?),
                LayerKind::System => read.system = Some(self.text(layer)?),
                LayerKind::Parameters => {
                    read.parameters = serde_json::from_slice(&self.bytes(layer)?).map_err(damaged)?;
                }
                LayerKind::Messages => {
                    read.messages = serde_json::from_slice(&self.bytes(layer)?).map_err(damaged)?;
                }
                LayerKind::License => read.licenses.push(long_text(&self.blob(layer)?.path)?),
                LayerKind::Adapter => read.adapters.push(self.blob(layer)?.path),
                LayerKind::Model | LayerKind::Projector | LayerKind::Other => {}
            }
        }
        Ok(read)
    }

    fn bytes(&mut self, layer: &Layer) -> Result<Vec<u8>, String> {
        small_file(&self.blob(layer)?.path)
    }

    fn text(&mut self, layer: &Layer) -> Result<String, String> {
        Ok(String::from_utf8_lossy(&self.bytes(layer)?).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use serde_json::json;

    use super::models;
    use crate::library::notes::Notes;

    fn digest(n: u8) -> String {
        format!("sha256:{n:064x}")
    }

    fn write_blob(store: &Path, n: u8, text: &str) -> PathBuf {
        let path = store.join("blobs").join(digest(n).replace(':', "-"));
        std::fs::create_dir_all(store.join("blobs")).expect("created");
        std::fs::write(&path, text).expect("written");
        path
    }

    fn write_manifest(store: &Path, name: &str, layers: &[(&str, u8)]) {
        let path = store.join("manifests").join(name);
        let layer = |(kind, n): &(&str, u8)| json!({ "mediaType": format!("application/vnd.ollama.image.{kind}"), "digest": digest(*n), "size": 1 });
        let layers: Vec<_> = layers.iter().map(layer).collect();
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("created");
        std::fs::write(path, json!({ "schemaVersion": 2, "layers": layers }).to_string()).expect("written");
    }

    #[test]
    fn a_manifest_leads_to_its_blobs() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = dir.path();
        let layers = [
            ("license", 1),
            ("model", 2),
            ("template", 3),
            ("system", 4),
            ("params", 5),
            ("messages", 6),
            ("adapter", 7),
            ("projector", 8),
            ("newer", 9),
        ];
        write_manifest(store, "host/library/Llama3/8b", &layers);
        let mut notes = Notes::default();
        assert!(models(store, &mut notes).is_empty(), "the blobs are missing");
        assert!(notes.problems[0].what.contains("is not there; pull the model again"), "{notes:?}");
        let texts =
            ["free", "GGUF", "{{ .Prompt }}", "Be brief.", r#"{"num_ctx":512}"#, r#"[{"role":"user"}]"#, "a", "p"];
        let blobs: Vec<_> = (1..).zip(texts).map(|(n, text)| write_blob(store, n, text)).collect();
        let found = models(store, &mut Notes::default());
        let model = &found[0];
        assert_eq!((model.name.as_str(), &model.weights.first().path), ("llama3:8b", &blobs[1]));
        assert_eq!(model.longer, ["library/llama3:8b", "host/library/llama3:8b"]);
        assert_eq!(model.layers.template.as_deref(), Some("{{ .Prompt }}"));
        assert_eq!(model.layers.system.as_deref(), Some("Be brief."));
        assert_eq!(model.layers.parameters["num_ctx"], 512);
        assert_eq!(model.layers.messages, [json!({ "role": "user" })]);
        assert_eq!(model.layers.licenses, ["free"]);
        assert_eq!(model.layers.adapters, [blobs[6].clone()]);
        assert_eq!(model.projector.as_ref().map(|file| &file.path), Some(&blobs[7]));
    }

    #[test]
    fn a_licence_may_be_of_any_length() {
        let dir = tempfile::tempdir().expect("a directory");
        write_blob(dir.path(), 1, "GGUF");
        write_blob(dir.path(), 2, &format!("x{}", "é".repeat(1 << 20)));
        write_manifest(dir.path(), "host/library/wordy/latest", &[("model", 1), ("license", 2)]);
        let mut notes = Notes::default();
        let found = models(dir.path(), &mut notes);
        assert_eq!(found.len(), 1, "{:?}", notes.problems);
        let shown = &found[0].layers.licenses[0];
        assert!(shown.starts_with("xéé") && shown.ends_with('é') && shown.len() == (1 << 20) - 1, "{}", shown.len());
    }

    #[test]
    fn names_have_their_namespace_but_for_the_library() {
        let dir = tempfile::tempdir().expect("a directory");
        write_blob(dir.path(), 1, "GGUF");
        write_manifest(dir.path(), "host/me/mine/latest", &[("model", 1)]);
        write_manifest(dir.path(), "host/library/remote/cloud", &[("template", 1)]);
        let found = models(dir.path(), &mut Notes::default());
        let names: Vec<_> = found.iter().map(|model| model.name.as_str()).collect();
        assert_eq!(names, ["me/mine:latest"], "one without weights is none");
        assert_eq!(found[0].longer, ["host/me/mine:latest"]);
    }
}
