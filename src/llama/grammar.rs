//! Constraining output with a GBNF grammar.

use std::ffi::CString;
use std::ptr::NonNull;

use crate::constrain::TokenFilter;

use super::callback;
use super::error::{LlamaError, check};
use super::sampler::Chain;
use super::vocab::{Token, Vocab};

/// llama.cpp's parser recurses once per nesting level; 5,000 levels exhaust a thread's stack.
const MAX_DEPTH: usize = 256;
const MAX_BYTES: usize = 256 * 1024;

/// A parsed grammar and where generation stands in it.
#[derive(Debug)]
pub struct Grammar {
    chain: Chain,
    /// Once a token was refused, llama.cpp aborts at the next use.
    poisoned: bool,
    vocab: Vocab,
    candidates: Vec<llama_sys::llama_token_data>,
    bits: Vec<u32>,
}

impl Grammar {
    /// # Errors
    /// [`LlamaError::Grammar`] with the reason.
    pub fn new(vocab: &Vocab, gbnf: &str, root: &str) -> Result<Self, LlamaError> {
        check_limits(gbnf)?;
        super::grammar_limits::check(gbnf).map_err(LlamaError::Grammar)?;
        let text = CString::new(gbnf).map_err(|_| LlamaError::NulInText)?;
        let root = CString::new(root).map_err(|_| LlamaError::NulInText)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: both strings are NUL-terminated and the vocabulary is kept below.
        let (status, log) = callback::capture_log(|| unsafe {
            llama_sys::shim_grammar_init(vocab.raw(), text.as_ptr(), root.as_ptr(), &raw mut raw)
        });
        check("parsing a grammar", status, log).map_err(|e| LlamaError::Grammar(e.to_string()))?;
        let raw = NonNull::new(raw).ok_or_else(|| LlamaError::Grammar("it does not parse".into()))?;
        Ok(Self {
            chain: Chain::from_raw(raw),
            poisoned: false,
            vocab: vocab.clone(),
            candidates: Vec::new(),
            bits: Vec::new(),
        })
    }

    fn apply(&mut self, candidates: &mut [llama_sys::llama_token_data]) -> Result<(), LlamaError> {
        let mut array = llama_sys::llama_token_data_array {
            data: candidates.as_mut_ptr(),
            size: candidates.len(),
            selected: -1,
            sorted: false,
        };
        self.guard(|chain| chain.apply(&mut array))
    }

    /// Moves on by one token.
    ///
    /// # Errors
    /// A token that the grammar does not allow. The grammar is then poisoned.
    pub fn accept(&mut self, token: Token) -> Result<(), LlamaError> {
        self.guard(|chain| chain.accept(token))
    }

    fn guard(&mut self, call: impl FnOnce(&mut Chain) -> Result<(), LlamaError>) -> Result<(), LlamaError> {
        if self.poisoned {
            return Err(LlamaError::Poisoned);
        }
        let result = call(&mut self.chain);
        self.poisoned = result.is_err();
        result
    }
}

fn refused(token: &llama_sys::llama_token_data) -> bool {
    token.logit == f32::NEG_INFINITY
}

impl TokenFilter for Grammar {
    fn allows(&mut self, token: u32) -> Result<bool, String> {
        let id = i32::try_from(token).map_err(|e| e.to_string())?;
        let mut candidates = [llama_sys::llama_token_data { id, logit: 0.0, p: 0.0 }];
        self.apply(&mut candidates).map_err(|e| e.to_string())?;
        Ok(!refused(&candidates[0]))
    }

    fn allowed(&mut self) -> Result<&[u32], String> {
        let ids = 0..i32::try_from(self.vocab.n_tokens()).map_err(|e| e.to_string())?;
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        candidates.extend(ids.map(|id| llama_sys::llama_token_data { id, logit: 0.0, p: 0.0 }));
        let applied = self.apply(&mut candidates);
        self.bits.clear();
        let word = |tokens: &[llama_sys::llama_token_data]| {
            tokens.iter().enumerate().fold(0, |word, (bit, token)| word | u32::from(!refused(token)) << bit)
        };
        self.bits.extend(candidates.chunks(32).map(word));
        self.candidates = candidates;
        applied.map_err(|e| e.to_string())?;
        Ok(&self.bits)
    }

    fn accept(&mut self, token: u32) -> Result<(), String> {
        let token = Token::new(token).ok_or("the token is beyond the vocabulary")?;
        Grammar::accept(self, token).map_err(|e| e.to_string())
    }
}

fn check_limits(gbnf: &str) -> Result<(), LlamaError> {
    if gbnf.len() > MAX_BYTES {
        return Err(LlamaError::Grammar(format!("{} bytes long, at most {MAX_BYTES} are allowed", gbnf.len())));
    }
    let (mut depth, mut deepest) = (0usize, 0usize);
    for byte in gbnf.bytes() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > MAX_DEPTH {
        return Err(LlamaError::Grammar(format!("nested {deepest} deep, at most {MAX_DEPTH} are allowed")));
    }
    Ok(())
}
