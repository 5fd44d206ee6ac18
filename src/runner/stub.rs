//! A runner without a model: the real engine on a simulated machine. The API's contract tests run on it.
//!
//! The answer repeats the prompt's last message, word by word. A few prompts ask for more:
//! `stub:fail` fails before the first token, `stub:break` after the second, `stub:endless` goes on to the end of the
//! context. With adapters it begins with their names and scales, e.g. `[poet@0.5]`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use crate::constrain::{self, Compiler};
use crate::engine::{AdapterSet, EngineAdapter, EngineConfig, EngineHandle, Job, Machine, Rule, TokenId};
use crate::gguf;
use crate::placement::{self, Bytes, DeviceNeed, DeviceUse, MemoryPlan, PlacementReport};

use super::adapters::Adapters;
use super::defaults::GenerateDefaults;
use super::delta::{DeltaStream, parsers_for};
use super::error::{LoadError, RunnerError};
use super::forms;
use super::infill::{self, Marks};
use super::rank;
use super::spec::{EmbedSpec, Embeddings, GenerateSpec, Input, Prompt, RankSpec, Ranks, StubSpeed};
use super::stub_parser;
use super::{Measure, Runner, RunnerInfo, Waits, sees_nothing};

/// Words, in place of tokens, that a prompt and its answer may have.
const CONTEXT: usize = 8192;
/// The same for the stub that takes no time.
const FAST_CONTEXT: usize = 1 << 20;
/// Between two words, so that a test can act while one runs.
const PACE: Duration = Duration::from_millis(2);
const PARALLEL: usize = 16;
/// So that the stub's memory can be limited like a model's.
const CELL_BYTES: u64 = 16;

/// Marks the words of a prompt's last message.
const LAST: TokenId = 1 << 30;
const WORD: TokenId = LAST - 1;
/// Ends an answer.
const END: TokenId = 0;

#[derive(Debug)]
pub struct StubRunner {
    engine: EngineHandle,
    words: Arc<Words>,
    /// It fills gaps and ranks texts. The other stub does not, and shows what is said of such a model.
    is_able: bool,
    /// For forms that are asked for: its answers keep to none, but it says which cannot be kept to.
    compiler: OnceLock<Result<Compiler, String>>,
    defaults: GenerateDefaults,
    adapters: Adapters,
    info: RunnerInfo,
}

/// All words that were seen, numbered.
#[derive(Debug, Default)]
struct Words(RwLock<Numbered>);

#[derive(Debug, Default)]
struct Numbered {
    words: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, TokenId>,
}

impl Words {
    fn token(&self, word: &str) -> TokenId {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).numbers.get(word).copied();
        known.unwrap_or_else(|| {
            let mut guard = self.0.write().unwrap_or_else(PoisonError::into_inner);
            let Numbered { words, numbers } = &mut *guard;
            let word: Arc<str> = word.into();
            *numbers.entry(Arc::clone(&word)).or_insert_with(|| {
                words.push(word);
                TokenId::try_from(words.len()).unwrap_or(WORD)
            })
        })
    }

    fn marks(&self) -> Marks {
        Marks {
            before: self.token("<|fim_prefix|>"),
            behind: self.token("<|fim_suffix|>"),
            middle: self.token("<|fim_middle|>"),
            repository: Some(self.token("<|repo_name|>")),
            file: Some(self.token("<|file_sep|>")),
        }
    }

    fn word(&self, token: TokenId) -> Option<Arc<str>> {
        let index = ((token & WORD) as usize).checked_sub(1)?;
        self.0.read().unwrap_or_else(PoisonError::into_inner).words.get(index).cloned()
    }
}

impl Rule for Words {
    fn next(&self, tokens: &[TokenId], prompt: usize, adapters: &AdapterSet) -> Result<TokenId, String> {
        let mut said = tokens.len() - prompt;
        let names = adapters.weights::<String>();
        if !names.is_empty() {
            if said == 0 {
                let named: Vec<String> = names.iter().map(|(name, scale)| format!("{name}@{scale}")).collect();
                return Ok(self.token(&format!("[{}] ", named.join(" "))));
            }
            said -= 1;
        }
        // The last message stands at the prompt's end, so its first word is found from there.
        let last = tokens[..prompt].iter().rposition(|token| token & LAST == 0).map_or(0, |at| at + 1);
        let script = &tokens[last..prompt];
        let first = script.first().and_then(|token| self.word(*token)).unwrap_or_default();
        match (first.trim(), said) {
            ("stub:fail", _) => Err("the stub was told to fail".into()),
            ("stub:break", 2) => Err("the stub was told to break".into()),
            ("stub:break", said) => Ok(self.token(["one", " two"][said])),
            ("stub:endless", _) => Ok(self.token("word ")),
            _ => Ok(script.get(said).map_or(END, |token| token & WORD)),
        }
    }

    fn piece(&self, token: TokenId) -> Option<Arc<str>> {
        self.word(token)
    }
}

