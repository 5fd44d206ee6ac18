//! A context: the KV cache and compute buffers to run a model with. It stays on the thread that made it.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::adapter::Adapter;
use super::batch::Batch;
use super::callback::{self, AbortFlag};
use super::error::{LlamaError, check, failure};
use super::kv_cache::KvCache;
use super::logits::Logits;
use super::model::{Model, Pooling};
use super::threads::ComputeThreads;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlashAttention {
    /// llama.cpp decides by model and device.
    #[default]
    Auto,
    On,
    Off,
}

/// Number format of the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    #[default]
    F16,
    Q8_0,
    Q4_0,
}

impl KvType {
    fn raw(self) -> i32 {
        let raw = match self {
            Self::F16 => llama_sys::GGML_TYPE_F16,
            Self::Q8_0 => llama_sys::GGML_TYPE_Q8_0,
            Self::Q4_0 => llama_sys::GGML_TYPE_Q4_0,
        };
        i32::try_from(raw).unwrap_or(1)
    }
}

/// How to create a [`Context`].
#[derive(Clone, Debug)]
pub struct ContextParams {
    /// KV cells in total; 0 takes the model's training context.
    pub n_ctx: u32,
    /// Most tokens in one [`Batch`]. Embedding contexts round it up to a multiple of `n_seq_max`.
    pub n_batch: u32,
    /// Most tokens computed at once. Embedding contexts raise it to `n_batch`.
    pub n_ubatch: u32,
    /// Sequences that can exist at the same time.
    pub n_seq_max: u32,
    /// Rows of one batch that may ask for outputs; 0 allows all, which needs memory for as many rows of logits. At
    /// least `n_seq_max`.
    pub n_outputs_max: u32,
    /// Threads for single tokens.
    pub n_threads: u32,
    /// Threads for prompts.
    pub n_threads_batch: u32,
    pub flash_attention: FlashAttention,
    pub kv_type_k: KvType,
    /// Anything but `F16` needs flash attention.
    pub kv_type_v: KvType,
    /// All sequences share one pool of cells. Else each has `n_ctx / n_seq_max` of its own, and none can be shared.
    pub kv_unified: bool,
    /// Use our own CPU kernels where all layers are on the CPU and the processor has what they need.
    pub accelerate: bool,
    /// Give embeddings instead of logits, one a sequence.
    pub embeddings: bool,
    /// Keep the KV cache on the device that holds the layers.
    pub offload_kv: bool,
}

impl Default for ContextParams {
    fn default() -> Self {
        let threads = u32::try_from(num_cpus::get_physical()).unwrap_or(1).max(1);
        Self {
            n_ctx: 0,
            n_batch: 2048,
            n_ubatch: 512,
            n_seq_max: 1,
            n_outputs_max: 0,
            n_threads: threads,
            n_threads_batch: threads,
            flash_attention: FlashAttention::Auto,
            kv_type_k: KvType::F16,
            kv_type_v: KvType::F16,
            kv_unified: true,
            accelerate: true,
            embeddings: false,
            offload_kv: true,
        }
    }
}

/// A sequence of one context. Made by [`Context::seq`], so always in range for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeqId {
    pub(super) context: u32,
    id: i32,
}

impl SeqId {
    pub(super) fn raw(self) -> i32 {
        self.id
    }
}

/// See the module's description. The raw pointer keeps it from being `Send` or `Sync`: contexts are not safe to share.
#[derive(Debug)]
pub struct Context {
    raw: NonNull<llama_sys::llama_context>,
    id: u32,
    model: Model,
    abort: AbortFlag,
    n_outputs_max: usize,
    kv_unified: bool,
    /// Attached to `raw`, if at all; freed after it.
    threads: Option<ComputeThreads>,
    /// Attached before. llama.cpp lets go of them only when it computes with the new ones.
    retired: Vec<ComputeThreads>,
    /// Attached to `raw`; freed only after it is detached or `raw` is gone.
    adapters: Vec<Adapter>,
    /// Of adapters; see `shim_set_adapters`.
    reserved_nodes: u32,
    /// Which rows of the last decoded batch have outputs.
    outputs: Vec<bool>,
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: owned by us and not used after this; model and adapters are dropped after it.
        unsafe { llama_sys::shim_context_free(self.raw.as_ptr()) };
    }
}

