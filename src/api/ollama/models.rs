//! What Ollama's clients ask about models: which there are, which are loaded, and what one is.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::shown;
use crate::api::{BadRequest, read_body, schema, written};
use crate::gguf;
use crate::library::{Capability, Facts, OllamaLayers};
use crate::registry::{ModelStatus, State};

/// Names a model, and for `/api/pull` how to answer.
#[derive(Clone, Debug)]
pub struct ModelRequest {
    pub name: String,
    pub streams: bool,
    /// Paths of the fields that are passed over.
    pub ignored: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ollama.ModelRequest", description = "Names a model, in `model` or in its older name `name`.")]
struct ModelFields {
    model: Option<String>,
    /// The older name of the field.
    name: Option<String>,
    stream: Option<bool>,
}

schema::described_by!(ModelRequest, ModelFields);

impl ModelRequest {
    /// # Errors
    /// A field of a wrong type, or no name.
    pub fn from_value(body: Value) -> Result<Self, BadRequest> {
        let (fields, ignored) = read_body::<ModelFields>(&body)?;
        let named = |name: &String| !name.is_empty();
        let name = fields.model.filter(named).or(fields.name.filter(named));
        let name = name.ok_or_else(|| BadRequest("`model` is missing".into()))?;
        Ok(Self { name, streams: fields.stream.unwrap_or(true), ignored })
    }
}

/// `/api/copy`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ollama.CopyRequest", description = "A model, and another name for it.")]
pub struct CopyRequest {
    pub source: String,
    pub destination: String,
}

impl CopyRequest {
    /// # Errors
    /// A field that is missing, empty or of a wrong type.
    pub fn from_value(body: Value) -> Result<Self, BadRequest> {
        let request: Self = crate::api::from_value(body)?;
        if request.source.is_empty() || request.destination.is_empty() {
            return Err(BadRequest("`source` and `destination` must name models".into()));
        }
        Ok(request)
    }
}

/// Ollama's words, which clients look for. `near` are names that are much alike, best first.
#[must_use]
pub fn model_not_found(name: &str, near: &[String]) -> String {
    let guess = near.first().map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
    format!("model '{name}' not found{guess}")
}

/// `/api/tags`: all models, each with the digest of the manifest that it came with.
#[must_use]
pub fn tags(models: &[(ModelStatus, Option<String>)]) -> Value {
    let entries = models.iter().map(|(model, manifest)| {
        let name = with_tag(&model.name);
        json!({
            "name": name,
            "model": name,
            "modified_at": modified_at(model),
            "size": model.size_bytes,
            "digest": digest(model, manifest.as_deref()),
            "details": details(model),
        })
    });
    json!({ "models": entries.collect::<Vec<_>>() })
}

/// Clients show a time this far away as "for ever".
const NEVER: &str = "2300-01-01T00:00:00Z";

/// `/api/ps`: the models that are loaded. As [`tags`].
#[must_use]
pub fn loaded(models: &[(ModelStatus, Option<String>)]) -> Value {
    let entries = models.iter().filter(|(model, _)| model.state == State::Loaded).filter_map(|(model, manifest)| {
        let info = model.info.as_ref()?;
        let name = with_tag(&model.name);
        let devices = info.placement.devices.iter();
        let bytes = devices.map(|on| (on.total_bytes(), on.description.is_empty()));
        let (mut size, mut vram) = (0, 0);
        for (taken, is_cpu) in bytes {
            size += taken;
            vram += if is_cpu { 0 } else { taken };
        }
        Some(json!({
            "name": name,
            "model": name,
            "size": size,
            "digest": digest(model, manifest.as_deref()),
            "details": details(model),
            "expires_at": model.expires_at.and_then(|at| jiff::Timestamp::try_from(at).ok()).map_or(NEVER.into(), |at| at.to_string()),
            "size_vram": vram,
            "context_length": info.context_tokens,
        }))
    });
    json!({ "models": entries.collect::<Vec<_>>() })
}

/// Values of an architecture that `/api/show` tells beside its context length.
const MODEL_INFO: &[&str] =
    &["embedding_length", "block_count", "attention.head_count", "attention.head_count_kv", "feed_forward_length"];

/// `/api/show`: one model. `header` is that of its file, `layers` what is kept with it.
#[must_use]
pub fn show(model: &ModelStatus, header: Option<&gguf::Header>, layers: Option<&OllamaLayers>) -> Value {
    let facts = model.facts.as_ref();
    let from = model.path.as_deref().unwrap_or(&model.name);
    let license = facts.and_then(|facts| facts.license.as_deref()).unwrap_or_default();
    let template = facts.and_then(|facts| facts.template.as_deref()).unwrap_or_default();
    let mut shown = json!({
        "license": license,
        "modelfile": shown::modelfile(from, layers),
        "parameters": layers.map(|layers| shown::parameters(&layers.parameters)).unwrap_or_default(),
        "template": template,
        "details": details(model),
        "model_info": model_info(model, header),
        "capabilities": capabilities(facts),
        "modified_at": modified_at(model),
    });
    if let Some(layers) = layers {
        shown::add(layers, &mut shown);
    }
    shown
}

fn model_info(model: &ModelStatus, header: Option<&gguf::Header>) -> Map<String, Value> {
    let architecture = architecture(model);
    let loaded = model.info.as_ref();
    let parameters = model.facts.as_ref().map(|facts| facts.parameters).or(loaded.map(|info| info.parameters));
    let trained = model.facts.as_ref().map(|facts| facts.trained_context_tokens).filter(|tokens| *tokens > 0);
    let context = trained.or(loaded.map(|info| info.context_tokens as u64));
    let mut info = Map::new();
    info.insert("general.architecture".into(), architecture.into());
    info.insert("general.parameter_count".into(), parameters.unwrap_or(0).into());
    info.insert(format!("{architecture}.context_length"), context.unwrap_or(0).into());
    for key in MODEL_INFO {
        if let Some(number) = header.and_then(|header| header.get_of_architecture(key)?.as_u64()) {
            info.insert(format!("{architecture}.{key}"), number.into());
        }
    }
    info
}

/// In Ollama's words. It has none for chat and for ranking.
fn capabilities(facts: Option<&Facts>) -> Vec<&'static str> {
    let Some(facts) = facts else { return vec!["completion"] };
    let word = |capability: &Capability| match capability {
        Capability::Completion => Some("completion"),
        Capability::Tools => Some("tools"),
        Capability::Thinking => Some("thinking"),
        Capability::Fim => Some("insert"),
        Capability::Embeddings => Some("embedding"),
        Capability::Vision => Some("vision"),
        Capability::Chat | Capability::Rerank => None,
    };
    facts.capabilities.iter().filter_map(word).collect()
}

