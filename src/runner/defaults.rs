//! What a request gets that leaves something open: a model's own defaults, and below them shimmy's.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::chat::{Message, Role};
use crate::engine::{SamplingParams, TokenId};

use super::spec::{GenerateSpec, Input};

/// What somebody says about sampling. What is `None` is left to the model's defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    pub temperature: Option<f32>,
    pub top_k: Option<u32>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub typical_p: Option<f32>,
    pub repeat_last_n: Option<u32>,
    pub repeat_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub seed: Option<u32>,
    pub ignore_eos: bool,
    pub logit_bias: Vec<(TokenId, f32)>,
}

impl Sampling {
    /// What the sampler is told, with shimmy's defaults for all that is open.
    #[must_use]
    pub fn params(&self) -> SamplingParams {
        let defaults = SamplingParams::default();
        SamplingParams {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            typical_p: self.typical_p.unwrap_or(defaults.typical_p),
            repeat_last_n: self.repeat_last_n.unwrap_or(defaults.repeat_last_n),
            repeat_penalty: self.repeat_penalty.unwrap_or(defaults.repeat_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(defaults.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(defaults.presence_penalty),
            seed: self.seed,
            ignore_eos: self.ignore_eos,
            logit_bias: self.logit_bias.clone(),
        }
    }

    /// As [`Sampling::params`], for one of several answers to a prompt: each has a seed of its own.
    #[must_use]
    pub fn params_of(&self, answer: u32) -> SamplingParams {
        let params = self.params();
        SamplingParams { seed: params.seed.map(|seed| seed.wrapping_add(answer)), ..params }
    }

    /// # Errors
    /// Names the first value that is out of range, what it was and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        self.params().validate()
    }

    /// What this says, and where it says nothing, `lower`.
    #[must_use]
    pub fn over(self, lower: &Self) -> Self {
        Self {
            temperature: self.temperature.or(lower.temperature),
            top_k: self.top_k.or(lower.top_k),
            top_p: self.top_p.or(lower.top_p),
            min_p: self.min_p.or(lower.min_p),
            typical_p: self.typical_p.or(lower.typical_p),
            repeat_last_n: self.repeat_last_n.or(lower.repeat_last_n),
            repeat_penalty: self.repeat_penalty.or(lower.repeat_penalty),
            frequency_penalty: self.frequency_penalty.or(lower.frequency_penalty),
            presence_penalty: self.presence_penalty.or(lower.presence_penalty),
            seed: self.seed.or(lower.seed),
            ignore_eos: self.ignore_eos,
            logit_bias: self.logit_bias,
        }
    }
}

/// What the numbers of Ollama's parameters mean.
pub mod ollama {
    /// Whatever is below 1 means no limit.
    #[must_use]
    pub fn num_predict(n: i64) -> Option<u32> {
        u32::try_from(n).ok().filter(|limit| *limit > 0)
    }

    /// -1 means that one is drawn. The lower 32 bits tell the others apart as well.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn seed(n: i64) -> Option<u32> {
        (n != -1).then_some(n as u32)
    }

    #[must_use]
    pub fn top_k(n: i64) -> u32 {
        u32::try_from(n.max(0)).unwrap_or(u32::MAX)
    }

    /// Negative means the whole context.
    #[must_use]
    pub fn repeat_last_n(n: i64) -> u32 {
        u32::try_from(n).unwrap_or(u32::MAX)
    }
}

/// More stop strings than this are a mistake.
const MAX_STOPS: usize = 64;

/// # Errors
/// Too many of them.
pub fn check_stops(stops: &[String]) -> Result<(), String> {
    if stops.len() > MAX_STOPS {
        return Err(format!("{} stop strings; at most {MAX_STOPS} are allowed", stops.len()));
    }
    Ok(())
}

/// A model's own defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerateDefaults {
    pub sampling: Sampling,
    /// Tokens.
    pub max_tokens: Option<u32>,
    /// For requests that name no stop strings.
    pub stop: Vec<String>,
    /// For conversations without a system turn.
    pub system: Option<String>,
    /// Turns that stand before each conversation, behind its system turn.
    pub messages: Vec<Message>,
}

impl GenerateDefaults {
    /// What a request that says this is sampled with.
    #[must_use]
    pub fn sampling_for(&self, asked: &Sampling) -> SamplingParams {
        asked.clone().over(&self.sampling).params()
    }

