//! What `/api/chat` and `/api/generate` have in common.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::options::Options;
use crate::api::shimmy::GenerateRequest;
use crate::api::{BadRequest, read_two};
use crate::chat::ChatOptions;
use crate::constrain::Constraint;
use crate::registry::KeepAlive;
use crate::runner::GenerateSpec;

/// Fields beside the prompt.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "ollama.Common")]
pub(super) struct Common {
    options: Option<Options>,
    /// `json`, or a JSON schema.
    format: Option<Value>,
    /// A boolean, or a level.
    think: Option<Value>,
    logprobs: Option<bool>,
    #[schemars(range(max = 20))]
    top_logprobs: Option<u32>,
    pub keep_alive: Option<KeepAlive>,
}

/// Beyond this Ollama refuses, too.
const MAX_TOP_LOGPROBS: u32 = 20;

impl Common {
    /// Completes a request that holds the prompt and whatever else stands beside it.
    pub fn into_spec(self, mut request: GenerateRequest) -> Result<GenerateSpec, BadRequest> {
        let top = self.top_logprobs.unwrap_or(0);
        if top > MAX_TOP_LOGPROBS {
            return Err(BadRequest(format!("top_logprobs is {top}; it must be a number from 0 to {MAX_TOP_LOGPROBS}")));
        }
        self.options.unwrap_or_default().apply(&mut request);
        let mut spec = request.into_spec()?;
        let format = self.format.map_or(Ok(None), constraint)?;
        if format.is_some() && spec.constraint.is_some() {
            return Err(BadRequest("give `format`, or one of shimmy's fields for forms, not both".into()));
        }
        spec.constraint = format.or(spec.constraint);
        spec.logprobs = (self.logprobs == Some(true)).then_some(top);
        if let Some(think) = self.think {
            set_thinking(&think, &mut spec.chat)?;
        }
        Ok(spec)
    }

    /// Fields that it has but that have no effect beside the others.
    fn idle(&self) -> Option<&'static str> {
        (self.top_logprobs.is_some_and(|top| top > 0) && self.logprobs != Some(true)).then_some("top_logprobs")
    }
}

fn constraint(format: Value) -> Result<Option<Constraint>, BadRequest> {
    match format {
        Value::String(kind) if kind.is_empty() => Ok(None),
        Value::String(kind) if kind == "json" => Ok(Some(Constraint::JsonObject)),
        Value::Object(_) => Ok(Some(Constraint::JsonSchema(format))),
        other => {
            Err(BadRequest(format!("format is {other}; it must be \"json\" or a JSON schema, which is an object")))
        }
    }
}

fn set_thinking(think: &Value, chat: &mut ChatOptions) -> Result<(), BadRequest> {
    match think {
        Value::Bool(think) => chat.thinking = Some(*think),
        Value::String(level) if ["low", "medium", "high"].contains(&level.as_str()) => {
            chat.thinking = Some(true);
            chat.template_args.insert("reasoning_effort".into(), think.clone());
        }
        other => {
            return Err(BadRequest(format!(
                "think is {other}; it must be true, false, \"low\", \"medium\" or \"high\""
            )));
        }
    }
    Ok(())
}

/// A field that is null is a field that is absent. Deeper ones may be part of a schema, where null has a meaning.
pub(super) fn without_nulls(body: &mut Value) {
    let drop = |fields: &mut Map<String, Value>| fields.retain(|_, field| !field.is_null());
    if let Some(fields) = body.as_object_mut() {
        drop(fields);
        fields.get_mut("options").and_then(Value::as_object_mut).into_iter().for_each(drop);
    }
}

/// Reads a request type and what it has in common with others, and lists the fields that neither of the two has.
pub(super) fn read<T: DeserializeOwned>(mut body: Value) -> Result<(T, Common, Vec<String>), BadRequest> {
    without_nulls(&mut body);
    let (request, common, mut ignored) = read_two::<T, Common>(&body)?;
    ignored.extend(common.idle().map(str::to_owned));
    Ok((request, common, ignored))
}
