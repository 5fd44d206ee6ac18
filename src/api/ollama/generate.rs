//! Ollama's request body of `POST /api/generate`.

use serde_json::Value;

use super::common::{Common, read};
use crate::api::shimmy::GenerateRequest as TopLevel;
use crate::api::{BadRequest, is_empty};
use crate::registry::KeepAlive;
use crate::runner::{GenerateSpec, Input};

/// Ollama keeps the sampling parameters in `options`. Those of shimmy's own dialect at the top level count too,
/// since the same clients may send both.
#[derive(Clone, Debug, schemars::JsonSchema)]
#[schemars(
    rename = "ollama.GenerateRequest",
    description = "A prompt to answer. Without one the model is loaded, or unloaded."
)]
pub struct GenerateRequest {
    #[schemars(flatten)]
    top: TopLevel,
    #[schemars(flatten)]
    common: Common,
    /// Paths of the fields that are passed over, e.g. `context`, `options.num_ctx`.
    #[schemars(skip)]
    pub ignored: Vec<String>,
}

/// Fields whose meaning would be lost if we passed over them, with what there is to say.
const NOT_SERVED: &[(&str, &str)] =
    &[("template", "a template for one request is not served by this version; --template sets one for the server")];

impl GenerateRequest {
    /// # Errors
    /// The first field that is missing, of a wrong type, or asks for what is not served.
    pub fn from_value(body: Value) -> Result<Self, BadRequest> {
        for (field, why) in NOT_SERVED {
            if body.get(*field).is_some_and(|value| !is_empty(value)) {
                return Err(BadRequest(format!("`{field}`: {why}")));
            }
        }
        let (mut top, common, mut ignored) = read::<TopLevel>(body)?;
        ignored.retain(|path| NOT_SERVED.iter().all(|(field, _)| path != field));
        if top.prompt.is_none() && top.messages.is_none() {
            top.prompt = Some(String::new());
        }
        // Some clients send all fields, whether they have a value for them or not.
        top.system = top.system.filter(|text| !text.is_empty());
        top.suffix = top.suffix.filter(|text| !text.is_empty());
        if top.suffix.is_some() {
            // A text with a gap has no turns.
            ignored.extend(top.system.take().map(|_| "system".to_owned()));
        }
        Ok(Self { top, common, ignored })
    }

    #[must_use]
    pub fn model(&self) -> &str {
        &self.top.model
    }

    #[must_use]
    pub fn streams(&self) -> bool {
        self.top.stream.unwrap_or(true)
    }

    /// An empty prompt asks for the model to be loaded, or unloaded, and for nothing else.
    #[must_use]
    pub fn only_loads(&self) -> bool {
        self.top.prompt.as_deref() == Some("") && self.top.suffix.is_none() && self.top.images.is_empty()
    }

    /// How long the model stays after the answer, where the request says so.
    #[must_use]
    pub fn keep_alive(&self) -> Option<KeepAlive> {
        self.common.keep_alive
    }

