//! `POST /v1/embeddings`.

use base64::Engine;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::fields::Texts;
use crate::api::BadRequest;
use crate::runner::{EmbedSpec, Embeddings};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.EmbedFields")]
struct Fields {
    model: String,
    input: Texts,
    #[serde(default)]
    encoding_format: Format,
    dimensions: Option<usize>,
}

/// How a vector is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "openai.EncodingFormat")]
pub enum Format {
    #[default]
    Float,
    /// The bytes of little-endian 32-bit floats.
    Base64,
}

/// Texts in one request.
const MAX_TEXTS: usize = 2048;

/// A request, and what of it has no effect here.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "openai.EmbedRequest", description = "Texts to turn into vectors.")]
pub struct EmbedRequest {
    #[schemars(flatten)]
    fields: Fields,
    /// Paths of the fields that are passed over.
    #[schemars(skip)]
    pub ignored: Vec<String>,
}

impl EmbedRequest {
    /// # Errors
    /// The first field that is missing, of a wrong type or out of range.
    pub fn from_value(mut body: Value) -> Result<Self, BadRequest> {
        crate::api::drop_nulls(&mut body, &[]);
        let (fields, ignored) = crate::api::from_value_noting_ignored::<Fields>(body)?;
        Ok(Self { fields, ignored })
    }

    #[must_use]
    pub fn format(&self) -> Format {
        self.fields.encoding_format
    }

    /// # Errors
    /// No text, or too many.
    pub fn into_spec(self) -> Result<EmbedSpec, BadRequest> {
        let Fields { model, input, dimensions, .. } = self.fields;
        let inputs = input.into_inputs();
        if inputs.is_empty() || inputs.len() > MAX_TEXTS {
            return Err(BadRequest(format!("input holds {} texts; it must be from 1 to {MAX_TEXTS}", inputs.len())));
        }
        Ok(EmbedSpec { model, inputs, truncate: false, dimensions })
    }
}

/// The answer.
#[must_use]
pub fn embed_body(model: &str, found: &Embeddings, format: Format) -> Value {
    let written = |vector: &[f32]| match format {
        Format::Float => json!(vector),
        Format::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            base64::engine::general_purpose::STANDARD.encode(bytes).into()
        }
    };
    let entry = |(index, vector): (usize, &Vec<f32>)| json!({ "object": "embedding", "index": index, "embedding": written(vector) });
    json!({
        "object": "list",
        "data": found.vectors.iter().enumerate().map(entry).collect::<Vec<_>>(),
        "model": model,
        "usage": { "prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens },
    })
}