impl Context {
    /// # Errors
    /// Parameters that llama.cpp would abort on, and what it says where it refuses (too little memory, a
    /// quantised V cache without flash attention).
    pub fn new(model: &Model, params: &ContextParams) -> Result<Self, LlamaError> {
        for (name, value) in
            [("n_batch", params.n_batch), ("n_ubatch", params.n_ubatch), ("n_seq_max", params.n_seq_max)]
        {
            if value == 0 {
                return Err(LlamaError::Parameter { name, value: "0".into(), expected: "must be at least 1" });
            }
        }
        static NEXT_ID: AtomicU32 = AtomicU32::new(0);
        let abort = AbortFlag::default();
        let whole_prompt = params.embeddings || model.is_bidirectional();
        let n_outputs_max =
            if params.embeddings || params.n_outputs_max == 0 { 0 } else { params.n_outputs_max.max(params.n_seq_max) };
        // llama.cpp lays out as many tokens in each sequence, and with pooling aborts where those are more than the batch's.
        let n_batch =
            if params.embeddings { params.n_batch.next_multiple_of(params.n_seq_max) } else { params.n_batch };
        let raw_params = llama_sys::shim_context_params {
            n_ctx: params.n_ctx,
            n_batch,
            n_ubatch: if whole_prompt { n_batch } else { params.n_ubatch },
            n_seq_max: params.n_seq_max,
            n_outputs_max,
            n_threads: i32::try_from(params.n_threads.max(1)).unwrap_or(1),
            n_threads_batch: i32::try_from(params.n_threads_batch.max(1)).unwrap_or(1),
            flash_attn: match params.flash_attention {
                FlashAttention::Auto => llama_sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
                FlashAttention::On => llama_sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
                FlashAttention::Off => llama_sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
            },
            type_k: params.kv_type_k.raw(),
            type_v: params.kv_type_v.raw(),
            embeddings: params.embeddings,
            pooling: match model.pooling() {
                Some(Pooling::Mean) => llama_sys::LLAMA_POOLING_TYPE_MEAN,
                _ => llama_sys::LLAMA_POOLING_TYPE_UNSPECIFIED,
            },
            offload_kqv: params.offload_kv,
            kv_unified: params.kv_unified,
            swa_full: true,
            // A simulation would count the memory of two devices for one.
            accelerate: params.accelerate && model.is_on_cpu() && !model.is_simulated(),
            abort: Some(callback::on_abort_query),
            abort_data: abort.as_data(),
        };
        let mut raw = std::ptr::null_mut();
        let guard = model.write_lock();
        // SAFETY: the model is live and locked against other writers; `abort` moves into the context below.
        let (status, log) = callback::try_out(model.is_simulated(), || unsafe {
            llama_sys::shim_context_init(model.raw(), &raw const raw_params, &raw mut raw)
        });
        drop(guard);
        let raw = NonNull::new(raw).ok_or_else(|| failure("creating a context", status, log))?;
        let mut context = Self {
            raw,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            model: model.clone(),
            abort,
            n_outputs_max: if n_outputs_max == 0 { usize::MAX } else { n_outputs_max as usize },
            kv_unified: params.kv_unified,
            threads: None,
            retired: Vec::new(),
            adapters: Vec::new(),
            reserved_nodes: 0,
            outputs: Vec::new(),
        };
        context.start_threads(params.n_threads.max(params.n_threads_batch))?;
        Ok(context)
    }

    /// Threads that stay between two decodes; without them llama.cpp makes new ones each time.
    fn start_threads(&mut self, n: u32) -> Result<(), LlamaError> {
        let threads = ComputeThreads::new(n)?;
        // SAFETY: both are live; the pool is kept until the context is freed, or computes with another one.
        let status = unsafe { llama_sys::shim_threads_attach(self.raw(), threads.raw()) };
        self.retired.extend(self.threads.replace(threads));
        check("attaching compute threads", status, String::new())
    }

    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// KV cells in total, as llama.cpp rounded them.
    #[must_use]
    pub fn n_ctx(&self) -> usize {
        // SAFETY: a getter on a live context.
        unsafe { llama_sys::llama_n_ctx(self.raw()) as usize }
    }

    /// Most tokens in one batch. llama.cpp lowers it to `n_ctx`, so this is read back.
    #[must_use]
    pub fn n_batch(&self) -> usize {
        // SAFETY: a getter on a live context.
        unsafe { llama_sys::llama_n_batch(self.raw()) as usize }
    }

    #[must_use]
    pub fn n_ubatch(&self) -> usize {
        // SAFETY: a getter on a live context.
        unsafe { llama_sys::llama_n_ubatch(self.raw()) as usize }
    }

    #[must_use]
    pub fn n_seq_max(&self) -> u32 {
        // SAFETY: a getter on a live context.
        unsafe { llama_sys::llama_n_seq_max(self.raw()) }
    }

    /// Tokens that one sequence can have.
    #[must_use]
    pub fn n_ctx_seq(&self) -> usize {
        // SAFETY: a getter on a live context.
        unsafe { llama_sys::llama_n_ctx_seq(self.raw()) as usize }
    }

    /// Rows of one batch that may ask for outputs.
    #[must_use]
    pub fn n_outputs_max(&self) -> usize {
        self.n_outputs_max.min(self.n_batch())
    }

