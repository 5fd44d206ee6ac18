//! What Ollama, or `/api/create`, keeps with a model beside its weights, as settings of that model.

use serde_json::{Map, Value};

use crate::chat::Message;
use crate::library::OllamaLayers;
use crate::runner::{GenerateDefaults, Sampling, check_stops, ollama};

/// What a model's layers say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    pub defaults: GenerateDefaults,
    /// `num_ctx`, in tokens.
    pub context_tokens: Option<u32>,
    /// Jinja text, or the name of a template that llama.cpp has.
    pub template: Option<String>,
    /// What could not be used, and why.
    pub problems: Vec<String>,
}

impl Kept {
    /// `has_template` is whether the weights' file brings a template of its own.
    #[must_use]
    pub fn of(layers: &OllamaLayers, has_template: bool) -> Self {
        let mut kept = Self::default();
        kept.read_parameters(&layers.parameters);
        kept.read_messages(&layers.messages);
        kept.defaults.system = layers.system.clone().filter(|text| !text.is_empty());
        kept.template = layers.template.as_deref().and_then(|text| template(text, has_template));
        kept
    }

    /// Checks what somebody wants to be kept.
    ///
    /// # Errors
    /// The first thing that could not be used.
    pub fn check(parameters: &Map<String, Value>, messages: &[Value]) -> Result<(), String> {
        let mut kept = Self::default();
        kept.read_parameters(parameters);
        kept.read_messages(messages);
        kept.problems.into_iter().next().map_or(Ok(()), Err)
    }

    fn read_parameters(&mut self, parameters: &Map<String, Value>) {
        for (name, value) in parameters {
            if let Err(why) = self.read(name, value) {
                self.problems.push(format!("parameters.{name} is {value}: {why}"));
            }
        }
    }

    /// Names that have no effect here are passed over, as in requests.
    fn read(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let mut alone = Sampling::default();
        match name {
            "temperature" => alone.temperature = Some(number(value)?),
            "top_p" => alone.top_p = Some(number(value)?),
            "min_p" => alone.min_p = Some(number(value)?),
            "typical_p" => alone.typical_p = Some(number(value)?),
            "repeat_penalty" => alone.repeat_penalty = Some(number(value)?),
            "frequency_penalty" => alone.frequency_penalty = Some(number(value)?),
            "presence_penalty" => alone.presence_penalty = Some(number(value)?),
            "top_k" => alone.top_k = Some(ollama::top_k(whole(value)?)),
            "repeat_last_n" => alone.repeat_last_n = Some(ollama::repeat_last_n(whole(value)?)),
            "seed" => alone.seed = ollama::seed(whole(value)?),
            "num_predict" => self.defaults.max_tokens = ollama::num_predict(whole(value)?),
            "num_ctx" => {
                let tokens = u32::try_from(whole(value)?).ok().filter(|tokens| *tokens > 0);
                self.context_tokens = Some(tokens.ok_or("it must be at least 1")?);
            }
            "stop" => self.defaults.stop = stops(value)?,
            _ => {}
        }
        alone.validate()?;
        self.defaults.sampling = alone.over(&self.defaults.sampling);
        Ok(())
    }

    fn read_messages(&mut self, messages: &[Value]) {
        for (index, turn) in messages.iter().enumerate() {
            match serde_json::from_value::<Message>(turn.clone()) {
                Ok(message) => self.defaults.messages.push(message),
                Err(error) => self.problems.push(format!("messages[{index}]: {error}")),
            }
        }
    }
}

/// Text, as the `ollama` command of older versions sent it, counts.
fn number(value: &Value) -> Result<f32, String> {
    let text = value.as_str().map(str::to_owned).or_else(|| value.is_number().then(|| value.to_string()));
    text.and_then(|text| text.parse().ok()).ok_or_else(|| "it must be a number".into())
}

