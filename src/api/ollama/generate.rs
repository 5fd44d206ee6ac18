//! Ollama's request body of `POST /api/generate`.

use serde::Deserialize;
use serde_json::Value;

use crate::api::shimmy::GenerateRequest as TopLevel;
use crate::api::{BadRequest, StopList, is_empty};
use crate::runner::GenerateSpec;

/// Ollama keeps the sampling parameters in `options`. Those of shimmy's own dialect at the top level count too,
/// since the same clients may send both.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    top: TopLevel,
    options: Options,
}

/// Ollama's names for the sampling parameters. Options that we have no use for are passed over.
#[derive(Clone, Debug, Default, Deserialize)]
struct Options {
    /// Negative means no limit.
    num_predict: Option<i64>,
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    typical_p: Option<f32>,
    /// Negative means the whole context.
    repeat_last_n: Option<i64>,
    repeat_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    seed: Option<i64>,
    stop: Option<StopList>,
}

#[derive(Deserialize)]
struct OptionsField {
    options: Option<Options>,
}

/// Fields whose meaning would be lost if we passed over them.
const NOT_SERVED: &[&str] = &["format", "images", "suffix", "context", "template"];

impl GenerateRequest {
    /// # Errors
    /// The first field that is missing, of a wrong type, or asks for what is not served.
    pub fn from_value(body: Value) -> Result<Self, BadRequest> {
        for field in NOT_SERVED {
            if body.get(*field).is_some_and(|value| !is_empty(value)) {
                return Err(BadRequest(format!("`{field}` is not served by this version")));
            }
        }
        let options: OptionsField = crate::api::from_value(body.clone())?;
        let mut top: TopLevel = crate::api::from_value(body)?;
        if top.prompt.is_none() && top.messages.is_none() {
            top.prompt = Some(String::new());
        }
        Ok(Self { top, options: options.options.unwrap_or_default() })
    }

    #[must_use]
    pub fn model(&self) -> &str {
        &self.top.model
    }

    #[must_use]
    pub fn streams(&self) -> bool {
        self.top.stream.unwrap_or(true)
    }

    /// An empty prompt asks for the model to be loaded, and for nothing else.
    #[must_use]
    pub fn only_loads(&self) -> bool {
        self.top.prompt.as_deref() == Some("")
    }

    /// # Errors
    /// What is out of range.
    pub fn into_spec(self) -> Result<GenerateSpec, BadRequest> {
        let (mut top, options) = (self.top, self.options);
        let limit = options.num_predict.map(|n| u32::try_from(n).ok());
        top.max_tokens = limit.unwrap_or(top.max_tokens);
        top.temperature = options.temperature.or(top.temperature);
        top.top_k = options.top_k.or(top.top_k);
        top.top_p = options.top_p.or(top.top_p);
        top.min_p = options.min_p.or(top.min_p);
        top.typical_p = options.typical_p.or(top.typical_p);
        top.repeat_last_n = options.repeat_last_n.map(|n| u32::try_from(n).unwrap_or(u32::MAX)).or(top.repeat_last_n);
        top.repeat_penalty = options.repeat_penalty.or(top.repeat_penalty);
        top.frequency_penalty = options.frequency_penalty.or(top.frequency_penalty);
        top.presence_penalty = options.presence_penalty.or(top.presence_penalty);
        top.seed = options.seed.map(crate::api::seed).or(top.seed);
        top.stop = options.stop.or(top.stop);
        top.into_spec()
    }
}