/// Ollama's names have a tag, and Open WebUI finds no model without one.
fn with_tag(name: &str) -> String {
    if name.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

fn architecture(model: &ModelStatus) -> &str {
    match (&model.facts, &model.path) {
        (Some(facts), _) => &facts.architecture,
        (None, Some(_)) => "unknown",
        (None, None) => "stub",
    }
}

fn details(model: &ModelStatus) -> Value {
    let family = architecture(model);
    let facts = model.facts.as_ref();
    json!({
        "parent_model": "",
        "format": if model.path.is_some() { "gguf" } else { "stub" },
        "family": family,
        "families": [family],
        "parameter_size": facts.map_or(String::new(), |facts| parameter_size(facts.parameters)),
        "quantization_level": facts.map_or("", |facts| &facts.quantization),
    })
}

/// `134.52M`, `8.0B`.
#[allow(clippy::cast_precision_loss)] // Three digits are shown.
fn parameter_size(count: u64) -> String {
    match count {
        1_000_000_000.. => format!("{:.1}B", count as f64 / 1e9),
        1_000_000.. => format!("{:.2}M", count as f64 / 1e6),
        1_000.. => format!("{:.2}K", count as f64 / 1e3),
        _ => count.to_string(),
    }
}

/// When its file was last written. A model without one has been there since the epoch.
fn modified_at(model: &ModelStatus) -> String {
    let seconds = i64::try_from(written(model)).unwrap_or(0);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// The SHA-256 of a model's manifest, as Ollama's, which clients compare and show the beginning of. A model without one gets what
/// looks like it: a real one would mean reading gigabytes; this one changes when the file does. It is FNV-1a over path, size and time, or over the name
/// of a model without a file, four times from different beginnings.
fn digest(model: &ModelStatus, manifest: Option<&str>) -> String {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    if let Some(manifest) = manifest {
        return manifest.to_owned();
    }
    let of = match &model.path {
        Some(path) => format!("{path}\n{}\n{}", model.size_bytes, modified_at(model)),
        None => model.name.clone(),
    };
    let quarter = |beginning: u8| {
        let bytes = std::iter::once(beginning).chain(of.bytes());
        bytes.fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
    };
    (0..4).map(|beginning| format!("{:016x}", quarter(beginning))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{ModelRequest, State, digest, loaded, parameter_size, show, tags};
    use crate::gguf::{Header, writer::tiny_llama};
    use crate::library::Facts;
    use crate::placement::{DeviceUse, PlacementReport};
    use crate::registry::ModelStatus;
    use crate::runner::RunnerInfo;

    fn status(path: Option<String>) -> ModelStatus {
        let facts = path.as_ref().map(|_| Facts {
            architecture: "llama".into(),
            quantization: "Q4_1".into(),
            trained_context_tokens: 512,
            parameters: 134_515_008,
            ..Facts::default()
        });
        ModelStatus { name: "m".into(), path, size_bytes: 7, facts, ..ModelStatus::default() }
    }

    #[test]
    fn a_file_is_shown_with_what_its_header_says() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("m.gguf");
        let mut writer = tiny_llama();
        writer.string("tokenizer.chat_template", "{% if tools %}").string("general.license", "mit");
        writer.write(&path).expect("written");
        let header = Header::open(&path).expect("a header");
        let file = Some(path.display().to_string());
        let facts = Facts { parameters: 134_515_008, ..Facts::of(&header) };
        let model = ModelStatus { facts: Some(facts), ..status(file.clone()) };
        let shown = show(&model, Some(&header), None);
        assert_eq!((&shown["template"], &shown["license"]), (&json!("{% if tools %}"), &json!("mit")));
        assert_eq!(shown["capabilities"], json!(["completion", "tools"]));
        let info = &shown["model_info"];
        assert_eq!((&info["general.architecture"], &info["llama.context_length"]), (&json!("llama"), &json!(512)));
        assert_eq!((&info["general.parameter_count"], &info["llama.block_count"]), (&json!(134_515_008), &json!(2)));
        assert_eq!(shown["details"]["parameter_size"], "134.52M");

        let listed = tags(&[(model, None)]);
        let entry = &listed["models"][0];
        assert_eq!((&entry["name"], &entry["model"]), (&json!("m:latest"), &json!("m:latest")));
        assert!(entry["modified_at"].as_str().is_some_and(|time| time > "2020" && time.ends_with('Z')), "{entry}");

        writer.u32("llama.pooling_type", 1);
        writer.write(&path).expect("written");
        let header = Header::open(&path).expect("a header");
        let model = ModelStatus { facts: Some(Facts::of(&header)), ..status(file) };
        assert_eq!(show(&model, Some(&header), None)["capabilities"], json!(["embedding"]));
    }

    #[test]
    fn only_what_a_gpu_holds_is_video_memory() {
        let on = |description: &str, weights| DeviceUse {
            description: description.into(),
            weights_bytes: weights,
            context_bytes: 20,
            compute_bytes: 3,
            adapter_bytes: 4,
            ..DeviceUse::default()
        };
        let placement = PlacementReport {
            backend: "cuda".into(),
            devices: vec![on("", 100), on("A card", 1000)],
            gpu_layers: 1,
            total_layers: 2,
            why: String::new(),
        };
        let mut model = status(None);
        assert_eq!(loaded(&[(model.clone(), None)]), json!({ "models": [] }));
        model.state = State::Loaded;
        model.info = Some(RunnerInfo {
            description: String::new(),
            size_bytes: 0,
            parameters: 0,
            context_tokens: 64,
            parallel: 1,
            threads: 1,
            template: "none".into(),
            adapters: Vec::new(),
            draft: None,
            projector: None,
            placement,
            load_ms: 0.0,
        });
        let entry = &loaded(&[(model, None)])["models"][0];
        assert_eq!((&entry["size"], &entry["size_vram"]), (&json!(1154), &json!(1027)));
        assert_eq!(entry["context_length"], 64);
    }

    #[test]
    fn digests_look_like_sha_256_and_tell_models_apart() {
        let digest = |model: &ModelStatus| digest(model, None);
        let one = digest(&status(None));
        assert_eq!(one.len(), 64);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(one, digest(&status(None)));
        assert_ne!(one, digest(&ModelStatus { name: "n".into(), ..status(None) }));
        let file = status(Some("/a".into()));
        assert_ne!(digest(&file), digest(&ModelStatus { size_bytes: 8, ..file.clone() }));
        assert_eq!(super::digest(&file, Some("ab")), "ab");
    }

    #[test]
    fn the_older_name_of_a_field_counts() {
        let read = |body| ModelRequest::from_value(body);
        assert_eq!(read(json!({ "name": "a", "model": "" })).expect("a name").name, "a");
        assert_eq!(read(json!({ "name": "a", "model": "b" })).expect("a name").name, "b");
        assert_eq!(read(json!({ "stream": true })).expect_err("no name").0, "`model` is missing");
    }

    #[test]
    fn sizes_are_short() {
        let sizes = [999, 22_000, 8_030_261_312, 70_553_706_496].map(parameter_size);
        assert_eq!(sizes, ["999", "22.00K", "8.0B", "70.6B"]);
    }
}
