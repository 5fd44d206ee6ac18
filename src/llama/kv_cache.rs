//! Which tokens of which sequence the context remembers.

use super::batch::Pos;
use super::context::{Context, SeqId};
use super::error::{LlamaError, check};

/// A view of a context's KV cache, for as long as one borrow.
#[derive(Debug)]
pub struct KvCache<'a>(&'a mut Context);

impl<'a> KvCache<'a> {
    pub(super) fn new(context: &'a mut Context) -> Self {
        Self(context)
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// What llama.cpp threw, or that this model keeps no cache.
    pub fn clear(&mut self) -> Result<(), LlamaError> {
        // SAFETY: a live context, borrowed mutably.
        check("clearing the KV cache", unsafe { llama_sys::shim_kv_clear(self.0.raw(), false) }, String::new())
    }

    /// Forgets the sequence from `from` to its end.
    ///
    /// # Errors
    /// [`LlamaError::PartialRemove`] where the memory is recurrent and cannot go back part of the way.
    pub fn seq_rm(&mut self, seq: SeqId, from: Pos) -> Result<(), LlamaError> {
        self.0.check_seq(seq)?;
        // SAFETY: the sequence belongs to this context.
        let status = unsafe { llama_sys::shim_kv_seq_rm(self.0.raw(), seq.raw(), from.raw(), -1) };
        if status.unsigned_abs() == llama_sys::SHIM_REFUSED {
            return Err(LlamaError::PartialRemove { from });
        }
        check("removing from the KV cache", status, String::new())
    }

    /// Makes `to` share the first `len` positions of `from`, without copying.
    ///
    /// # Errors
    /// [`LlamaError::NotUnified`] where each sequence has cells of its own; what llama.cpp threw.
    pub fn seq_cp(&mut self, from: SeqId, to: SeqId, len: Pos) -> Result<(), LlamaError> {
        self.0.check_seq(from)?;
        self.0.check_seq(to)?;
        if !self.0.kv_unified() {
            return Err(LlamaError::NotUnified);
        }
        // SAFETY: both sequences belong to this context, and its cache is one stream (kv_unified).
        let status = unsafe { llama_sys::shim_kv_seq_cp(self.0.raw(), from.raw(), to.raw(), 0, len.raw()) };
        check("copying in the KV cache", status, String::new())
    }

    /// Moves the positions of `seq` from `from` on by `delta`.
    ///
    /// # Errors
    /// [`LlamaError::CannotShift`] where the model's positions cannot be moved; [`LlamaError::PosRange`] where
    /// they would become negative.
    pub fn seq_add(&mut self, seq: SeqId, from: Pos, delta: i32) -> Result<(), LlamaError> {
        self.0.check_seq(seq)?;
        let mut can_shift = false;
        // SAFETY: writes one bool.
        let status = unsafe { llama_sys::shim_kv_can_shift(self.0.raw(), &raw mut can_shift) };
        check("asking whether the KV cache can shift", status, String::new())?;
        if !can_shift || self.0.model().has_multi_rope() {
            return Err(LlamaError::CannotShift);
        }
        let first = i64::from(from.raw()) + i64::from(delta);
        let room = i64::from(i32::MAX) - i64::try_from(self.0.n_ctx()).unwrap_or(i64::MAX);
        if !(0..room).contains(&first) {
            return Err(LlamaError::PosRange(first));
        }
        // SAFETY: the sequence belongs to this context and its positions can be moved.
        let status = unsafe { llama_sys::shim_kv_seq_add(self.0.raw(), seq.raw(), from.raw(), -1, delta) };
        check("shifting the KV cache", status, String::new())
    }

    /// First and last position held for the sequence, `None` where it holds none.
    ///
    /// # Errors
    /// What llama.cpp threw.
    pub fn seq_range(&mut self, seq: SeqId) -> Result<Option<(usize, usize)>, LlamaError> {
        self.0.check_seq(seq)?;
        let (mut first, mut last) = (-1, -1);
        // SAFETY: the sequence belongs to this context; writes two integers.
        let status = unsafe { llama_sys::shim_kv_seq_range(self.0.raw(), seq.raw(), &raw mut first, &raw mut last) };
        check("reading the KV cache", status, String::new())?;
        Ok(usize::try_from(first).ok().zip(usize::try_from(last).ok()))
    }
}