#[allow(clippy::cast_possible_truncation)]
fn whole(value: &Value) -> Result<i64, String> {
    let from_float =
        || value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15).map(|number| number as i64);
    let number = value.as_i64().or_else(from_float).or_else(|| value.as_str()?.parse().ok());
    number.ok_or_else(|| "it must be a whole number".into())
}

fn stops(value: &Value) -> Result<Vec<String>, String> {
    const WRONG: &str = "it must be a text or a list of texts";
    let list = match value {
        Value::String(stop) => vec![stop.clone()],
        Value::Array(stops) => {
            stops.iter().map(|stop| stop.as_str().map(str::to_owned).ok_or(WRONG)).collect::<Result<_, _>>()?
        }
        _ => return Err(WRONG.into()),
    };
    check_stops(&list)?;
    Ok(list.into_iter().filter(|stop| !stop.is_empty()).collect())
}

/// Jinja is taken as it is. Ollama's own templates are in Go's language, which nothing here runs: the file's own template says the
/// same in Jinja, and where the file has none, the marks of the turns tell which of llama.cpp's says it.
fn template(text: &str, has_template: bool) -> Option<String> {
    if is_jinja(text) {
        return Some(text.to_owned());
    }
    let known = || MARKS.iter().find(|(mark, _)| text.contains(mark)).map(|(_, name)| (*name).to_owned());
    if has_template { None } else { known() }
}

/// Whether a template is in the language that models bring theirs in.
#[must_use]
pub fn is_jinja(template: &str) -> bool {
    template.contains("{%")
}

