//! `POST /infill` in the shapes of llama.cpp's server: what is missing in a text.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::shimmy::GenerateRequest as Sampling;
use super::{BadRequest, Encoder, drop_nulls, push_event, read_two};
use crate::engine::{FinishReason, Summary};
use crate::runner::{Answer, Delta, GenerateSpec, Infill, InfillFile, Input, RunnerError};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "llama.InfillFields")]
struct Fields {
    /// The text before the gap.
    input_prefix: String,
    /// The text behind it.
    input_suffix: String,
    /// Other files, the most important one last.
    #[serde(default)]
    input_extra: Vec<FileField>,
    /// Follows `input_prefix`: the beginning of the line to complete.
    #[serde(default)]
    prompt: String,
    /// Most tokens to generate; below 0, or absent, to the end of the context.
    n_predict: Option<i64>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "llama.InfillFile")]
struct FileField {
    #[serde(default)]
    filename: String,
    text: String,
}

/// The body of `POST /infill`. The fields for sampling are those of shimmy's own dialect.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "llama.InfillRequest", description = "A text with a gap to fill.")]
pub struct InfillRequest {
    #[schemars(flatten)]
    sampling: Sampling,
    #[schemars(flatten)]
    fields: Fields,
    /// Paths of the fields that are passed over, e.g. `samplers`.
    #[schemars(skip)]
    pub ignored: Vec<String>,
}

impl InfillRequest {
    /// # Errors
    /// The first field that is missing, of a wrong type, or asks for what is not served.
    pub fn from_value(mut body: Value) -> Result<Self, BadRequest> {
        drop_nulls(&mut body, &["json_schema"]);
        if let Some(fields) = body.as_object_mut() {
            fields.entry("model").or_insert_with(|| "default".into());
            // llama.cpp's clients ask for a random one so.
            fields.retain(|name, value| name != "seed" || *value != -1);
            // A filled gap is a text: there is nothing to tell apart in a conversation.
            if ["messages", "system", "raw", "suffix"].iter().any(|name| fields.contains_key(*name)) {
                return Err(BadRequest(
                    "give `input_prefix` and `input_suffix`; `messages`, `system`, `raw` and `suffix` have no place beside them"
                        .into(),
                ));
            }
        }
        let (fields, sampling, ignored) = read_two::<Fields, Sampling>(&body)?;
        Ok(Self { sampling, fields, ignored })
    }

    #[must_use]
    pub fn streams(&self) -> bool {
        self.sampling.stream.unwrap_or(false)
    }

    /// # Errors
    /// What is out of range.
    pub fn into_spec(self) -> Result<GenerateSpec, BadRequest> {
        let Self { mut sampling, fields, .. } = self;
        if let Some(most) = fields.n_predict {
            sampling.max_tokens = u32::try_from(most).ok();
        }
        sampling.prompt = Some(String::new());
        let file = |file: FileField| InfillFile { name: file.filename, text: file.text };
        let input = Input::Infill(Infill {
            before: fields.input_prefix,
            line: fields.prompt,
            behind: fields.input_suffix,
            files: fields.input_extra.into_iter().map(file).collect(),
        });
        Ok(GenerateSpec { input, ..sampling.into_spec()? })
    }
}

/// A piece of the answer.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "llama.InfillChunk")]
pub struct Chunk<'a> {
    index: u32,
    content: &'a str,
    /// False.
    stop: bool,
}

/// The whole answer; at a stream's end without its text.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "llama.Infilled")]
pub struct Infilled<'a> {
    index: u32,
    content: &'a str,
    model: &'a str,
    /// True.
    stop: bool,
    stop_type: StopType,
    /// The stop string that was reached, or nothing.
    stopping_word: &'a str,
    tokens_predicted: u32,
    tokens_evaluated: u32,
    /// Of those that were evaluated, the ones that needed no computing.
    tokens_cached: u32,
    /// Gives the same tokens again with the same request.
    seed: u32,
    timings: Timings,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "llama.StopType")]
enum StopType {
    None,
    Eos,
    Limit,
    Word,
}

/// In llama.cpp's words, times in milliseconds.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "llama.Timings")]
struct Timings {
    prompt_n: u32,
    prompt_ms: f64,
    prompt_per_token_ms: f64,
    prompt_per_second: f64,
    predicted_n: u32,
    predicted_ms: f64,
    predicted_per_token_ms: f64,
    predicted_per_second: f64,
}