    /// Sequence number `id` of this context.
    ///
    /// # Errors
    /// [`LlamaError::SeqRange`] at or beyond `n_seq_max`.
    pub fn seq(&self, id: u32) -> Result<SeqId, LlamaError> {
        let n_seq_max = self.n_seq_max();
        match i32::try_from(id) {
            Ok(raw) if id < n_seq_max => Ok(SeqId { context: self.id, id: raw }),
            _ => Err(LlamaError::SeqRange { id, n_seq_max }),
        }
    }

    /// Stops a decode of this context from any thread.
    #[must_use]
    pub fn abort_flag(&self) -> AbortFlag {
        self.abort.clone()
    }

    /// Changes the thread counts from the next decode on. Threads that are not needed end: they would go on to look for
    /// work on the cores that somebody else is to have.
    ///
    /// # Errors
    /// What llama.cpp says where it cannot start threads; the counts stay as they were.
    pub fn set_threads(&mut self, single: u32, batch: u32) -> Result<(), LlamaError> {
        let clamp = |n: u32| i32::try_from(n.max(1)).unwrap_or(1);
        self.start_threads(single.max(batch))?;
        // SAFETY: a setter on a live context.
        unsafe { llama_sys::llama_set_n_threads(self.raw(), clamp(single), clamp(batch)) };
        Ok(())
    }

    /// Runs the batch through the model.
    ///
    /// # Errors
    /// [`LlamaError::NoCells`] leaves the cache as it was. After [`LlamaError::Aborted`] and
    /// [`LlamaError::Decode`] part of the batch may be in the cache: remove it with [`KvCache::seq_rm`].
    pub fn decode(&mut self, batch: &mut Batch) -> Result<(), LlamaError> {
        self.check_batch(batch)?;
        if batch.len() > self.n_ubatch() && (self.model.is_bidirectional() || batch.is_whole()) {
            return Err(LlamaError::ExceedsUbatch { tokens: batch.len(), n_ubatch: self.n_ubatch() });
        }
        if !batch.is_whole() {
            return self.run(batch, "decode", llama_sys::shim_decode);
        }
        self.set_causal(false);
        let result = self.run(batch, "decode", llama_sys::shim_decode);
        self.set_causal(true);
        result
    }

    /// Runs the batch through the encoder of an encoder-decoder model.
    ///
    /// # Errors
    /// As [`Context::decode`], and [`LlamaError::NoEncoder`].
    pub fn encode(&mut self, batch: &mut Batch) -> Result<(), LlamaError> {
        self.check_batch(batch)?;
        if !self.model.has_encoder() {
            return Err(LlamaError::NoEncoder);
        }
        if batch.len() > self.n_ubatch() {
            return Err(LlamaError::ExceedsUbatch { tokens: batch.len(), n_ubatch: self.n_ubatch() });
        }
        self.run(batch, "encode", llama_sys::shim_encode)
    }

    fn set_causal(&mut self, causal: bool) {
        // SAFETY: a setter on a live context.
        unsafe { llama_sys::shim_set_causal(self.raw(), causal) };
    }

    fn check_batch(&self, batch: &Batch) -> Result<(), LlamaError> {
        if batch.context() != self.id {
            return Err(LlamaError::ForeignObject);
        }
        if self.model.is_simulated() {
            return Err(LlamaError::Simulated);
        }
        if batch.outputs() > self.n_outputs_max {
            return Err(LlamaError::TooManyOutputs { outputs: batch.outputs(), n_outputs_max: self.n_outputs_max });
        }
        if batch.is_empty() { Err(LlamaError::BatchEmpty) } else { Ok(()) }
    }

    fn run(&mut self, batch: &mut Batch, call: &'static str, function: RunFn) -> Result<(), LlamaError> {
        self.outputs.clear();
        let mut code = 0;
        let raw_batch = batch.raw();
        // SAFETY: the batch belongs to this context, holds at most n_batch checked rows, and outlives the call.
        let (status, log) =
            callback::capture_abortable(&self.abort, || unsafe { function(self.raw(), raw_batch, &raw mut code) });
        self.abort.clear();
        check(call, status, log.clone())?;
        match code {
            0 => {
                self.retired.clear();
                self.outputs.extend((0..batch.len()).map(|row| batch.is_output(row)));
                Ok(())
            }
            1 => Err(LlamaError::NoCells),
            2 => Err(LlamaError::Aborted),
            code => Err(LlamaError::Decode { code, log }),
        }
    }

