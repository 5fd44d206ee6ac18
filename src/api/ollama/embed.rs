//! `POST /api/embed`, and `/api/embeddings`, its older form for one text.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::common::without_nulls;
use super::response::ns;
use crate::api::{BadRequest, from_value_noting_ignored, schema};
use crate::registry::KeepAlive;
use crate::runner::{EmbedSpec, Embeddings, Input};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ollama.EmbedRequest", description = "Texts to turn into vectors.")]
struct Fields {
    model: String,
    #[schemars(required)]
    input: Option<Texts>,
    truncate: Option<bool>,
    dimensions: Option<usize>,
    keep_alive: Option<KeepAlive>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "it must be a text or a list of texts")]
#[schemars(rename = "ollama.Texts")]
enum Texts {
    One(String),
    Many(Vec<String>),
}

/// Texts of `/api/embed`.
#[derive(Clone, Debug)]
pub struct EmbedRequest {
    pub spec: EmbedSpec,
    /// How long the model stays after the answer, where the request says so.
    pub keep_alive: Option<KeepAlive>,
    /// Paths of the fields that are passed over.
    pub ignored: Vec<String>,
}

schema::described_by!(EmbedRequest, Fields);

impl EmbedRequest {
    /// # Errors
    /// The first field that is missing or of a wrong type.
    pub fn from_value(mut body: Value) -> Result<Self, BadRequest> {
        without_nulls(&mut body);
        let (fields, ignored) = from_value_noting_ignored::<Fields>(body)?;
        let texts = match fields.input {
            None => return Err(BadRequest("`input` is missing".into())),
            // No text gives no vector, as in Ollama.
            Some(Texts::One(text)) if text.is_empty() => Vec::new(),
            Some(Texts::One(text)) => vec![text],
            Some(Texts::Many(texts)) => texts,
        };
        let spec = EmbedSpec {
            model: fields.model,
            inputs: texts.into_iter().map(Input::Raw).collect(),
            truncate: fields.truncate.unwrap_or(true),
            dimensions: fields.dimensions.filter(|n| *n > 0),
        };
        Ok(Self { spec, keep_alive: fields.keep_alive, ignored })
    }
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ollama.EmbeddingsRequest", description = "A text to turn into a vector.")]
struct OldFields {
    model: String,
    prompt: Option<String>,
    keep_alive: Option<KeepAlive>,
}

/// The one text of `/api/embeddings`.
#[derive(Clone, Debug)]
pub struct EmbeddingsRequest(pub EmbedRequest);

schema::described_by!(EmbeddingsRequest, OldFields);

impl EmbeddingsRequest {
    /// # Errors
    /// The first field that is missing or of a wrong type.
    pub fn from_value(mut body: Value) -> Result<Self, BadRequest> {
        without_nulls(&mut body);
        let (fields, ignored) = from_value_noting_ignored::<OldFields>(body)?;
        let text = fields.prompt.filter(|text| !text.is_empty());
        let inputs = text.into_iter().map(Input::Raw).collect();
        let spec = EmbedSpec { model: fields.model, inputs, truncate: true, dimensions: None };
        Ok(Self(EmbedRequest { spec, keep_alive: fields.keep_alive, ignored }))
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ollama.EmbedAnswer")]
pub struct EmbedBody<'a> {
    model: &'a str,
    embeddings: &'a [Vec<f32>],
    total_duration: i64,
    load_duration: i64,
    prompt_eval_count: usize,
}

/// The answer of `/api/embed`.
#[must_use]
pub fn embed_body<'a>(model: &'a str, found: &'a Embeddings, total_ms: f64, load_ms: f64) -> impl Serialize {
    EmbedBody {
        model,
        embeddings: &found.vectors,
        total_duration: ns(total_ms),
        load_duration: ns(load_ms),
        prompt_eval_count: found.prompt_tokens,
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ollama.EmbeddingsAnswer")]
pub struct EmbeddingsBody<'a> {
    embedding: &'a [f32],
}

/// The answer of `/api/embeddings`. No text has an empty vector.
#[must_use]
pub fn embeddings_body(found: &Embeddings) -> impl Serialize {
    EmbeddingsBody { embedding: found.vectors.first().map_or(&[], Vec::as_slice) }
}

#[cfg(test)]
mod tests {
    use crate::registry::KeepAlive;
    use serde_json::json;

    use super::{EmbedRequest, EmbeddingsRequest};
    use crate::runner::Input;

    #[test]
    fn one_text_or_many() {
        let read = |input: serde_json::Value| {
            EmbedRequest::from_value(json!({ "model": "m", "input": input, "dimensions": 0, "options": null }))
        };
        let inputs = |input| read(input).expect("texts").spec.inputs;
        assert_eq!(inputs(json!("a")), [Input::Raw("a".into())]);
        assert_eq!(inputs(json!(["a", "b"])), [Input::Raw("a".into()), Input::Raw("b".into())]);
        assert_eq!(inputs(json!("")), []);
        let spec = read(json!("a")).expect("a text").spec;
        assert_eq!((spec.truncate, spec.dimensions), (true, None));
        let wrong = read(json!(3)).expect_err("no text").0;
        assert_eq!(wrong, "input: it must be a text or a list of texts");
        assert_eq!(read(json!(null)).expect_err("none").0, "`input` is missing");
    }

    #[test]
    fn the_older_form_takes_one_prompt() {
        let body = json!({ "model": "m", "prompt": "a", "keep_alive": 0, "options": { "num_ctx": 1 } });
        let EmbeddingsRequest(request) = EmbeddingsRequest::from_value(body).expect("a text");
        assert_eq!((request.spec.inputs, request.keep_alive), (vec![Input::Raw("a".into())], Some(KeepAlive::NOT)));
        assert_eq!(request.ignored, ["options"]);
    }
}