impl Timings {
    fn of(summary: &Summary) -> Self {
        let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        let usage = &summary.usage;
        let (prompt_n, predicted_n) =
            (usage.prompt_tokens.saturating_sub(usage.cached_tokens), usage.completion_tokens);
        let (prompt_ms, predicted_ms) = (summary.timings.prefill_ms, summary.timings.decode_ms);
        Self {
            prompt_n,
            prompt_ms,
            prompt_per_token_ms: ratio(prompt_ms, f64::from(prompt_n)),
            prompt_per_second: ratio(f64::from(prompt_n) * 1e3, prompt_ms),
            predicted_n,
            predicted_ms,
            predicted_per_token_ms: ratio(predicted_ms, f64::from(predicted_n)),
            predicted_per_second: ratio(f64::from(predicted_n) * 1e3, predicted_ms),
        }
    }
}

impl<'a> Infilled<'a> {
    fn new(model: &'a str, content: &'a str, summary: &'a Summary) -> Self {
        Self {
            index: 0,
            content,
            model,
            stop: true,
            stop_type: match summary.reason {
                FinishReason::Eos => StopType::Eos,
                FinishReason::Stop => StopType::Word,
                FinishReason::Length => StopType::Limit,
                FinishReason::Cancelled => StopType::None,
            },
            stopping_word: summary.stop.as_deref().unwrap_or_default(),
            tokens_predicted: summary.usage.completion_tokens,
            tokens_evaluated: summary.usage.prompt_tokens,
            tokens_cached: summary.usage.cached_tokens,
            seed: summary.seed,
            timings: Timings::of(summary),
        }
    }
}

/// The body of an answer that is not streamed.
#[must_use]
pub fn infill_body(model: &str, answer: &Answer, summary: &Summary) -> Value {
    json!(Infilled::new(model, &answer.text, summary))
}

/// An event stream of pieces.
#[derive(Debug)]
pub struct InfillEncoder {
    model: String,
}

impl InfillEncoder {
    #[must_use]
    pub fn new(model: String) -> Self {
        Self { model }
    }
}

impl Encoder for InfillEncoder {
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    fn delta(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        match delta {
            Delta::Content(text) => push_event(&Chunk { index: 0, content: text, stop: false }, out),
            // A text that is continued has no such parts.
            Delta::Reasoning(_) | Delta::ToolCall(_) | Delta::Logprobs(_) => {}
            Delta::Done(summary) => push_event(&Infilled::new(&self.model, "", summary), out),
        }
    }

    fn error(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        push_event(&json!({ "error": error.to_string() }), out);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::InfillRequest;
    use crate::api::BadRequest;
    use crate::constrain::Constraint;
    use crate::runner::{GenerateSpec, Infill, InfillFile, Input};

    fn read(more: Value) -> Result<(GenerateSpec, Vec<String>), String> {
        let mut body = json!({ "input_prefix": "a", "input_suffix": "b" });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let request = InfillRequest::from_value(body).map_err(|BadRequest(why)| why)?;
        let ignored = request.ignored.clone();
        request.into_spec().map(|spec| (spec, ignored)).map_err(|BadRequest(why)| why)
    }

    #[test]
    fn what_editors_send_is_taken_and_the_rest_is_listed() {
        let (spec, ignored) = read(json!({
            "prompt": "x", "input_extra": [{ "filename": "f", "text": "t", "time": 3 }], "n_predict": 9, "seed": -1,
            "top_k": 40, "top_p": 0.9, "samplers": ["top_k"], "cache_prompt": true, "n_indent": 2, "stop": ["\n"],
            "t_max_predict_ms": 500, "json_schema": null, "lora": [{ "name": "l", "task": "t" }], "grammar": "root ::= \"a\"",
        }))
        .expect("it is served");
        let files = vec![InfillFile { name: "f".into(), text: "t".into() }];
        let infill = Infill { before: "a".into(), line: "x".into(), behind: "b".into(), files };
        assert_eq!(spec.input, Input::Infill(infill));
        assert_eq!((spec.model.as_str(), spec.max_tokens, spec.sampling.seed), ("default", Some(9), None));
        assert_eq!((spec.sampling.top_k, spec.stop), (Some(40), vec!["\n".to_owned()]));
        assert_eq!(spec.constraint, Some(Constraint::Gbnf("root ::= \"a\"".into())));
        let own = ["input_extra.0.time", "samplers", "cache_prompt", "n_indent", "t_max_predict_ms"];
        assert_eq!(ignored, [&own[..], &["lora.0.task"]].concat());
        assert_eq!(read(json!({ "n_predict": -1 })).expect("no limit").0.max_tokens, None);
    }

    #[test]
    fn what_is_missing_or_has_no_place_is_named() {
        assert!(read(json!({ "input_suffix": null })).expect_err("missing").contains("input_suffix"));
        assert!(read(json!({ "messages": [] })).expect_err("no place").contains("`messages`"));
        assert!(read(json!({ "top_p": 2 })).expect_err("out of range").starts_with("top_p is 2"));
        let both = json!({ "grammar": "root ::= \"a\"", "json_schema": {} });
        assert_eq!(read(both).expect_err("two forms"), "give `json_schema` or `grammar`, not both");
    }
}