impl StubRunner {
    /// # Errors
    /// Why its engine did not start.
    pub fn new(speed: StubSpeed, defaults: GenerateDefaults) -> Result<Self, LoadError> {
        let (context, pace) = match speed {
            StubSpeed::Paced => (CONTEXT, PACE),
            StubSpeed::Fast => (FAST_CONTEXT, Duration::ZERO),
        };
        let words = Arc::new(Words::default());
        let is_able = speed == StubSpeed::Paced;
        let machine = Machine {
            n_cells: 2 * context,
            n_ctx_seq: context,
            n_batch: 2048,
            n_seq_max: 2 * u32::try_from(PARALLEL).unwrap_or(1),
            recurrent: false,
            pace,
        };
        let config = EngineConfig { label: "stub".into(), parallel: PARALLEL, queue: 64, ..EngineConfig::default() };
        let engine = EngineHandle::start_simulation(Arc::clone(&words) as Arc<dyn Rule>, machine, config)
            .map_err(LoadError::Failed)?;
        let MemoryPlan { devices, .. } = Self::plan(speed, &[]);
        let info = RunnerInfo {
            description: "stub".into(),
            size_bytes: 0,
            parameters: 0,
            context_tokens: context,
            parallel: PARALLEL,
            threads: 1,
            template: "none".into(),
            adapters: Vec::new(),
            draft: None,
            projector: None,
            placement: PlacementReport {
                backend: "cpu".into(),
                devices: devices.into_iter().map(|device| device.usage).collect(),
                gpu_layers: 0,
                total_layers: 0,
                why: String::new(),
            },
            load_ms: 0.0,
        };
        Ok(Self { engine, words, is_able, compiler: OnceLock::new(), defaults, adapters: Adapters::default(), info })
    }

    /// What its cells would take, if they were any.
    #[must_use]
    pub fn plan(speed: StubSpeed, adapters: &[(PathBuf, f32)]) -> MemoryPlan {
        let context = match speed {
            StubSpeed::Paced => CONTEXT,
            StubSpeed::Fast => FAST_CONTEXT,
        };
        let bytes = 2 * context as u64 * CELL_BYTES;
        let adapters = adapters.iter().filter_map(|(path, _)| adapter_need(path).ok());
        let adapter_bytes = adapters.flat_map(Bytes::into_values).sum();
        let usage = DeviceUse { name: "CPU".into(), context_bytes: bytes, adapter_bytes, ..DeviceUse::default() };
        let needed_bytes = usage.total_bytes();
        MemoryPlan {
            backend: "cpu".into(),
            gpu_layers: 0,
            total_layers: 0,
            context_tokens: u32::try_from(context).unwrap_or(u32::MAX),
            parallel: u32::try_from(PARALLEL).unwrap_or(1),
            devices: vec![DeviceNeed { usage, needed_bytes, free_bytes: super::free::cpu(), fits: true }],
            fits: true,
            reduced: false,
            why: "it computes nothing".into(),
            refusal: None,
            alternatives: Vec::new(),
        }
    }

    /// The words of all messages, those of the last one marked.
    fn tokens(&self, spec: &GenerateSpec) -> Result<Vec<TokenId>, RunnerError> {
        let mark = |tokens: Vec<TokenId>| Ok(tokens.into_iter().map(|token| token | LAST).collect());
        let messages: Vec<&str> = match &spec.input {
            Input::Raw(text) => vec![text],
            Input::Tokens(tokens) => return mark(tokens.clone()),
            Input::Infill(gap) => {
                let tokenise = |text: &str| self.tokenize(text, false, false);
                let marks = self.is_able.then(|| self.words.marks());
                return mark(infill::tokens(spec, gap, marks, None, self.info.context_tokens, &tokenise)?);
            }
            Input::Messages(messages) if messages.iter().any(|message| !message.images.is_empty()) => {
                return Err(sees_nothing("it is none"));
            }
            Input::Messages(messages) => messages.iter().map(|message| message.content.as_str()).collect(),
        };
        let mut tokens = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            let mark = if index + 1 == messages.len() { LAST } else { 0 };
            tokens.extend(pieces(message).map(|word| self.words.token(word) | mark));
        }
        Ok(tokens)
    }
}

impl Runner for StubRunner {
    fn generate_several(
        &self,
        specs: &[GenerateSpec],
        answers: u32,
        _: Waits<'_>,
    ) -> Result<Vec<DeltaStream>, RunnerError> {
        self.engine.can_hold(specs.len().saturating_mul(answers as usize))?;
        let (mut jobs, mut parsers) = (Vec::new(), Vec::new());
        for spec in specs {
            let spec = self.defaults.apply(spec);
            if let Input::Tokens(tokens) = &spec.input {
                self.pieces(tokens)?;
            }
            let prompt = self.tokens(&spec)?;
            self.engine.fits(&prompt)?;
            if let Some(form) = &spec.constraint {
                forms::filter(self.compiler.get_or_init(|| Compiler::new(constrain::Words::bytes())), form)?;
            }
            let adapters = self.adapters.set(spec.lora.as_deref().unwrap_or_default())?;
            for answer in 0..answers {
                jobs.push(Job {
                    prompt: prompt.clone(),
                    images: Vec::new(),
                    begun: None,
                    sampling: spec.sampling.params_of(answer),
                    stop: spec.stop.clone(),
                    max_tokens: spec.max_tokens,
                    priority: spec.priority,
                    shown: Vec::new(),
                    filter: None,
                    adapters: adapters.clone(),
                    logprobs: spec.logprobs.map(|n| n as usize),
                });
            }
            parsers.extend(parsers_for(stub_parser::parser_for(&spec.chat), answers)?);
        }
        Ok(DeltaStream::several(self.engine.submit_all(jobs)?, parsers))
    }

