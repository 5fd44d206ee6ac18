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
    /// In the place of tokens, where the batch is one of an image.
    vectors: Vec<f32>,
    n_embd_inp: usize,
    multi_rope: bool,
    whole: bool,
}

/// Rows of an image for [`Batch::add_image`].
#[derive(Clone, Copy, Debug)]
pub struct ImageBatch<'a> {
    /// An embedding a row, one behind the other.
    pub vectors: &'a [f32],
    /// Where each row is, counted from `at`. Empty where they follow each other as tokens do.
    pub places: &'a [[u32; 4]],
    /// Position of the first row where they follow each other, or of the image.
    pub at: Pos,
    pub seq: SeqId,
    /// The last row's logits can be read after the decode.
    pub output: bool,
    /// The rows see those behind them.
    pub whole: bool,
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
            vectors: Vec::new(),
            n_embd_inp: context.model().n_embd_inp(),
            multi_rope: context.model().has_multi_rope(),
            whole: false,
        }
    }

    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
        self.n_outputs = 0;
        self.vectors.clear();
        self.whole = false;
    }

    /// Adds one token of `seq` at `pos`. With `output`, its logits can be read after the decode.
    ///
    /// # Errors
    /// A full batch, a token outside the vocabulary, a position that the model never learned, a sequence of another context.
    pub fn add(&mut self, token: Token, pos: Pos, seq: SeqId, output: bool) -> Result<(), LlamaError> {
        if !self.vectors.is_empty() {
            return Err(LlamaError::ImageShape);
        }
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

    /// Fills an empty batch with rows of an image.
    ///
    /// # Errors
    /// A batch that is not empty or too small, rows of another width, and what [`Batch::add`] refuses.
    pub fn add_image(&mut self, image: &ImageBatch<'_>) -> Result<(), LlamaError> {
        let n = image.vectors.len() / self.n_embd_inp.max(1);
        let has_places = image.places.len() == n && self.multi_rope || image.places.is_empty() && !self.multi_rope;
        if !self.is_empty() || n == 0 || image.vectors.len() != n * self.n_embd_inp || !has_places {
            return Err(LlamaError::ImageShape);
        }
        if n > self.capacity {
            return Err(LlamaError::BatchFull { capacity: self.capacity });
        }
        if image.seq.context != self.context {
            return Err(LlamaError::ForeignObject);
        }
        let first = usize::try_from(image.at.raw()).unwrap_or(0);
        if first + n > self.n_positions {
            return Err(LlamaError::PosUnlearned { pos: first + n - 1, n_positions: self.n_positions });
        }
        if self.multi_rope {
            // One part of all rows' positions, then the next.
            for part in 0..4 {
                for place in image.places {
                    let offset = if part < 3 { first + place[part] as usize } else { 0 };
                    self.positions.push(Pos::new(offset)?.raw());
                }
            }
        } else {
            for row in 0..n {
                self.positions.push(Pos::new(first + row)?.raw());
            }
        }
        self.vectors.extend_from_slice(image.vectors);
        self.sequences.resize(n, image.seq.raw());
        self.outputs.resize(n, 0);
        if let Some(last) = self.outputs.last_mut().filter(|_| image.output) {
            *last = 1;
            self.n_outputs = 1;
        }
        self.whole = image.whole;
        Ok(())
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Whether its rows see those behind them.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
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
        let is_image = !self.vectors.is_empty();
        self.pointers.clear();
        let base = self.sequences.as_mut_ptr();
        self.pointers.extend((0..self.sequences.len()).map(|row| base.wrapping_add(row)));
        llama_sys::llama_batch {
            // Never above n_batch, which is an i32 in llama.cpp.
            n_tokens: i32::try_from(self.sequences.len()).unwrap_or(i32::MAX),
            token: if is_image { std::ptr::null_mut() } else { self.tokens.as_mut_ptr() },
            embd: if is_image { self.vectors.as_mut_ptr() } else { std::ptr::null_mut() },
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.counts.as_mut_ptr(),
            seq_id: self.pointers.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        }
    }
}
