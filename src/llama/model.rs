//! A loaded model: weights, vocabulary and metadata.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::gguf;

use super::backend::Backend;
use super::callback::{self, Progress};
use super::device::Device;
use super::error::{LlamaError, check, last_error};
use super::vocab::Vocab;
use super::writes::{Writes, Writing};

/// Where the layers go.
#[derive(Clone, Debug, Default)]
pub enum Offload {
    /// Everything stays on the CPU, whatever devices there are.
    #[default]
    Cpu,
    /// To these devices. The list must not be empty.
    Devices {
        devices: Vec<Device>,
        /// How many layers, the last ones first, and before them the output; `None` means all.
        layers: Option<u32>,
        split: Split,
        /// Regular expressions of tensors that stay in the CPU's memory all the same.
        cpu_tensors: Vec<String>,
    },
}

/// How several devices share a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Split {
    /// The device with this index has all of it.
    None(u32),
    /// Each has some of the layers. Shares follow the devices' order; where there are none, their free memory.
    Layers(Vec<f32>),
}

/// How to load a model.
#[derive(Clone, Debug)]
pub struct ModelParams {
    pub offload: Offload,
    /// Map the file instead of reading it. The file must then not be truncated while the model is loaded.
    pub use_mmap: bool,
    /// Keep the weights from being swapped out.
    pub use_mlock: bool,
    /// Read no weights, and allocate neither them nor a KV cache nor compute buffers: contexts of the model tell what they would take, and must not decode.
    pub simulated: bool,
}

impl Default for ModelParams {
    fn default() -> Self {
        Self { offload: Offload::Cpu, use_mmap: true, use_mlock: false, simulated: false }
    }
}

/// A loaded model, shared by everything made from it. Dropping the last clone frees the weights.
#[derive(Clone, Debug)]
pub struct Model(Arc<ModelInner>);

type RawAdapter = NonNull<llama_sys::llama_adapter_lora>;

#[derive(Debug)]
struct ModelInner {
    raw: NonNull<llama_sys::llama_model>,
    path: PathBuf,
    header: gguf::Header,
    n_tokens_vocab: u32,
    on_cpu: bool,
    simulated: bool,
    /// llama.cpp writes to the model when a context is created and when an adapter is loaded or freed.
    writes: Writes<RawAdapter>,
}

// SAFETY: llama.cpp reads a loaded model from any thread; the calls that write to it go through `writes`.
unsafe impl Send for ModelInner {}
// SAFETY: as above.
unsafe impl Sync for ModelInner {}

impl Drop for ModelInner {
    fn drop(&mut self) {
        // SAFETY: contexts, vocabularies and adapters each hold a clone of the Arc, so none is left.
        unsafe { llama_sys::llama_model_free(self.raw.as_ptr()) };
    }
}

/// See [`Model::pooling`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    Mean,
    /// That of the first or last token.
    Token,
    /// No embedding but a score: how well a text answers a question.
    Rank,
}

