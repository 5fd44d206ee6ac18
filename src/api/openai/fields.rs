//! Request fields that several of OpenAI's paths have.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::{BadRequest, StopList, checked_lora, is_empty};
use crate::chat::{ChatOptions, ToolChoice};
use crate::constrain::Constraint;
use crate::engine::{Priority, TokenId};
use crate::runner::{GenerateSpec, Input, LoraUse, Sampling};

/// How to go on from a prompt, whatever it is made of. What is absent takes the defaults of shimmy's own dialect.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.Common")]
pub(super) struct Common {
    pub model: String,
    #[serde(default)]
    pub stream: bool,
    #[schemars(range(min = 0.0, max = 100.0))]
    pub temperature: Option<f32>,
    #[schemars(range(min = 0.0, max = 1.0))]
    pub top_p: Option<f32>,
    #[schemars(range(min = -100.0, max = 100.0))]
    frequency_penalty: Option<f32>,
    #[schemars(range(min = -100.0, max = 100.0))]
    presence_penalty: Option<f32>,
    seed: Option<i64>,
    stop: Option<StopList>,
    #[serde(default)]
    #[schemars(with = "std::collections::HashMap<String, f32>")]
    logit_bias: Map<String, Value>,
    // Not OpenAI's, but understood by most local servers.
    top_k: Option<u32>,
    #[schemars(range(min = 0.0, max = 1.0))]
    min_p: Option<f32>,
    #[schemars(range(min = 0.01, max = 100.0))]
    repeat_penalty: Option<f32>,
    #[serde(default)]
    ignore_eos: bool,
    #[serde(default)]
    priority: Priority,
    /// LoRA adapters, in place of those that the model was loaded with.
    lora: Option<Vec<LoraUse>>,
    /// llama.cpp's grammars.
    grammar: Option<String>,
}

/// Answers to one request.
const MAX_CHOICES: usize = 128;

/// Whether a value of a field asks for nothing.
pub(super) type AsksForNothing = fn(&Value) -> bool;

/// Fields of other local servers whose meaning would be lost if we passed over them.
const NOT_SERVED: &[(&str, AsksForNothing)] = &[
    ("json_schema", is_empty),
    ("guided_json", is_empty),
    ("guided_regex", is_empty),
    ("guided_choice", is_empty),
    ("guided_grammar", is_empty),
    ("structured_outputs", is_empty),
];

/// Fields that hold somebody else's JSON, in which null means something.
const FOREIGN: &[&str] = &["parameters", "schema", "arguments", "chat_template_kwargs"];

/// Reads the common fields and a path's own ones. With them come the paths of those that have no effect.
///
/// # Errors
/// The first field that is of a wrong type, or asks for what is not served.
pub(super) fn read<T: serde::de::DeserializeOwned>(
    body: &mut Value,
    not_served: &[(&str, AsksForNothing)],
) -> Result<(Common, T, Vec<String>), BadRequest> {
    crate::api::drop_nulls(body, FOREIGN);
    let not_served = || not_served.iter().chain(NOT_SERVED);
    for (field, asks_for_nothing) in not_served() {
        if body.get(*field).is_some_and(|value| !asks_for_nothing(value)) {
            return Err(BadRequest(format!("`{field}` is not served by this version")));
        }
    }
    let (common, not_common) = crate::api::from_value_noting_ignored::<Common>(&*body)?;
    let (own, mut ignored) = crate::api::from_value_noting_ignored::<T>(&*body)?;
    // All fields at the top are of one of the two, of the table above, or of nobody.
    ignored.retain(|path| {
        let top = path.split('.').next().unwrap_or_default();
        not_common.iter().any(|field| field == top) && not_served().all(|(field, _)| path != field)
    });
    Ok((common, own, ignored))
}

