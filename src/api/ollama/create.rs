//! Ollama's request body of `POST /api/create`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::common::without_nulls;
use crate::api::{BadRequest, from_value_noting_ignored, is_empty, schema};
use crate::library::pull::{Digest, Recipe};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(
    rename = "ollama.CreateRequest",
    description = "A model to be made out of another one (`from`), or out of GGUF files that were sent (`files`)."
)]
struct Fields {
    model: Option<String>,
    /// The older name of the field.
    name: Option<String>,
    from: Option<String>,
    /// Digests of files that were sent to `/api/blobs`, by their names.
    files: Option<BTreeMap<String, String>>,
    /// The same for LoRA adapters.
    adapters: Option<BTreeMap<String, String>>,
    template: Option<String>,
    license: Option<Licenses>,
    system: Option<String>,
    /// Named as in `options`.
    parameters: Option<Map<String, Value>>,
    /// Turns that stand before each conversation.
    messages: Option<Vec<Value>>,
    stream: Option<bool>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Licenses {
    One(String),
    Many(Vec<String>),
}

/// Fields whose meaning would be lost if we passed over them, with what there is to say.
const NOT_SERVED: &[(&str, &str)] = &[
    ("quantize", "shimmy does not quantise; pull or send the model in the quantisation that is wanted"),
    ("quantization", "shimmy does not quantise; pull or send the model in the quantisation that is wanted"),
    (
        "modelfile",
        "that is the older form; give what it says in `from`, `files`, `system`, `template` and `parameters`",
    ),
    ("path", "that is the older form; send the file to /api/blobs and name it in `files`"),
    ("remote_host", "no model here runs elsewhere"),
];

/// What is to be made.
#[derive(Clone, Debug)]
pub struct CreateRequest {
    pub name: String,
    pub from: Option<String>,
    /// Without its base, which `from` names.
    pub recipe: Recipe,
    pub streams: bool,
    /// Paths of the fields that are passed over.
    pub ignored: Vec<String>,
}

schema::described_by!(CreateRequest, Fields);

impl CreateRequest {
    /// # Errors
    /// A field that is missing, of a wrong type, or asks for what is not served.
    pub fn from_value(mut body: Value) -> Result<Self, BadRequest> {
        without_nulls(&mut body);
        for (field, why) in NOT_SERVED {
            if body.get(*field).is_some_and(|value| !is_empty(value)) {
                return Err(BadRequest(format!("`{field}`: {why}")));
            }
        }
        let (fields, mut ignored) = from_value_noting_ignored::<Fields>(body)?;
        ignored.retain(|path| NOT_SERVED.iter().all(|(field, _)| path != field));
        let named = |name: &String| !name.is_empty();
        let name = fields.model.filter(named).or(fields.name.filter(named));
        let name = name.ok_or_else(|| BadRequest("`model` is missing".into()))?;
        let from = fields.from.filter(named);
        let files = digests("files", fields.files)?;
        match (&from, files.is_empty()) {
            (None, true) => return Err(BadRequest("neither `from` nor `files` was given".into())),
            (Some(_), false) => return Err(BadRequest("give `from` or `files`, not both".into())),
            _ => {}
        }
        let licenses = match fields.license {
            None => Vec::new(),
            Some(Licenses::One(text)) => vec![text],
            Some(Licenses::Many(texts)) => texts,
        };
        let recipe = Recipe {
            base: None,
            files,
            adapters: digests("adapters", fields.adapters)?,
            template: fields.template.filter(named),
            system: fields.system.filter(named),
            parameters: fields.parameters.unwrap_or_default(),
            messages: fields.messages.unwrap_or_default(),
            licenses: licenses.into_iter().filter(named).collect(),
        };
        Ok(Self { name, from, recipe, streams: fields.stream.unwrap_or(true), ignored })
    }
}

fn digests(field: &str, files: Option<BTreeMap<String, String>>) -> Result<BTreeMap<String, Digest>, BadRequest> {
    let read = |(name, text): (String, String)| match text.parse() {
        Ok(digest) => Ok((name, digest)),
        Err(error) => Err(BadRequest(format!("{field}.{name}: {error}"))),
    };
    files.unwrap_or_default().into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::CreateRequest;

    fn read(body: Value) -> Result<CreateRequest, String> {
        CreateRequest::from_value(body).map_err(|error| error.0)
    }

    #[test]
    fn what_ollamas_clients_send_is_read() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let body = json!({
            "name": "mine", "files": { "m.gguf": digest }, "license": "free", "system": "", "parameters": null,
            "quantize": "", "modelfile": null, "template": "{{ .Prompt }}", "stream": false, "insecure": true
        });
        let read = read(body).expect("it is served");
        assert_eq!((read.name.as_str(), read.from.as_deref(), read.streams), ("mine", None, false));
        assert_eq!(
            (read.recipe.files.len(), read.recipe.system.as_deref(), read.recipe.licenses.as_slice()),
            (1, None, &["free".to_owned()][..])
        );
        assert_eq!(read.ignored, ["insecure"]);
    }

    #[test]
    fn what_would_be_missed_is_refused() {
        let with = |more: Value| {
            let mut body = json!({ "model": "mine", "from": "base" });
            body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            read(body).expect_err("it would be missed")
        };
        assert!(with(json!({ "quantize": "q4_K_M" })).starts_with("`quantize`: shimmy does not quantise"));
        assert!(with(json!({ "modelfile": "FROM x" })).starts_with("`modelfile`: "));
        assert!(with(json!({ "from": "" })).starts_with("neither `from` nor `files`"));
        assert!(with(json!({ "files": { "a": "0".repeat(64) } })).starts_with("give `from` or `files`"));
        assert!(with(json!({ "adapters": { "a": "md5:0" } })).starts_with("adapters.a: \"md5:0\" is not a SHA-256"));
        assert!(with(json!({ "parameters": [] })).starts_with("parameters: "));
        assert_eq!(read(json!({ "from": "x" })).expect_err("no name"), "`model` is missing");
    }
}