    /// The request with these defaults in it.
    #[must_use]
    pub fn apply<'a>(&self, spec: &'a GenerateSpec) -> Cow<'a, GenerateSpec> {
        if *self == Self::default() {
            return Cow::Borrowed(spec);
        }
        let mut spec = spec.clone();
        spec.sampling = spec.sampling.over(&self.sampling);
        spec.max_tokens = spec.max_tokens.or(self.max_tokens);
        if spec.stop.is_empty() {
            spec.stop.clone_from(&self.stop);
        }
        if let Input::Messages(messages) = &mut spec.input {
            if let Some(system) = self.system.as_ref().filter(|_| messages.iter().all(|turn| turn.role != Role::System))
            {
                messages.insert(0, Message::new(Role::System, system));
            }
            let head = messages.iter().take_while(|turn| turn.role == Role::System).count();
            messages.splice(head..head, self.messages.iter().cloned());
        }
        Cow::Owned(spec)
    }

    /// These, and where they say nothing, `lower`'s.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            sampling: self.sampling.over(&lower.sampling),
            max_tokens: self.max_tokens.or(lower.max_tokens),
            stop: if self.stop.is_empty() { lower.stop } else { self.stop },
            system: self.system.or(lower.system),
            messages: if self.messages.is_empty() { lower.messages } else { self.messages },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{GenerateDefaults, Sampling};
    use crate::chat::{Message, Role};
    use crate::runner::{GenerateSpec, Input};

    fn defaults() -> GenerateDefaults {
        GenerateDefaults {
            sampling: Sampling { temperature: Some(0.25), top_k: Some(7), ..Sampling::default() },
            max_tokens: Some(12),
            stop: vec!["END".into()],
            system: Some("Be brief.".into()),
            messages: vec![Message::new(Role::User, "One?"), Message::new(Role::Assistant, "1")],
        }
    }

    #[test]
    fn a_request_wins_over_its_models_defaults_and_they_over_ours() {
        let mut spec = GenerateSpec::new("m", Input::Messages(vec![Message::new(Role::User, "Hi")]));
        spec.sampling.top_k = Some(3);
        let applied = defaults().apply(&spec).into_owned();
        let params = applied.sampling.params();
        assert_eq!((params.temperature, params.top_k, params.top_p), (0.25, 3, 0.95));
        assert_eq!((applied.max_tokens, applied.stop), (Some(12), vec!["END".to_owned()]));
        let Input::Messages(messages) = applied.input else { panic!("still messages") };
        let turn = Message::new;
        let before = [turn(Role::System, "Be brief."), turn(Role::User, "One?"), turn(Role::Assistant, "1")];
        assert_eq!(messages, [&before[..], &[turn(Role::User, "Hi")]].concat());
    }

    #[test]
    fn what_a_setting_says_goes_before_what_came_with_the_model() {
        let upper = GenerateDefaults {
            sampling: Sampling { top_k: Some(1), ..Sampling::default() },
            system: Some("Rhyme.".into()),
            ..GenerateDefaults::default()
        };
        let both = upper.over(defaults());
        assert_eq!((both.sampling.top_k, both.sampling.temperature), (Some(1), Some(0.25)));
        assert_eq!((both.system.as_deref(), both.max_tokens, both.messages.len()), (Some("Rhyme."), Some(12), 2));
    }

    #[test]
    fn what_a_request_says_stays() {
        let messages = vec![Message::new(Role::System, "Rhyme."), Message::new(Role::User, "Hi")];
        let mut spec = GenerateSpec::new("m", Input::Messages(messages));
        spec.sampling = Sampling { temperature: Some(0.0), top_k: Some(1), ..Sampling::default() };
        (spec.max_tokens, spec.stop) = (Some(1), vec!["x".into()]);
        let applied = GenerateDefaults { messages: Vec::new(), ..defaults() }.apply(&spec).into_owned();
        assert_eq!(applied, spec);
        let Input::Messages(turns) = defaults().apply(&spec).into_owned().input else { panic!("still messages") };
        assert_eq!((turns[0].content.as_str(), turns[1].content.as_str(), turns.len()), ("Rhyme.", "One?", 4));
        let raw = GenerateSpec::new("m", Input::Raw("Once".into()));
        assert_eq!(defaults().apply(&raw).input, raw.input, "a raw prompt is sent as it is");
    }
}
