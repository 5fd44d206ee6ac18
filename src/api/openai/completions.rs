//! The request body of `POST /v1/completions`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::fields::{self, AsksForNothing, Common, Texts};
use super::tools::{self, ResponseFormat};
use crate::api::shimmy::StreamOptions;
use crate::api::{BadRequest, is_empty};
use crate::chat::ChatOptions;
use crate::engine::TokenId;
use crate::runner::{GenerateSpec, Infill, Input};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.CompletionFields")]
struct Fields {
    #[schemars(required)]
    prompt: Option<Texts>,
    #[serde(default = "default_max_tokens")]
    max_tokens: u32,
    #[schemars(range(min = 1, max = 128))]
    n: Option<u32>,
    best_of: Option<u32>,
    #[serde(default)]
    echo: bool,
    #[schemars(range(max = 5))]
    logprobs: Option<u32>,
    /// What stands behind the gap to fill, for models that can.
    suffix: Option<String>,
    stream_options: Option<StreamOptions>,
    response_format: Option<ResponseFormat>,
}

fn default_max_tokens() -> u32 {
    16
}

/// Other tokens whose probabilities are told.
const MAX_LOGPROBS: u32 = 5;

/// Fields whose meaning would be lost if we passed over them.
const NOT_SERVED: &[(&str, AsksForNothing)] = &[("prompt_embeds", is_empty)];

/// What stands in front of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Echo {
    Text(String),
    /// The text of these.
    Tokens(Vec<TokenId>),
}

/// A request, and what of it has no effect here.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "openai.CompletionRequest", description = "Prompts to go on from.")]
pub struct CompletionRequest {
    #[schemars(flatten)]
    common: Common,
    #[schemars(flatten)]
    fields: Fields,
    #[schemars(skip)]
    prompts: Vec<Input>,
    #[schemars(skip)]
    choices: u32,
    /// Paths of the fields that are passed over, e.g. `user`.
    #[schemars(skip)]
    pub ignored: Vec<String>,
}

impl CompletionRequest {
    /// # Errors
    /// The first field that is missing, of a wrong type, or asks for what is not served.
    pub fn from_value(mut body: Value) -> Result<Self, BadRequest> {
        let refuse = |why: &str| Err(BadRequest(why.into()));
        let (common, mut fields, ignored) = fields::read::<Fields>(&mut body, NOT_SERVED)?;
        let Some(prompts) = fields.prompt.take().map(Texts::into_inputs) else { return refuse("`prompt` is missing") };
        if prompts.is_empty() {
            return refuse("`prompt` is an empty list");
        }
        let choices = fields::choices(fields.n, prompts.len())?;
        if let Some(best_of) = fields.best_of.filter(|best_of| *best_of != 1 && *best_of != choices) {
            return Err(BadRequest(format!(
                "best_of is {best_of}; answers are not compared by this version, so it must be n ({choices}) or 1"
            )));
        }
        fields.suffix = fields.suffix.filter(|suffix| !suffix.is_empty());
        if fields.suffix.is_some() && prompts.iter().any(|prompt| !matches!(prompt, Input::Raw(_))) {
            return refuse("`suffix` goes with prompts of text, not of tokens");
        }
        match fields.logprobs {
            Some(n) if n > MAX_LOGPROBS => {
                return Err(BadRequest(format!("logprobs is {n}; it must be from 0 to {MAX_LOGPROBS}")));
            }
            Some(_) if fields.echo => {
                return refuse(
                    "`echo` and `logprobs` together ask for the probabilities of the prompt, which are not served by this version; \
                     give one of the two",
                );
            }
            _ => {}
        }
        Ok(Self { common, fields, prompts, choices, ignored })
    }

    #[must_use]
    pub fn streams(&self) -> bool {
        self.common.stream
    }

    /// How many answers are wanted to each prompt.
    #[must_use]
    pub fn choices(&self) -> u32 {
        self.choices
    }

    #[must_use]
    pub fn includes_usage(&self) -> bool {
        self.fields.stream_options.is_some_and(|options| options.include_usage)
    }

    /// What stands in front of the answers, prompt by prompt. Nothing where the prompts are not echoed.
    #[must_use]
    pub fn echoes(&self) -> Vec<Echo> {
        let echo = |prompt: &Input| match prompt {
            Input::Raw(text) => Echo::Text(text.clone()),
            Input::Tokens(tokens) => Echo::Tokens(tokens.clone()),
            Input::Messages(_) | Input::Infill(_) => Echo::Text(String::new()),
        };
        if self.fields.echo { self.prompts.iter().map(echo).collect() } else { Vec::new() }
    }

