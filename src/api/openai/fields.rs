//! Request fields that several of OpenAI's paths have.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::{BadRequest, StopList, checked_lora, forms};
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
    /// llama.cpp's: a grammar in GBNF.
    grammar: Option<String>,
    /// llama.cpp's, too.
    json_schema: Option<Value>,
    /// vLLM's names for forms, the older ones and the newer one.
    guided_json: Option<Value>,
    guided_regex: Option<String>,
    guided_choice: Option<Vec<String>>,
    /// Lark or GBNF.
    guided_grammar: Option<String>,
    structured_outputs: Option<StructuredOutputs>,
}

/// One of these is given.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "openai.StructuredOutputs")]
struct StructuredOutputs {
    json: Option<Value>,
    regex: Option<String>,
    choice: Option<Vec<String>>,
    /// Lark or GBNF.
    grammar: Option<String>,
    json_object: Option<bool>,
    /// Not served.
    structural_tag: Option<Value>,
}

/// Answers to one request.
const MAX_CHOICES: usize = 128;

/// Whether a value of a field asks for nothing.
pub(super) type AsksForNothing = fn(&Value) -> bool;

/// Fields that hold somebody else's JSON, in which null means something.
const FOREIGN: &[&str] =
    &["parameters", "schema", "arguments", "chat_template_kwargs", "json_schema", "guided_json", "json"];

/// Reads the common fields and a path's own ones. With them come the paths of those that have no effect.
///
/// # Errors
/// The first field that is of a wrong type, or asks for what is not served.
pub(super) fn read<T: serde::de::DeserializeOwned>(
    body: &mut Value,
    not_served: &[(&str, AsksForNothing)],
) -> Result<(Common, T, Vec<String>), BadRequest> {
    crate::api::drop_nulls(body, FOREIGN);
    for (field, asks_for_nothing) in not_served {
        if body.get(*field).is_some_and(|value| !asks_for_nothing(value)) {
            return Err(BadRequest(format!("`{field}` is not served by this version")));
        }
    }
    let (own, common, mut ignored) = crate::api::read_two::<T, Common>(body)?;
    ignored.retain(|path| not_served.iter().all(|(field, _)| path != field));
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
        name: &'static str,
        chat: &ChatOptions,
    ) -> Result<Option<Constraint>, BadRequest> {
        let mut given = vec![
            (name, format),
            ("grammar", forms::gbnf(self.grammar.take())),
            ("json_schema", forms::schema("json_schema", self.json_schema.take())?),
            ("guided_json", forms::schema("guided_json", self.guided_json.take())?),
            ("guided_regex", forms::regex(self.guided_regex.take())),
            ("guided_choice", forms::choice("guided_choice", self.guided_choice.take().unwrap_or_default())?),
            ("guided_grammar", forms::grammar(self.guided_grammar.take())),
        ];
        given.extend(self.structured_outputs.take().map_or_else(|| Ok(Vec::new()), StructuredOutputs::forms)?);
        let Some((field, form)) = forms::only(given)? else { return Ok(None) };
        // A text that keeps to a form cannot be a call as well.
        if !chat.tools.is_empty() && chat.tool_choice == ToolChoice::Auto {
            return Err(BadRequest(format!(
                "`{field}` and `tools` together need a `tool_choice`: none for an answer of that form, required for a call"
            )));
        }
        Ok(Some(form))
    }
}

impl StructuredOutputs {
    fn forms(self) -> Result<Vec<(&'static str, Option<Constraint>)>, BadRequest> {
        if self.structural_tag.is_some() {
            return Err(BadRequest("`structured_outputs.structural_tag` is not served by this version".into()));
        }
        let (json, choice) = ("structured_outputs.json", "structured_outputs.choice");
        Ok(vec![
            (json, forms::schema(json, self.json)?),
            ("structured_outputs.regex", forms::regex(self.regex)),
            (choice, forms::choice(choice, self.choice.unwrap_or_default())?),
            ("structured_outputs.grammar", forms::grammar(self.grammar)),
            ("structured_outputs.json_object", (self.json_object == Some(true)).then_some(Constraint::JsonObject)),
        ])
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
