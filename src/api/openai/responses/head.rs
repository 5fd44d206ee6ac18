//! What all of a response has in common, from its first event to the body that is kept.

use serde_json::{Map, Value, json};

use crate::api::openai::custom::Customs;
use crate::api::openai::parts::now;
use crate::api::random_id;
use crate::engine::{FinishReason, SamplingParams, Summary};
use crate::runner::GenerateSpec;

#[derive(Clone, Debug)]
pub struct Head {
    pub(super) id: String,
    created: u64,
    model: String,
    /// The request, as far as an answer repeats it.
    told: Map<String, Value>,
    pub(super) custom: Customs,
}

/// How far a response is.
#[derive(Clone, Copy, Debug)]
pub(super) enum State<'a> {
    InProgress,
    Done(&'a Summary),
    Failed(&'a str),
}

impl Head {
    pub(super) fn new(spec: &GenerateSpec, told: Map<String, Value>, custom: Customs) -> Self {
        Self { id: random_id("resp_"), created: now(), model: spec.model.clone(), told, custom }
    }

    /// Tells what the answer is sampled with, where the request left it open.
    pub fn sampled_with(&mut self, sampling: &SamplingParams) {
        for (name, used) in [("temperature", sampling.temperature), ("top_p", sampling.top_p)] {
            if self.told.get(name).is_none_or(Value::is_null) {
                self.told.insert(name.into(), json!(decimal(used)));
            }
        }
    }

    pub(super) fn body(&self, state: State<'_>, output: &[Value]) -> Value {
        let (status, error, incomplete, usage) = match state {
            State::InProgress => ("in_progress", None, None, None),
            State::Done(summary) => match summary.reason {
                FinishReason::Eos | FinishReason::Stop => ("completed", None, None, Some(usage(summary))),
                // There is no word for an answer that the server cut off; this one says at least that more was to come.
                FinishReason::Length | FinishReason::Cancelled => {
                    ("incomplete", None, Some(json!({ "reason": "max_output_tokens" })), Some(usage(summary)))
                }
            },
            State::Failed(why) => ("failed", Some(json!({ "code": "server_error", "message": why })), None, None),
        };
        let mut body = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": (status == "completed").then(now),
            "status": status,
            "background": false,
            "error": error,
            "incomplete_details": incomplete,
            "model": self.model,
            "output": output,
        });
        if let Value::Object(fields) = &mut body {
            fields.extend(self.told.clone());
            fields.insert("usage".into(), json!(usage));
        }
        body
    }
}

/// The shortest number that is this one, which a conversion to 64 bits would not tell.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

fn usage(summary: &Summary) -> Value {
    let used = &summary.usage;
    json!({
        "input_tokens": used.prompt_tokens,
        "input_tokens_details": { "cached_tokens": used.cached_tokens, "cache_write_tokens": 0 },
        "output_tokens": used.completion_tokens,
        "output_tokens_details": { "reasoning_tokens": used.reasoning_tokens },
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    })
}
