//! Threads that compute, kept from one decode to the next.

use std::ptr::NonNull;

use super::error::{LlamaError, check};

/// How long the threads wait actively for the next pass, in llama.cpp's unit: long enough for what lies between two
/// tokens, short enough to leave the cores to others soon after the last.
const POLL: u32 = 1;

/// A pool of threads for one context.
#[derive(Debug)]
pub(super) struct ComputeThreads(NonNull<llama_sys::ggml_threadpool>);

// SAFETY: a pool belongs to no thread; it is only attached, which needs the context, and freed, which needs ownership.
unsafe impl Send for ComputeThreads {}
// SAFETY: nothing is done through a shared reference.
unsafe impl Sync for ComputeThreads {}

impl Drop for ComputeThreads {
    fn drop(&mut self) {
        // SAFETY: owned by us; a context that had it attached is freed before, or has computed with another one since.
        unsafe { llama_sys::shim_threads_free(self.0.as_ptr()) };
    }
}

impl ComputeThreads {
    /// `n` threads, of which the one that decodes is the first.
    ///
    /// # Errors
    /// What llama.cpp says where it cannot start them.
    pub fn new(n: u32) -> Result<Self, LlamaError> {
        let n = i32::try_from(n.max(1)).unwrap_or(i32::MAX);
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one owned pointer.
        let status = unsafe { llama_sys::shim_threads_new(n, POLL, &raw mut raw) };
        check("starting compute threads", status, String::new())?;
        NonNull::new(raw).map(Self).ok_or(LlamaError::Native {
            call: "starting compute threads",
            status: llama_sys::SHIM_REFUSED,
            message: "there is no pool".into(),
            log: String::new(),
        })
    }

    pub(super) fn raw(&self) -> *mut llama_sys::ggml_threadpool {
        self.0.as_ptr()
    }
}