/// What turns begin with, and llama.cpp's name for the template that does so.
const MARKS: &[(&str, &str)] = &[
    ("<|im_start|>", "chatml"),
    ("<|start_header_id|>", "llama3"),
    ("<start_of_turn>", "gemma"),
    ("<|start_of_role|>", "granite"),
    ("<|START_OF_TURN_TOKEN|>", "command-r"),
    ("<｜User｜>", "deepseek3"),
    ("[INST]", "llama2-sys"),
    ("GPT4 Correct User", "openchat"),
    ("<|end|>", "phi3"),
    ("<|user|>", "zephyr"),
    ("USER:", "vicuna"),
    ("### Instruction:", "deepseek"),
];

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::Kept;
    use crate::chat::{Message, Role};
    use crate::config::{Asked, Config, File, parse};
    use crate::library::{Facts, Found, OllamaLayers};

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    fn kept(layers: OllamaLayers) -> Kept {
        Kept::of(&layers, true)
    }

    #[test]
    fn parameters_and_texts_become_a_models_defaults() {
        let parameters = json!({
            "temperature": 0.5, "top_k": 20, "min_p": "0.1", "num_predict": 9, "num_ctx": 2048, "seed": 7, "repeat_last_n": -1,
            "stop": ["<|im_end|>", ""], "num_gpu": 99, "mirostat": 1
        });
        let found = kept(OllamaLayers {
            system: Some("Be brief.".into()),
            parameters: map(parameters),
            messages: vec![json!({ "role": "user", "content": "Hi" })],
            ..OllamaLayers::default()
        });
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        let defaults = &found.defaults;
        let sampling = &defaults.sampling;
        assert_eq!((sampling.temperature, sampling.top_k, sampling.min_p), (Some(0.5), Some(20), Some(0.1)));
        assert_eq!((sampling.seed, sampling.repeat_last_n, sampling.top_p), (Some(7), Some(u32::MAX), None));
        assert_eq!((defaults.max_tokens, found.context_tokens), (Some(9), Some(2048)));
        assert_eq!(
            (defaults.stop.as_slice(), defaults.system.as_deref()),
            (&["<|im_end|>".to_owned()][..], Some("Be brief."))
        );
        assert_eq!(defaults.messages, [Message::new(Role::User, "Hi")]);
        let drawn =
            kept(OllamaLayers { parameters: map(json!({ "seed": -1, "num_predict": -1 })), ..OllamaLayers::default() });
        assert_eq!((drawn.defaults.sampling.seed, drawn.defaults.max_tokens), (None, None));
    }

    /// A request must not fail for what somebody wrote into a manifest.
    #[test]
    fn what_is_out_of_range_is_told_and_the_rest_is_used() {
        for (name, value) in [
            ("temperature", json!(-1)),
            ("temperature", json!("hot")),
            ("top_p", json!(7)),
            ("top_k", json!(1.5)),
            ("num_ctx", json!(0)),
            ("stop", json!([1])),
            ("stop", json!(vec!["x"; 65])),
            ("repeat_penalty", json!(null)),
        ] {
            let mut parameters = map(json!({ "min_p": 0.25 }));
            parameters.insert(name.into(), value.clone());
            let found = kept(OllamaLayers { parameters: parameters.clone(), ..OllamaLayers::default() });
            assert_eq!(found.problems.len(), 1, "{name} {value}");
            assert_eq!(found.defaults.sampling.min_p, Some(0.25));
            assert!(found.defaults.sampling.validate().is_ok() && found.defaults.stop.is_empty());
            let why = Kept::check(&parameters, &[]).expect_err("out of range");
            assert!(why.starts_with(&format!("parameters.{name} is ")), "{why}");
        }
        let why = Kept::check(&Map::new(), &[json!({ "role": "king", "content": "x" })]).expect_err("no role");
        assert!(why.starts_with("messages[0]: "), "{why}");
    }

    #[test]
    fn the_config_file_says_more_than_what_came_with_the_model() {
        let layers = OllamaLayers {
            system: Some("Be brief.".into()),
            parameters: map(json!({ "temperature": 0.5, "top_k": 20, "num_ctx": 64 })),
            ..OllamaLayers::default()
        };
        let found = Found {
            name: "mine:latest".into(),
            aliases: Vec::new(),
            lasting: 0,
            path: "/m.gguf".into(),
            size_bytes: 1,
            because: "a test",
            facts: Facts::default(),
            shards: None,
            projector: None,
            adapters: Vec::new(),
            ollama: Some(layers),
        };
        let spec = |text: &str| {
            let file = File { settings: parse(text).expect("settings"), ..File::default() };
            let catalog = Config { asked: Asked::default(), file }.catalog_of(vec![found.clone()]);
            catalog.models["mine:latest"].spec.clone()
        };
        let plain = spec("");
        assert_eq!((plain.defaults.system.as_deref(), plain.context_tokens), (Some("Be brief."), Some(64)));
        assert_eq!((plain.defaults.sampling.temperature, plain.defaults.sampling.top_k), (Some(0.5), Some(20)));
        let told = spec("ctx_size = 512\n[sampling]\ntop_k = 3\n[models.\"mine:latest\".sampling]\nsystem = 'Rhyme.'");
        assert_eq!((told.defaults.system.as_deref(), told.context_tokens), (Some("Rhyme."), Some(512)));
        assert_eq!((told.defaults.sampling.temperature, told.defaults.sampling.top_k), (Some(0.5), Some(3)));
    }

    #[test]
    fn templates_are_run_in_jinja_and_known_by_their_marks_where_the_file_has_none() {
        let of = |text: &str, has_template| {
            Kept::of(&OllamaLayers { template: Some(text.into()), ..OllamaLayers::default() }, has_template).template
        };
        let jinja = "{% for m in messages %}{{ m.content }}{% endfor %}";
        assert_eq!((of(jinja, true).as_deref(), of(jinja, false).as_deref()), (Some(jinja), Some(jinja)));
        let go = "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n";
        assert_eq!((of(go, true), of(go, false).as_deref()), (None, Some("chatml")));
        assert_eq!(of("<|start_header_id|>user<|end_header_id|>", false).as_deref(), Some("llama3"));
        assert_eq!(of("{{ .Prompt }}", false), None);
    }
}
