//! The tokens of one forward pass.

use super::context::{Context, SeqId};
use super::error::LlamaError;
use super::vocab::Token;

/// A position in a sequence, from 0. llama.cpp treats negative ones as "not in any sequence", so there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos(i32);

impl Pos {
    pub const ZERO: Self = Self(0);

    /// # Errors
    /// Positions beyond `i32::MAX` are refused.
    pub fn new(index: usize) -> Result<Self, LlamaError> {
        i32::try_from(index).map(Self).map_err(|_| LlamaError::PosRange(i64::try_from(index).unwrap_or(i64::MAX)))
    }

    pub(super) fn raw(self) -> i32 {
        self.0
    }
}

/// Tokens for [`Context::decode`], at most the context's `n_batch`. Reuse it: `clear` keeps the memory.
#[derive(Debug)]
pub struct Batch {
    context: u32,
    capacity: usize,
    n_tokens_vocab: u32,
    n_positions: usize,
    tokens: Vec<i32>,
    positions: Vec<i32>,
    /// One sequence a row. `pointers` are made from it just before the call.
    sequences: Vec<i32>,
    counts: Vec<i32>,
    outputs: Vec<i8>,
    n_outputs: usize,
    pointers: Vec<*mut i32>,
}

impl Batch {
    /// A batch for this context, and for no other.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        let capacity = context.n_batch();
        Self {
            context: context.id(),
            capacity,
            n_tokens_vocab: context.model().n_tokens_vocab(),
            n_positions: context.model().learned_positions().unwrap_or(usize::MAX),
            tokens: Vec::with_capacity(capacity),
            positions: Vec::with_capacity(capacity),
            sequences: Vec::with_capacity(capacity),
            counts: vec![1; capacity],
            outputs: Vec::with_capacity(capacity),
            n_outputs: 0,
            pointers: Vec::with_capacity(capacity),
        }
    }

    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
        self.n_outputs = 0;
    }

    /// Adds one token of `seq` at `pos`. With `output`, its logits can be read after the decode.
    ///
    /// # Errors
    /// A full batch, a token outside the vocabulary, a position that the model never learned, a sequence of another context.
    pub fn add(&mut self, token: Token, pos: Pos, seq: SeqId, output: bool) -> Result<(), LlamaError> {
        if self.tokens.len() == self.capacity {
            return Err(LlamaError::BatchFull { capacity: self.capacity });
        }
        if token.index() >= self.n_tokens_vocab {
            return Err(LlamaError::TokenRange { token, n_tokens: self.n_tokens_vocab });
        }
        if let Some(pos) = usize::try_from(pos.raw()).ok().filter(|pos| *pos >= self.n_positions) {
            return Err(LlamaError::PosUnlearned { pos, n_positions: self.n_positions });
        }
        if seq.context != self.context {
            return Err(LlamaError::ForeignObject);
        }
        self.tokens.push(token.raw());
        self.positions.push(pos.raw());
        self.sequences.push(seq.raw());
        self.outputs.push(i8::from(output));
        self.n_outputs += usize::from(output);
        Ok(())
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn context(&self) -> u32 {
        self.context
    }

    /// Rows that ask for outputs.
    pub(super) fn outputs(&self) -> usize {
        self.n_outputs
    }

    pub(super) fn is_output(&self, row: usize) -> bool {
        self.outputs.get(row).is_some_and(|output| *output != 0)
    }

    /// The C view. It borrows from this batch and is valid until the batch changes.
    pub(super) fn raw(&mut self) -> llama_sys::llama_batch {
        self.pointers.clear();
        let base = self.sequences.as_mut_ptr();
        self.pointers.extend((0..self.tokens.len()).map(|row| base.wrapping_add(row)));
        llama_sys::llama_batch {
            // Never above n_batch, which is an i32 in llama.cpp.
            n_tokens: i32::try_from(self.tokens.len()).unwrap_or(i32::MAX),
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.counts.as_mut_ptr(),
            seq_id: self.pointers.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        }
    }
}