    fn prompt(&self, spec: &GenerateSpec) -> Result<Prompt, RunnerError> {
        let tokens = self.tokens(&self.defaults.apply(spec))?;
        let text = tokens.iter().filter_map(|token| self.words.word(*token)).collect::<Vec<_>>().concat();
        Ok(Prompt { text, tokens })
    }

    fn tokenize(&self, text: &str, _add_special: bool, _parse_special: bool) -> Result<Vec<TokenId>, RunnerError> {
        Ok(pieces(text).map(|word| self.words.token(word)).collect())
    }

    fn pieces(&self, tokens: &[TokenId]) -> Result<Vec<Vec<u8>>, RunnerError> {
        let word = |token: &TokenId| {
            let word =
                self.words.word(*token).ok_or_else(|| RunnerError::BadRequest(format!("there is no token {token}")));
            word.map(|word| word.as_bytes().to_vec())
        };
        tokens.iter().map(word).collect()
    }

    /// The length of the text, and of its words.
    fn embed(&self, spec: &EmbedSpec) -> Result<Embeddings, RunnerError> {
        let mut found = Embeddings::default();
        for input in &spec.inputs {
            let tokens = self.tokens(&GenerateSpec::new("", input.clone()))?;
            let lengths =
                tokens.iter().take(4).map(|token| self.words.word(*token).map_or(0.0, |word| word.len() as f32));
            let mut vector: Vec<f32> = lengths.collect();
            vector.resize(4, 1.0);
            vector.truncate(spec.dimensions.unwrap_or(4));
            let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            vector.iter_mut().for_each(|x| *x /= norm);
            found.vectors.push(vector);
            found.prompt_tokens += tokens.len();
        }
        Ok(found)
    }

    /// The share of the query's words that the document has.
    fn rank(&self, spec: &RankSpec) -> Result<Ranks, RunnerError> {
        if !self.is_able {
            return Err(rank::refusal());
        }
        let query: Vec<&str> = spec.query.split_whitespace().collect();
        let score = |document: &String| {
            let found = query.iter().filter(|word| document.split_whitespace().any(|other| other == **word)).count();
            found as f32 / query.len().max(1) as f32
        };
        let words = |text: &str| pieces(text).count();
        let prompt_tokens = spec.documents.iter().map(|document| words(&spec.query) + words(document)).sum();
        Ok(Ranks { scores: spec.documents.iter().map(score).collect(), prompt_tokens })
    }

    fn info(&self) -> &RunnerInfo {
        &self.info
    }

    fn defaults(&self) -> &GenerateDefaults {
        &self.defaults
    }

    fn measure(&self, what: Measure) -> Result<f64, RunnerError> {
        Ok(self.engine.measure(what, AdapterSet::default())?)
    }

    /// It has no weights that an adapter could be checked against.
    fn load_adapter(&self, name: &str, path: &Path, again: bool) -> Result<(), LoadError> {
        let load = || Ok((EngineAdapter::new(name.to_owned()), adapter_need(path)?));
        self.adapters.load_into(&self.engine, name, path, again, load)
    }

    fn unload_adapter(&self, name: &str) -> bool {
        self.adapters.unload(&self.engine, name)
    }

    fn adapter(&self, name: &str) -> Option<PathBuf> {
        self.adapters.path_of(name)
    }

    fn adapter_need(&self, path: &Path) -> Result<Bytes, LoadError> {
        adapter_need(path)
    }

    fn adapters_held(&self) -> Bytes {
        self.adapters.held()
    }
}

/// What an adapter would take beside a model of which all is on the CPU.
fn adapter_need(path: &Path) -> Result<Bytes, LoadError> {
    let header = gguf::Header::open(path).map_err(|e| LoadError::Failed(e.to_string()))?;
    if header.is_adapter() {
        return Ok(placement::adapter_bytes(&header, &[]));
    }
    Err(LoadError::Failed(format!("{}: is no LoRA adapter", path.display())))
}

/// Words, each with the space or line break before it, as tokenisers cut.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let begins = |(_, c): &(usize, char)| matches!(c, ' ' | '\n');
        let end = rest.char_indices().skip(1).find(begins).map_or(rest.len(), |(at, _)| at.max(first.len_utf8()));
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
#[path = "stub_tests.rs"]
mod tests;
