//! The request body of `POST /api/generate` and the first frame of `/ws/generate`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::api::{BadRequest, StopList, checked_lora, forms};
use crate::chat::{Image, Message, Role};
use crate::engine::Priority;
use crate::runner::{GenerateSpec, Infill, Input, LoraUse, Sampling};

/// Fields that are absent take the model's defaults, and below them those of [`crate::engine::SamplingParams`].
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[schemars(
    rename = "shimmy.GenerateRequest",
    description = "A prompt or messages to answer. Fields that are absent leave it to the model."
)]
pub struct GenerateRequest {
    pub model: String,
    pub prompt: Option<String>,
    /// In base64; they stand before `prompt`.
    #[serde(default)]
    pub images: Vec<Image>,
    /// What stands behind a gap that follows `prompt`; the answer fills it.
    pub suffix: Option<String>,
    pub messages: Option<Vec<Message>>,
    pub system: Option<String>,
    /// Send `prompt` to the model as it is, without its chat template.
    #[serde(default)]
    pub raw: bool,
    pub max_tokens: Option<u32>,
    #[schemars(range(min = 0.0, max = 100.0))]
    pub temperature: Option<f32>,
    pub top_k: Option<u32>,
    #[schemars(range(min = 0.0, max = 1.0))]
    pub top_p: Option<f32>,
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_p: Option<f32>,
    #[schemars(range(min = 0.0, max = 1.0))]
    pub typical_p: Option<f32>,
    #[schemars(range(min = 0.01, max = 100.0))]
    pub repeat_penalty: Option<f32>,
    pub repeat_last_n: Option<u32>,
    #[schemars(range(min = -100.0, max = 100.0))]
    pub frequency_penalty: Option<f32>,
    #[schemars(range(min = -100.0, max = 100.0))]
    pub presence_penalty: Option<f32>,
    pub seed: Option<u32>,
    pub stop: Option<StopList>,
    /// `interactive`, `normal` or `batch`: whose prompt goes first.
    #[serde(default)]
    pub priority: Priority,
    /// Go on to `max_tokens` where the model would end.
    #[serde(default)]
    pub ignore_eos: bool,
    /// LoRA adapters, in place of those that the model was loaded with.
    pub lora: Option<Vec<LoraUse>>,
    /// The form that the answer must have: a JSON schema, or one of the next three.
    pub json_schema: Option<Value>,
    /// A regular expression that the whole answer matches.
    pub regex: Option<String>,
    /// A grammar in Lark's syntax, as llguidance reads it.
    pub lark: Option<String>,
    /// A grammar in llama.cpp's syntax, GBNF.
    pub grammar: Option<String>,
    pub stream_options: Option<StreamOptions>,
    /// Absent, the dialect decides: shimmy's own does not stream, Ollama's does.
    pub stream: Option<bool>,
    /// Paths of the fields that are passed over.
    #[serde(skip)]
    pub ignored: Vec<String>,
}

/// What a stream tells beside the text.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
pub struct StreamOptions {
    /// An event `usage` before the end.
    #[serde(default)]
    pub include_usage: bool,
}

impl GenerateRequest {
    #[must_use]
    pub fn includes_usage(&self) -> bool {
        self.stream_options.is_some_and(|options| options.include_usage)
    }

    /// # Errors
    /// The first field that is missing or of a wrong type.
    pub fn from_value(body: Value) -> Result<Self, BadRequest> {
        let (request, ignored) = crate::api::read_body::<Self>(&body)?;
        Ok(Self { ignored, ..request })
    }

    /// # Errors
    /// What is missing, contradicts itself or is out of range.
    pub fn into_spec(self) -> Result<GenerateSpec, BadRequest> {
        let input = self.input()?;
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            repeat_last_n: self.repeat_last_n,
            repeat_penalty: self.repeat_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            seed: self.seed,
            ignore_eos: self.ignore_eos,
            logit_bias: Vec::new(),
        };
        sampling.validate().map_err(BadRequest)?;
        let form = forms::only([
            ("json_schema", forms::schema("json_schema", self.json_schema)?),
            ("regex", forms::regex(self.regex)),
            ("lark", forms::lark(self.lark)),
            ("grammar", forms::gbnf(self.grammar)),
        ])?;
        Ok(GenerateSpec {
            constraint: form.map(|(_, form)| form),
            sampling,
            max_tokens: self.max_tokens,
            stop: self.stop.map_or_else(|| Ok(Vec::new()), StopList::into_vec)?,
            priority: self.priority,
            lora: self.lora.map(checked_lora).transpose()?,
            ..GenerateSpec::new(self.model, input)
        })
    }

    fn input(&self) -> Result<Input, BadRequest> {
        let refuse = |why: &str| Err(BadRequest(why.into()));
        if !self.images.is_empty() {
            if self.messages.is_some() {
                return refuse("`images` go with `prompt`; a message has its own");
            }
            if self.raw || self.suffix.is_some() {
                return refuse("`images` stand in turns, which `raw` and `suffix` have none of");
            }
        }
        if let Some(behind) = self.suffix.as_ref().filter(|suffix| !suffix.is_empty()) {
            let alone = !self.raw && self.messages.is_none() && self.system.is_none();
            return match self.prompt.as_ref().filter(|_| alone) {
                Some(before) => {
                    let (before, behind) = (before.clone(), behind.clone());
                    Ok(Input::Infill(Infill { before, behind, ..Infill::default() }))
                }
                None => refuse("`suffix` goes with `prompt` alone: the model's own marks stand around both"),
            };
        }
        match (&self.prompt, &self.messages) {
            (Some(_), Some(_)) => refuse("give `prompt` or `messages`, not both"),
            (None, None) => refuse("`prompt` or `messages` is missing"),
            (Some(prompt), None) if self.raw => {
                if self.system.is_some() {
                    return refuse("`raw` sends the prompt as it is, so `system` has no place in it");
                }
                Ok(Input::Raw(prompt.clone()))
            }
            (None, Some(_)) if self.raw => refuse("`raw` goes with `prompt`, not with `messages`"),
            (Some(prompt), None) => {
                let user = Message { images: self.images.clone(), ..Message::new(Role::User, prompt) };
                Ok(Input::Messages(with_system(self.system.as_deref(), vec![user])))
            }
            (None, Some(messages)) if messages.is_empty() => refuse("`messages` is empty"),
            (None, Some(messages)) => Ok(Input::Messages(with_system(self.system.as_deref(), messages.clone()))),
        }
    }
}

/// Puts the system text in front, where there is one.
fn with_system(system: Option<&str>, mut messages: Vec<Message>) -> Vec<Message> {
    if let Some(system) = system.filter(|text| !text.is_empty()) {
        messages.insert(0, Message::new(Role::System, system));
    }
    messages
}