    /// One for each prompt.
    ///
    /// # Errors
    /// What is out of range.
    pub fn into_specs(self) -> Result<Vec<GenerateSpec>, BadRequest> {
        let Self { mut common, mut fields, prompts, .. } = self;
        let suffix = fields.suffix.take();
        let name = "response_format";
        let format = tools::constraint(fields.response_format, name, "response_format.json_schema.schema")?;
        let constraint = common.form(format, name, &ChatOptions::default())?;
        let spec = common.into_spec(Input::Raw(String::new()), Some(fields.max_tokens))?;
        let with =
            |input| GenerateSpec { input, constraint: constraint.clone(), logprobs: fields.logprobs, ..spec.clone() };
        let around = |prompt| match (prompt, &suffix) {
            (Input::Raw(before), Some(suffix)) => {
                Input::Infill(Infill { before, behind: suffix.clone(), ..Infill::default() })
            }
            (prompt, _) => prompt,
        };
        Ok(prompts.into_iter().map(around).map(with).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{CompletionRequest, Echo};
    use crate::api::BadRequest;
    use crate::constrain::Constraint;
    use crate::runner::{GenerateSpec, Infill, Input};

    fn read(more: Value) -> Result<CompletionRequest, String> {
        let mut body = json!({ "model": "m", "prompt": "a" });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        CompletionRequest::from_value(body).map_err(|BadRequest(why)| why)
    }

    fn specs(more: Value) -> Vec<GenerateSpec> {
        read(more).expect("it is served").into_specs().expect("it is in range")
    }

    fn refused(more: Value) -> String {
        match read(more).and_then(|request| request.into_specs().map_err(|BadRequest(why)| why)) {
            Ok(specs) => panic!("{specs:?}"),
            Err(why) => why,
        }
    }

    #[test]
    fn a_prompt_has_four_shapes() {
        let raw = |text: &str| Input::Raw(text.into());
        for (prompt, expected) in [
            (json!("a b"), vec![raw("a b")]),
            (json!(["a", "b"]), vec![raw("a"), raw("b")]),
            (json!([1, 2]), vec![Input::Tokens(vec![1, 2])]),
            (json!([[1, 2], [3]]), vec![Input::Tokens(vec![1, 2]), Input::Tokens(vec![3])]),
        ] {
            let specs = specs(json!({ "prompt": prompt }));
            assert_eq!(specs.into_iter().map(|spec| spec.input).collect::<Vec<_>>(), expected, "{prompt}");
        }
        assert_eq!(refused(json!({ "prompt": [] })), "`prompt` is an empty list");
        assert_eq!(refused(json!({ "prompt": null })), "`prompt` is missing");
        for odd in [json!([1, "b"]), json!([[1], "b"]), json!([-1]), json!(5)] {
            assert!(
                refused(json!({ "prompt": odd })).starts_with("prompt: must be a text, a list of texts, "),
                "{odd}"
            );
        }
    }

    #[test]
    fn a_suffix_stands_behind_each_prompt() {
        let gap =
            |before: &str| Input::Infill(Infill { before: before.into(), behind: "}".into(), ..Infill::default() });
        let specs = specs(json!({ "prompt": ["a", "b"], "suffix": "}" }));
        assert_eq!(specs.into_iter().map(|spec| spec.input).collect::<Vec<_>>(), [gap("a"), gap("b")]);
    }

    #[test]
    fn what_is_asked_for_reaches_each_spec() {
        let [first, second] = &specs(json!({
            "prompt": ["a", "b"], "logprobs": 0, "seed": 3, "stop": "x", "temperature": 0.5, "top_k": 3, "logit_bias": { "7": 1 },
            "response_format": { "type": "json_object" },
        }))[..] else {
            panic!("two prompts are two specs");
        };
        assert_eq!(GenerateSpec { input: second.input.clone(), ..first.clone() }, *second);
        assert_eq!(
            (first.max_tokens, first.logprobs, first.stop.as_slice()),
            (Some(16), Some(0), &["x".to_owned()][..])
        );
        let sampling = &first.sampling;
        assert_eq!((sampling.seed, sampling.top_k, sampling.temperature), (Some(3), Some(3), Some(0.5)));
        assert_eq!(
            (&first.constraint, &first.sampling.logit_bias[..]),
            (&Some(Constraint::JsonObject), &[(7, 1.0)][..])
        );
        assert_eq!(specs(json!({ "max_tokens": 3 }))[0].max_tokens, Some(3));
    }

    #[test]
    fn echoes_are_of_each_prompt() {
        let echoes = |more| read(more).expect("it is served").echoes();
        assert_eq!(echoes(json!({ "prompt": ["a", "b"] })), []);
        let text = |text: &str| Echo::Text(text.into());
        assert_eq!(echoes(json!({ "prompt": ["a", "b"], "echo": true })), [text("a"), text("b")]);
        assert_eq!(echoes(json!({ "prompt": [7], "echo": true })), [Echo::Tokens(vec![7])]);
    }

    #[test]
    fn what_would_be_missed_is_refused_and_the_rest_is_listed() {
        let ignored =
            read(json!({ "user": "me", "suffix": "", "best_of": 1, "n": 2, "guided_json": null })).expect("served");
        assert_eq!((ignored.ignored.as_slice(), ignored.choices()), (&["user".to_owned()][..], 2));
        assert!(read(json!({ "best_of": 2, "n": 2 })).is_ok());
        assert!(refused(json!({ "best_of": 3, "n": 2 })).starts_with("best_of is 3; "));
        assert!(refused(json!({ "suffix": "}", "prompt": [1] })).starts_with("`suffix` goes with prompts of text"));
        assert!(refused(json!({ "echo": true, "logprobs": 1 })).starts_with("`echo` and `logprobs` together"));
        assert_eq!(refused(json!({ "logprobs": 6 })), "logprobs is 6; it must be from 0 to 5");
        assert!(refused(json!({ "prompt": ["a", "b"], "n": 65 })).starts_with("2 prompts with 65 answers each"));
        assert_eq!(refused(json!({ "n": 129 })), "n is 129; it must be from 1 to 128");
        let grammar = json!({ "grammar": "root ::= \"a\"", "response_format": { "type": "json_object" } });
        assert_eq!(refused(grammar), "give `response_format` or `grammar`, not both");
        assert_eq!(refused(json!({ "temperature": -1 })), "temperature is -1; it must be a number from 0 to 100");
    }
}