    /// Logits of row `row` of the last decoded batch. The view ends with the next call that changes the context.
    ///
    /// # Errors
    /// [`LlamaError::NoOutput`] where that row did not ask for any.
    pub fn logits(&self, row: usize) -> Result<Logits<'_>, LlamaError> {
        if !self.outputs.get(row).copied().unwrap_or(false) {
            return Err(LlamaError::NoOutput { row });
        }
        let mut data = std::ptr::null();
        // SAFETY: the row exists and has outputs; it fits an i32 since batches do.
        let status = unsafe { llama_sys::shim_logits(self.raw(), i32::try_from(row).unwrap_or(-1), &raw mut data) };
        check("reading logits", status, String::new())?;
        // SAFETY: llama.cpp keeps one float a vocabulary entry there until the next decode, which needs `&mut self`.
        Ok(Logits(unsafe { std::slice::from_raw_parts(data, self.model.n_tokens_vocab() as usize) }))
    }

    /// The pooled embedding of a sequence of the last decoded batch. The view ends with the next call that changes the
    /// context.
    ///
    /// # Errors
    /// A sequence that was not in that batch, a context that was not made for embeddings.
    pub fn embedding(&self, seq: SeqId) -> Result<&[f32], LlamaError> {
        self.check_seq(seq)?;
        let mut data = std::ptr::null();
        // SAFETY: the sequence belongs to this context; NULL comes back as an error.
        let status = unsafe { llama_sys::shim_embeddings_seq(self.raw(), seq.raw(), &raw mut data) };
        check("reading an embedding", status, String::new())?;
        let len = match self.model.pooling() {
            Some(Pooling::Rank) => self.model.n_scores(),
            _ => self.model.n_embd_out(),
        };
        // SAFETY: llama.cpp keeps so many floats there until the next decode, which needs `&mut self`.
        Ok(unsafe { std::slice::from_raw_parts(data, len) })
    }

    /// Makes exactly these adapters active, each with its scale, from the next decode on. Where they need a larger graph than
    /// any before, this reserves memory anew, and waits while an adapter is loaded; else it costs little. No change costs
    /// nothing.
    ///
    /// # Errors
    /// [`LlamaError::ForeignAdapter`], a scale that is not a number.
    pub fn set_adapters(&mut self, adapters: &[(Adapter, f32)]) -> Result<(), LlamaError> {
        for (adapter, scale) in adapters {
            if !adapter.model().is_same(&self.model) {
                return Err(LlamaError::ForeignAdapter);
            }
            if !scale.is_finite() {
                return Err(LlamaError::Parameter {
                    name: "scale",
                    value: scale.to_string(),
                    expected: "must be finite",
                });
            }
        }
        let mut raw: Vec<_> = adapters.iter().map(|(adapter, _)| adapter.raw()).collect();
        let mut scales: Vec<f32> = adapters.iter().map(|(_, scale)| *scale).collect();
        let mut short = false;
        // SAFETY: both arrays have `raw.len()` entries; the adapters belong to this model and are kept below.
        let (mut status, mut log) = callback::capture_log(|| unsafe {
            llama_sys::shim_set_adapters(
                self.raw.as_ptr(),
                raw.as_mut_ptr(),
                scales.as_mut_ptr(),
                raw.len(),
                self.reserved_nodes,
                &raw mut short,
            )
        });
        if short {
            // Reserving looks at all adapters that are loaded.
            let _guard = self.model.write_lock();
            // SAFETY: a live context; the lock keeps others from loading or freeing an adapter.
            (status, log) = callback::capture_log(|| unsafe {
                llama_sys::shim_reserve_for_adapters(self.raw.as_ptr(), &raw mut self.reserved_nodes)
            });
        }
        let new = adapters.iter().map(|(adapter, _)| adapter.clone()).collect();
        // The old ones are dropped only now, when llama.cpp no longer points at them.
        let old = std::mem::replace(&mut self.adapters, new);
        check("setting adapters", status, log).inspect_err(|_| {
            // It may point at the old ones or at the new ones.
            self.adapters.extend(old);
        })
    }

    /// The KV cache of this context.
    pub fn kv(&mut self) -> KvCache<'_> {
        KvCache::new(self)
    }

    pub(super) fn raw(&self) -> *mut llama_sys::llama_context {
        self.raw.as_ptr()
    }

    /// Whether anything is kept of a text from one decode to the next. Models that only embed read a text at once.
    #[must_use]
    pub fn keeps_memory(&self) -> bool {
        // SAFETY: a getter on a live context.
        !unsafe { llama_sys::llama_get_memory(self.raw()) }.is_null()
    }

    pub(super) fn kv_unified(&self) -> bool {
        self.kv_unified
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn check_seq(&self, seq: SeqId) -> Result<(), LlamaError> {
        if seq.context == self.id { Ok(()) } else { Err(LlamaError::ForeignObject) }
    }
}

type RunFn = unsafe extern "C" fn(*mut llama_sys::llama_context, llama_sys::llama_batch, *mut i32) -> i32;