impl Common {
    /// # Errors
    /// What is out of range.
    pub fn into_spec(self, input: Input, max_tokens: Option<u32>) -> Result<GenerateSpec, BadRequest> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            seed: self.seed.map(crate::api::seed),
            ignore_eos: self.ignore_eos,
            logit_bias: logit_bias(self.logit_bias)?,
            ..Sampling::default()
        };
        sampling.validate().map_err(BadRequest)?;
        Ok(GenerateSpec {
            sampling,
            max_tokens,
            stop: self.stop.map_or_else(|| Ok(Vec::new()), StopList::into_vec)?,
            priority: self.priority,
            lora: self.lora.map(checked_lora).transpose()?,
            ..GenerateSpec::new(self.model, input)
        })
    }

    /// The form that the answer must have: `format`, which came in the field `name`, or a grammar.
    ///
    /// # Errors
    /// Both, or one that cannot be kept to.
    pub fn form(
        &mut self,
        format: Option<Constraint>,
        name: &str,
        chat: &ChatOptions,
    ) -> Result<Option<Constraint>, BadRequest> {
        let grammar = self.grammar.take().filter(|grammar| !grammar.is_empty()).map(Constraint::Gbnf);
        if format.is_some() && grammar.is_some() {
            return Err(BadRequest(format!("give `{name}` or `grammar`, not both")));
        }
        let form = format.or(grammar);
        // A text that keeps to a form cannot be a call as well.
        if form.is_some() && !chat.tools.is_empty() && chat.tool_choice == ToolChoice::Auto {
            return Err(BadRequest(format!(
                "`{name}` and `tools` together need a `tool_choice`: none for an answer of that form, required for a call"
            )));
        }
        Ok(form)
    }
}

/// One text or several, as it is or as tokens.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "must be a text, a list of texts, a list of tokens or a list of lists of tokens")]
#[schemars(rename = "openai.Texts")]
pub(super) enum Texts {
    One(String),
    Many(Vec<String>),
    Tokens(Vec<TokenId>),
    ManyTokens(Vec<Vec<TokenId>>),
}

impl Texts {
    pub fn into_inputs(self) -> Vec<Input> {
        match self {
            Self::One(text) => vec![Input::Raw(text)],
            Self::Many(texts) => texts.into_iter().map(Input::Raw).collect(),
            Self::Tokens(tokens) => vec![Input::Tokens(tokens)],
            Self::ManyTokens(texts) => texts.into_iter().map(Input::Tokens).collect(),
        }
    }
}

/// How many answers to each of so many prompts are wanted.
///
/// # Errors
/// None, or too many.
pub(super) fn choices(n: Option<u32>, prompts: usize) -> Result<u32, BadRequest> {
    let n = n.unwrap_or(1);
    let all = prompts.saturating_mul(n as usize);
    if n == 0 || prompts == 1 && all > MAX_CHOICES {
        return Err(BadRequest(format!("n is {n}; it must be from 1 to {MAX_CHOICES}")));
    }
    if all > MAX_CHOICES {
        return Err(BadRequest(format!(
            "{prompts} prompts with {n} answers each are asked for; at most {MAX_CHOICES} answers are given to one request"
        )));
    }
    Ok(n)
}

/// Whether the model thinks. How much is for the template to say.
///
/// # Errors
/// An effort that is unknown.
pub(super) fn thinking(
    effort: Option<&str>,
    name: &str,
    template_args: &mut Map<String, Value>,
) -> Result<Option<bool>, BadRequest> {
    let asked = template_args.get("enable_thinking").and_then(Value::as_bool);
    match effort {
        None => Ok(asked),
        Some("none") => Ok(Some(false)),
        Some(effort @ ("minimal" | "low" | "medium" | "high" | "xhigh")) => {
            template_args.entry("reasoning_effort").or_insert_with(|| effort.into());
            Ok(asked)
        }
        Some(other) => {
            Err(BadRequest(format!("{name} is {other:?}; it can be none, minimal, low, medium, high or xhigh")))
        }
    }
}

/// Tokens with a bias.
const MAX_BIASES: usize = 300;

/// Keys are token ids.
fn logit_bias(field: Map<String, Value>) -> Result<Vec<(TokenId, f32)>, BadRequest> {
    let entry = |(token, bias): (String, Value)| {
        #[allow(clippy::cast_possible_truncation)] // The range is checked with the other parameters.
        let pair = token.parse().ok().zip(bias.as_f64().map(|bias| bias as f32));
        pair.ok_or_else(|| {
            BadRequest(format!("logit_bias.{token}: the key must be a token's number, its value a number"))
        })
    };
    if field.len() > MAX_BIASES {
        return Err(BadRequest(format!("logit_bias has {} entries; at most {MAX_BIASES} are taken", field.len())));
    }
    field.into_iter().map(entry).collect()
}