    /// # Errors
    /// What is out of range.
    pub fn into_spec(self) -> Result<GenerateSpec, BadRequest> {
        let raw = self.top.raw;
        let mut spec = self.common.into_spec(self.top)?;
        // Whoever writes the prompt's marks reads those of the answer.
        spec.chat.parse = !raw && matches!(spec.input, Input::Messages(_));
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use crate::registry::KeepAlive;
    use serde_json::{Value, json};

    use super::GenerateRequest;
    use crate::chat::{Image, Message, Role};
    use crate::constrain::Constraint;
    use crate::runner::{Infill, Input};

    fn with(more: Value) -> Value {
        let mut body = json!({ "model": "m", "prompt": "p" });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    }

    /// The `ollama` command sends every field that it has.
    #[test]
    fn empty_fields_ask_for_nothing() {
        let body = json!({ "model": "m", "prompt": "", "suffix": "", "system": "", "template": "", "images": [],
                           "options": null, "format": "", "raw": true, "think": null });
        let request = GenerateRequest::from_value(body).expect("it is served");
        assert!(request.only_loads() && request.streams() && request.keep_alive().is_none());
        assert_eq!(request.ignored, [""; 0]);
        let spec = request.into_spec().expect("an empty system text is none");
        assert_eq!((spec.constraint, spec.chat.thinking, spec.chat.parse), (None, None, false));
    }

    #[test]
    fn a_suffix_makes_a_gap() {
        let request = GenerateRequest::from_value(with(json!({ "suffix": "s", "system": "Be brief.", "prompt": "" })));
        let request = request.expect("it is served");
        assert!(!request.only_loads());
        assert_eq!(request.ignored, ["system"]);
        let gap = Infill { behind: "s".into(), ..Infill::default() };
        assert_eq!(request.into_spec().expect("in range").input, Input::Infill(gap));
    }

    #[test]
    fn fields_without_effect_are_listed_once_each() {
        let options = json!({ "num_ctx": 2048, "mirostat": 1, "temperature": 0.5, "seed": null });
        let body = with(json!({ "options": options, "context": [1, 2], "shift": true, "max_tokens": 4,
                                "stream_options": { "other": 1 }, "top_logprobs": 2, "keep_alive": 0 }));
        let request = GenerateRequest::from_value(body).expect("it is served");
        let ignored =
            ["context", "shift", "stream_options.other", "options.num_ctx", "options.mirostat", "top_logprobs"];
        assert_eq!(request.ignored, ignored);
        assert_eq!(request.keep_alive(), Some(KeepAlive::NOT));
        let spec = request.into_spec().expect("in range");
        assert_eq!((spec.sampling.temperature, spec.max_tokens, spec.logprobs), (Some(0.5), Some(4), None));
    }

    #[test]
    fn format_thinking_and_probabilities() {
        let spec = |more| GenerateRequest::from_value(with(more)).and_then(GenerateRequest::into_spec);
        let schema = json!({ "type": "object", "properties": { "a": { "enum": [null, 1] } } });
        let asked =
            spec(json!({ "format": schema, "think": "low", "logprobs": true, "top_logprobs": 3 })).expect("served");
        assert_eq!(asked.constraint, Some(Constraint::JsonSchema(schema)));
        assert_eq!((asked.chat.thinking, asked.logprobs), (Some(true), Some(3)));
        assert_eq!(asked.chat.template_args["reasoning_effort"], "low");
        let asked = spec(json!({ "format": "json", "think": false, "logprobs": false })).expect("served");
        assert_eq!((asked.constraint, asked.chat.thinking), (Some(Constraint::JsonObject), Some(false)));
        assert_eq!((asked.logprobs, asked.chat.parse), (None, true));

        for (more, reason) in [
            (json!({ "format": "xml" }), "format is \"xml\"; it must be \"json\" or a JSON schema, which is an object"),
            (json!({ "think": "max" }), "think is \"max\"; it must be true, false, \"low\", \"medium\" or \"high\""),
            (json!({ "top_logprobs": 21 }), "top_logprobs is 21; it must be a number from 0 to 20"),
            (
                json!({ "suffix": "x", "raw": true }),
                "`suffix` goes with `prompt` alone: the model's own marks stand around both",
            ),
            (
                json!({ "images": ["aGk="], "raw": true }),
                "`images` stand in turns, which `raw` and `suffix` have none of",
            ),
        ] {
            assert_eq!(spec(more).expect_err("it would be missed").0, reason);
        }
        let asked = spec(json!({ "images": ["aGk="] })).expect("served");
        let image = Message { images: vec![Image::new(b"hi".to_vec())], ..Message::new(Role::User, "p") };
        assert_eq!(asked.input, Input::Messages(vec![image]));
        let wrong = spec(json!({ "images": ["-"] })).expect_err("no base64").0;
        assert!(wrong.starts_with("images[0]: it is not base64"), "{wrong}");
        let wrong = spec(json!({ "keep_alive": "soon" })).expect_err("no duration").0;
        assert!(wrong.starts_with("keep_alive: \"soon\" is neither"), "{wrong}");
    }
}