impl Model {
    /// Checks the file, then loads it. `progress` hears the loaded fraction (0.0 to 1.0) and cancels with `false`.
    ///
    /// # Errors
    /// [`LlamaError::Gguf`] for a file that llama.cpp must not see, [`LlamaError::ModelLoad`] with llama.cpp's own
    /// words where it refuses, [`LlamaError::LoadCancelled`].
    pub fn load(
        _: Backend,
        path: &Path,
        params: &ModelParams,
        progress: &mut dyn FnMut(f32) -> bool,
    ) -> Result<Self, LlamaError> {
        let header = gguf::Header::open(path)?;
        gguf::validate_model(&header)?;
        let c_path = c_path(path)?;

        let mut devices = match &params.offload {
            Offload::Cpu => Vec::new(),
            Offload::Devices { devices, .. } => devices.iter().map(|device| device.handle).collect(),
        };
        devices.push(std::ptr::null_mut());
        let (split_mode, main_gpu, shares) = split(&params.offload)?;
        let cpu_tensors = c_strings(&params.offload)?;
        let mut cpu_tensor_pointers: Vec<*const c_char> = cpu_tensors.iter().map(|text| text.as_ptr()).collect();
        cpu_tensor_pointers.push(std::ptr::null());

        let mut cancelled = false;
        let mut report = |fraction: f32| {
            cancelled = !progress(fraction);
            !cancelled
        };
        let mut report: Progress<'_> = &mut report;
        let raw_params = llama_sys::shim_model_params {
            devices: devices.as_mut_ptr(),
            n_gpu_layers: n_gpu_layers(&params.offload),
            split_mode,
            main_gpu,
            tensor_split: if shares.is_empty() { std::ptr::null() } else { shares.as_ptr() },
            cpu_tensors: cpu_tensor_pointers.as_ptr(),
            // llama.cpp aborts where it should map a file that it does not load.
            use_mmap: params.use_mmap && !params.simulated,
            use_mlock: params.use_mlock && !params.simulated,
            no_alloc: params.simulated,
            vocab_only: false,
            check_tensors: false,
            progress: Some(callback::on_progress),
            progress_data: (&raw mut report).cast::<c_void>(),
        };
        let mut raw = std::ptr::null_mut();
        // SAFETY: the path is NUL-terminated; `devices` and `cpu_tensor_pointers` are NULL-terminated; `shares` has one for
        // each device that llama.cpp can have; all of them and `report` outlive the call.
        let (status, log) = callback::try_out(params.simulated, || unsafe {
            llama_sys::shim_model_load(c_path.as_ptr(), &raw const raw_params, &raw mut raw)
        });
        let Some(raw) = NonNull::new(raw) else {
            if cancelled {
                return Err(LlamaError::LoadCancelled(path.to_owned()));
            }
            let log = if log.is_empty() && status != 0 { last_error() } else { log };
            return Err(LlamaError::ModelLoad { path: path.to_owned(), log });
        };
        // SAFETY: the model was just loaded and its vocabulary lives inside it.
        let n_tokens = unsafe { llama_sys::llama_vocab_n_tokens(llama_sys::llama_model_get_vocab(raw.as_ptr())) };
        Ok(Self(Arc::new(ModelInner {
            raw,
            path: path.to_owned(),
            header,
            n_tokens_vocab: u32::try_from(n_tokens).unwrap_or(0),
            on_cpu: matches!(params.offload, Offload::Cpu),
            simulated: params.simulated,
            // SAFETY: no context has a discarded adapter attached, and `Writes` lets nobody write to the model meanwhile.
            writes: Writes::new(|adapter| unsafe { llama_sys::llama_adapter_lora_free(adapter.as_ptr()) }),
        })))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The file's header as we read it, before llama.cpp did.
    #[must_use]
    pub fn header(&self) -> &gguf::Header {
        &self.0.header
    }

    /// The tokens that text becomes.
    ///
    /// # Errors
    /// [`LlamaError::NoVocabulary`] where the file has none.
    pub fn vocab(&self) -> Result<Vocab, LlamaError> {
        Vocab::new(self)
    }

    /// Whether no device but the CPU was asked for.
    #[must_use]
    pub fn is_on_cpu(&self) -> bool {
        self.0.on_cpu
    }

    pub(super) fn is_simulated(&self) -> bool {
        self.0.simulated
    }

    /// Context length that the model was trained with, in tokens.
    #[must_use]
    pub fn n_ctx_train(&self) -> u32 {
        // SAFETY: a getter on a live model.
        u32::try_from(unsafe { llama_sys::llama_model_n_ctx_train(self.raw()) }).unwrap_or(0)
    }

    /// Width of an embedding, in floats.
    #[must_use]
    pub fn n_embd(&self) -> usize {
        // SAFETY: a getter on a live model.
        usize::try_from(unsafe { llama_sys::llama_model_n_embd(self.raw()) }).unwrap_or(0)
    }

    /// Width of what stands in the place of a token's embedding.
    #[must_use]
    pub fn n_embd_inp(&self) -> usize {
        // SAFETY: a getter on a live model.
        usize::try_from(unsafe { llama_sys::llama_model_n_embd_inp(self.raw()) }).unwrap_or(0)
    }

    #[must_use]
    pub fn n_layer(&self) -> u32 {
        // SAFETY: a getter on a live model.
        u32::try_from(unsafe { llama_sys::llama_model_n_layer(self.raw()) }).unwrap_or(0)
    }

    /// Layers as `n_gpu_layers` counts them: with those that predict further tokens, and without the output.
    #[must_use]
    pub fn n_layer_all(&self) -> u32 {
        // SAFETY: a getter on a live model.
        unsafe { llama_sys::shim_layer_count(self.raw()) }
    }

    /// Name of each layer's device, as llama.cpp placed them.
    ///
    /// # Errors
    /// What llama.cpp threw.
    pub fn layer_devices(&self) -> Result<Vec<String>, LlamaError> {
        (0..i32::try_from(self.n_layer_all()).unwrap_or(0))
            .map(|layer| {
                let mut name = std::ptr::null();
                // SAFETY: the model is alive; writes one pointer to a string that lives as long as the process.
                let status = unsafe { llama_sys::shim_layer_device(self.raw(), layer, &raw mut name) };
                check("asking for a layer's device", status, String::new())?;
                Ok(super::device::text(name))
            })
            .collect()
    }

    /// Bytes of all tensors.
    #[must_use]
    pub fn size(&self) -> u64 {
        // SAFETY: a getter on a live model.
        unsafe { llama_sys::llama_model_size(self.raw()) }
    }

    #[must_use]
    pub fn n_params(&self) -> u64 {
        // SAFETY: a getter on a live model.
        unsafe { llama_sys::llama_model_n_params(self.raw()) }
    }

    #[must_use]
    pub fn has_encoder(&self) -> bool {
        // SAFETY: a getter on a live model.
        unsafe { llama_sys::llama_model_has_encoder(self.raw()) }
    }

    /// Positions that the model has a vector of its own for, and none behind them; `None` where positions are computed.
    #[must_use]
    pub fn learned_positions(&self) -> Option<usize> {
        let table = self.0.header.tensor("position_embd.weight")?;
        usize::try_from(*table.dims.get(1)?).ok()
    }

    /// Tokens that layers with a sliding window look back; 0 where there are none.
    #[must_use]
    pub fn n_swa(&self) -> usize {
        // SAFETY: a getter on a live model.
        usize::try_from(unsafe { llama_sys::llama_model_n_swa(self.raw()) }).unwrap_or(0)
    }

    /// Whether part of a sequence can never be dropped (Mamba, RWKV and their hybrids).
    #[must_use]
    pub fn is_recurrent(&self) -> bool {
        // SAFETY: getters on a live model.
        unsafe { llama_sys::llama_model_is_recurrent(self.raw()) || llama_sys::llama_model_is_hybrid(self.raw()) }
    }

    /// Whether part of a sequence can be shared with another one. DeepSeek V4's cache is compressed, and goes as a whole only;
    /// MiniMax M3 attends to what it was trained to attend to only where each sequence has cells of its own.
    #[must_use]
    pub fn shares_parts(&self) -> bool {
        !["deepseek4", "minimax-m3"].contains(&self.0.header.architecture())
    }

    /// Whether it goes from token to token. The others look at a text as a whole, some with a cache all the same.
    #[must_use]
    pub fn is_causal(&self) -> bool {
        !self.is_bidirectional() && self.0.header.architecture() != "llama-embed"
    }

    /// Whether each token attends to later ones too, so that a prompt must fit one physical batch.
    #[must_use]
    pub fn is_bidirectional(&self) -> bool {
        let key = format!("{}.attention.causal", self.0.header.architecture());
        self.meta(&key).is_some_and(|value| value == "false")
    }

    /// Whether a position has several parts, so that images can lie across a text.
    pub(super) fn has_multi_rope(&self) -> bool {
        // SAFETY: a getter on a live model.
        let rope = unsafe { llama_sys::llama_model_rope_type(self.raw()) };
        [llama_sys::LLAMA_ROPE_TYPE_MROPE, llama_sys::LLAMA_ROPE_TYPE_IMROPE, llama_sys::LLAMA_ROPE_TYPE_VISION]
            .contains(&rope)
    }

    /// How embeddings of tokens become one of the text. `None` where the model was not made for embeddings.
    #[must_use]
    pub fn pooling(&self) -> Option<Pooling> {
        let key = format!("{}.pooling_type", self.0.header.architecture());
        match self.meta(&key).and_then(|value| value.parse::<i32>().ok()) {
            Some(llama_sys::LLAMA_POOLING_TYPE_MEAN) => Some(Pooling::Mean),
            Some(llama_sys::LLAMA_POOLING_TYPE_RANK) => Some(Pooling::Rank),
            Some(llama_sys::LLAMA_POOLING_TYPE_CLS | llama_sys::LLAMA_POOLING_TYPE_LAST) => Some(Pooling::Token),
            // A vector for each token is no vector of a text.
            Some(llama_sys::LLAMA_POOLING_TYPE_NONE) => None,
            // Those that look at a text in both directions are made for nothing else; most take the mean.
            _ => self.is_bidirectional().then_some(Pooling::Mean),
        }
    }

    /// Components of a pooled embedding.
    #[must_use]
    pub fn n_embd_out(&self) -> usize {
        // SAFETY: a getter on a live model.
        usize::try_from(unsafe { llama_sys::llama_model_n_embd_out(self.raw()) }).unwrap_or(0)
    }

    /// Scores that a model that ranks gives a text.
    pub(super) fn n_scores(&self) -> usize {
        // SAFETY: a getter on a live model.
        usize::try_from(unsafe { llama_sys::llama_model_n_cls_out(self.raw()) }).unwrap_or(0)
    }

    /// What llama.cpp calls the model, e.g. `llama ?B Q4_1`.
    #[must_use]
    pub fn description(&self) -> String {
        let mut text = std::ptr::null_mut();
        // SAFETY: writes one string that `take_string` frees.
        unsafe { llama_sys::shim_model_description(self.raw(), &raw mut text) };
        take_string(text).unwrap_or_default()
    }

    /// A metadata value as text, `None` where the key is absent.
    #[must_use]
    pub fn meta(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        let mut text = std::ptr::null_mut();
        // SAFETY: the key is NUL-terminated; writes one string that `take_string` frees.
        unsafe { llama_sys::shim_model_meta(self.raw(), key.as_ptr(), &raw mut text) };
        take_string(text)
    }

    /// The Jinja chat template inside the file. Base models have none.
    #[must_use]
    pub fn chat_template(&self) -> Option<String> {
        // SAFETY: returns NULL or a string that lives as long as the model.
        let text = unsafe { llama_sys::llama_model_chat_template(self.raw(), std::ptr::null()) };
        // SAFETY: not null and NUL-terminated, see above.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }

    pub(super) fn raw(&self) -> *mut llama_sys::llama_model {
        self.0.raw.as_ptr()
    }

    pub(super) fn n_tokens_vocab(&self) -> u32 {
        self.0.n_tokens_vocab
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Held around the calls that write to the model.
    pub(super) fn write_lock(&self) -> Writing<'_, RawAdapter> {
        self.0.writes.begin()
    }

    /// Frees an adapter of this model that no context has attached. Never waits for a write.
    pub(super) fn discard(&self, adapter: RawAdapter) {
        self.0.writes.discard(adapter);
    }
}

fn n_gpu_layers(offload: &Offload) -> i32 {
    match offload {
        Offload::Cpu => 0,
        Offload::Devices { layers: None, .. } => -1,
        Offload::Devices { layers: Some(n), .. } => i32::try_from(*n).unwrap_or(i32::MAX),
    }
}

/// llama.cpp's split mode, main device and shares.
fn split(offload: &Offload) -> Result<(i32, i32, Vec<f32>), LlamaError> {
    let (mode, main, shares) = match offload {
        Offload::Cpu => (llama_sys::LLAMA_SPLIT_MODE_LAYER, 0, &[][..]),
        Offload::Devices { split: Split::None(main), .. } => (llama_sys::LLAMA_SPLIT_MODE_NONE, *main, &[][..]),
        Offload::Devices { split: Split::Layers(shares), .. } => (llama_sys::LLAMA_SPLIT_MODE_LAYER, 0, &shares[..]),
    };
    // SAFETY: takes nothing.
    let most = unsafe { llama_sys::shim_max_devices() };
    if shares.len() > most {
        return Err(LlamaError::TooManyDevices { asked: shares.len(), most });
    }
    let mut padded = shares.to_vec();
    if !padded.is_empty() {
        padded.resize(most, 0.0);
    }
    Ok((mode.cast_signed(), i32::try_from(main).unwrap_or(i32::MAX), padded))
}

fn c_strings(offload: &Offload) -> Result<Vec<CString>, LlamaError> {
    let Offload::Devices { cpu_tensors, .. } = offload else { return Ok(Vec::new()) };
    cpu_tensors
        .iter()
        .map(|text| CString::new(text.as_str()).map_err(|_| LlamaError::TensorPattern(text.clone())))
        .collect()
}

/// Copies a string that the shim allocated, and frees it. NULL gives `None`.
pub(super) fn take_string(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null; the shim hands out NUL-terminated copies.
    let copy = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: allocated by the shim and not used after this.
    unsafe { llama_sys::shim_string_free(text) };
    Some(copy)
}

pub(super) fn c_path(path: &Path) -> Result<CString, LlamaError> {
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| LlamaError::Path(path.to_owned()))
}

/// Kept beside the other shim calls so that `check` has one shape for strings too.
pub(super) fn checked_string(call: &'static str, status: i32, text: *mut c_char) -> Result<String, LlamaError> {
    check(call, status, String::new())?;
    Ok(take_string(text).unwrap_or_default())
}
