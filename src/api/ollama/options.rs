//! `options`: Ollama's place for the sampling parameters.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::StopList;
use crate::api::shimmy::GenerateRequest;
use crate::runner::ollama;

/// Ollama's names. Its others concern how a model is loaded, which the command line decides here; they have no effect.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[schemars(rename = "ollama.Options", description = "Sampling. Options of how a model is loaded have no effect.")]
pub(super) struct Options {
    num_predict: Option<i64>,
    #[schemars(range(min = 0.0, max = 100.0))]
    temperature: Option<f32>,
    top_k: Option<i64>,
    #[schemars(range(min = 0.0, max = 1.0))]
    top_p: Option<f32>,
    #[schemars(range(min = 0.0, max = 1.0))]
    min_p: Option<f32>,
    #[schemars(range(min = 0.0, max = 1.0))]
    typical_p: Option<f32>,
    /// Negative means the whole context.
    repeat_last_n: Option<i64>,
    #[schemars(range(min = 0.01, max = 100.0))]
    repeat_penalty: Option<f32>,
    #[schemars(range(min = -100.0, max = 100.0))]
    frequency_penalty: Option<f32>,
    #[schemars(range(min = -100.0, max = 100.0))]
    presence_penalty: Option<f32>,
    seed: Option<i64>,
    stop: Option<StopList>,
}

impl Options {
    /// What is absent stays as the request has it.
    pub fn apply(self, request: &mut GenerateRequest) {
        if let Some(limit) = self.num_predict {
            request.max_tokens = ollama::num_predict(limit);
        }
        if let Some(seed) = self.seed {
            request.seed = ollama::seed(seed);
        }
        request.temperature = self.temperature.or(request.temperature);
        request.top_k = self.top_k.map(ollama::top_k).or(request.top_k);
        request.top_p = self.top_p.or(request.top_p);
        request.min_p = self.min_p.or(request.min_p);
        request.typical_p = self.typical_p.or(request.typical_p);
        request.repeat_last_n = self.repeat_last_n.map(ollama::repeat_last_n).or(request.repeat_last_n);
        request.repeat_penalty = self.repeat_penalty.or(request.repeat_penalty);
        request.frequency_penalty = self.frequency_penalty.or(request.frequency_penalty);
        request.presence_penalty = self.presence_penalty.or(request.presence_penalty);
        request.stop = self.stop.or(request.stop.take());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{GenerateRequest, Options};

    #[test]
    fn numbers_that_mean_no_limit_or_none() {
        let applied = |options: serde_json::Value| {
            let mut request = GenerateRequest { max_tokens: Some(5), seed: Some(5), ..GenerateRequest::default() };
            serde_json::from_value::<Options>(options).expect("options").apply(&mut request);
            (request.max_tokens, request.seed, request.top_k, request.repeat_last_n)
        };
        assert_eq!(applied(json!({})), (Some(5), Some(5), None, None));
        assert_eq!(applied(json!({ "num_predict": 7, "seed": 0, "top_k": 3 })), (Some(7), Some(0), Some(3), None));
        let unlimited = json!({ "num_predict": -1, "seed": -1, "top_k": -1, "repeat_last_n": -1 });
        assert_eq!(applied(unlimited), (None, None, Some(0), Some(u32::MAX)));
        assert_eq!(applied(json!({ "num_predict": 0 })).0, None);
    }
}
