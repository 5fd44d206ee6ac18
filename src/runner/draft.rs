//! A second model that guesses ahead for a first one: on its first device, whole, with a context of the same layout.

use std::path::{Path, PathBuf};

use crate::llama::{Backend, Context, ContextParams, MemoryUse, Model, ModelParams, Vocab};
use crate::placement::{self, Bytes, Choice, CpuExperts, GpuLayers, PlacementReport, SplitMode};

use super::error::LoadError;
use super::layout::Layout;
use super::local::load_error;
use super::offload;
use super::spec::LoadSpec;

/// Ids that one vocabulary may have more than the other: some are filled up to a round number.
const PADDING: u32 = 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Draft {
    pub path: PathBuf,
    pub model: Model,
    choice: Choice,
}

impl Draft {
    /// Loads what `spec` names for `model`, which runs where `main` says. `simulated`: no weights are read.
    ///
    /// # Errors
    /// What is wrong with the file, or why it cannot guess for this model.
    pub fn load(
        backend: Backend,
        spec: &LoadSpec,
        model: &Model,
        main: &Choice,
        simulated: bool,
    ) -> Result<Option<Self>, LoadError> {
        let Some(path) = spec.draft.clone() else { return Ok(None) };
        let choice = Choice {
            devices: main.devices.iter().take(1).cloned().collect(),
            layers: if main.devices.is_empty() { GpuLayers::Count(0) } else { GpuLayers::All },
            split_mode: SplitMode::default(),
            tensor_split: Vec::new(),
            main_gpu: 0,
            cpu_experts: CpuExperts::None,
            why: main.why.clone(),
        };
        let offload = offload::offload(backend, &choice).map_err(load_error)?;
        let params = ModelParams { offload, simulated, ..ModelParams::default() };
        let loaded = Model::load(backend, &path, &params, &mut |_| true);
        let draft = Self { model: loaded.map_err(|error| refused(&path, load_error(error)))?, path, choice };
        draft.check(model, spec)?;
        Ok(Some(draft))
    }

    /// What it takes beside the model that it guesses for, whose context is laid out as `context` says.
    ///
    /// # Errors
    /// What llama.cpp refuses.
    pub fn need(&self, context: &ContextParams) -> Result<Bytes, LoadError> {
        let context = Context::new(&self.model, context).map_err(|error| refused(&self.path, load_error(error)))?;
        Ok(self.place(context.memory_use().map_err(load_error)?)?.held())
    }

    /// Where it is, compared with where it was to be.
    ///
    /// # Errors
    /// As [`placement::verify`].
    pub fn place(&self, memory: Vec<MemoryUse>) -> Result<PlacementReport, LoadError> {
        let actual = offload::actual(&self.model, memory).map_err(load_error)?;
        placement::verify(&self.choice, &actual).map_err(|error| refused(&self.path, error.into()))
    }

    /// Whether it can guess for `main`.
    fn check(&self, main: &Model, spec: &LoadSpec) -> Result<(), LoadError> {
        let refuse = |why: String| Err(refused(&self.path, LoadError::Failed(why)));
        if spec.serve.deterministic {
            return refuse(
                "it cannot draft together with `deterministic`: a right guess changes what a pass computes".into(),
            );
        }
        if main.pooling().is_some() {
            return refuse("it has nothing to draft: the model answers with vectors or scores, not with text".into());
        }
        for (model, whose) in [(main, "the model's"), (&self.model, "its own")] {
            if model.is_recurrent() || !model.shares_parts() {
                return refuse(format!("it cannot draft: {whose} memory is a state that takes no token back"));
            }
        }
        let longest = Layout::new(main, spec)?.n_ctx_seq;
        if let Some(n) = self.model.learned_positions().filter(|n| *n < longest as usize) {
            return refuse(format!(
                "it cannot draft: it learned {n} positions, and a request may have {longest} tokens"
            ));
        }
        let vocabularies = main.vocab().and_then(|main| Ok((main, self.model.vocab()?)));
        let (theirs, own) = vocabularies.map_err(load_error)?;
        match difference(&theirs, &own) {
            Some(why) => refuse(format!("it cannot draft, as it needs the same tokens: {why}")),
            None => Ok(()),
        }
    }
}

fn refused(path: &Path, error: LoadError) -> LoadError {
    match error {
        LoadError::Failed(why) => LoadError::Failed(format!("draft_model {}: {why}", path.display())),
        error => error,
    }
}

/// How two vocabularies differ in what matters here.
fn difference(main: &Vocab, draft: &Vocab) -> Option<String> {
    let (there, here) = (main.n_tokens(), draft.n_tokens());
    if here > there || there - here > PADDING {
        return Some(format!("the model has {there} tokens, this one {here}"));
    }
    let piece = |vocab: &Vocab, id: u32| {
        let mut bytes = Vec::new();
        let token = crate::llama::Token::new(id)?;
        vocab.append_piece(token, true, &mut bytes).ok().map(|()| bytes)
    };
    let differs = (0..here).find(|id| piece(main, *id) != piece(draft, *id))?;
    let shown = |vocab: &Vocab| String::from_utf8_lossy(&piece(vocab, differs).unwrap_or_default()).into_owned();
    Some(format!("token {differs} is {:?} in the model and {:?} here", shown(main), shown(draft)))
}
