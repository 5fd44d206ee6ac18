//! LoRA adapters.

use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::gguf;

use super::callback;
use super::error::{LlamaError, last_error};
use super::model::{Model, c_path};

/// A LoRA adapter for one model. Holds the model, so it cannot outlive it.
#[derive(Clone, Debug)]
pub struct Adapter(Arc<AdapterInner>);

#[derive(Debug)]
struct AdapterInner {
    raw: NonNull<llama_sys::llama_adapter_lora>,
    model: Model,
    header: gguf::Header,
}

// SAFETY: llama.cpp only reads a loaded adapter; loading and freeing are writes to the model.
unsafe impl Send for AdapterInner {}
// SAFETY: as above.
unsafe impl Sync for AdapterInner {}

impl Drop for AdapterInner {
    fn drop(&mut self) {
        // No context has it attached, since each that does holds a clone. An engine's thread may be here while another file
        // is read, so this must not wait.
        self.model.discard(self.raw);
    }
}

impl Adapter {
    /// Checks the file against the model, then loads it.
    ///
    /// # Errors
    /// [`LlamaError::Gguf`] for a file that would crash llama.cpp now or at the first decode; else what it says.
    pub fn load(model: &Model, path: &Path) -> Result<Self, LlamaError> {
        let header = Self::check(model, path)?;
        let c_path = c_path(path)?;
        read_ahead(path).map_err(|error| gguf::GgufError::Io { path: path.to_owned(), error })?;
        let mut raw = std::ptr::null_mut();
        let guard = model.write_lock();
        // SAFETY: the path is NUL-terminated, the model live and locked.
        let (status, log) = callback::capture_log(|| unsafe {
            llama_sys::shim_adapter_load(model.raw(), c_path.as_ptr(), &raw mut raw)
        });
        drop(guard);
        let raw = NonNull::new(raw).ok_or_else(|| LlamaError::Native {
            call: "loading the adapter",
            status: status.unsigned_abs(),
            message: format!("{}: {}", path.display(), last_error()),
            log,
        })?;
        Ok(Self(Arc::new(AdapterInner { raw, model: model.clone(), header })))
    }

    /// Checks the file against the model, and loads nothing.
    ///
    /// # Errors
    /// [`gguf::GgufError`], as [`Adapter::load`].
    pub fn check(model: &Model, path: &Path) -> Result<gguf::Header, gguf::GgufError> {
        let header = gguf::Header::open(path)?;
        gguf::validate_adapter(&header, model.header())?;
        Ok(header)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.header.path()
    }

    #[must_use]
    pub fn header(&self) -> &gguf::Header {
        &self.0.header
    }

    pub(super) fn model(&self) -> &Model {
        &self.0.model
    }

    pub(super) fn raw(&self) -> *mut llama_sys::llama_adapter_lora {
        self.0.raw.as_ptr()
    }
}

/// Brings the file into the system's cache. llama.cpp reads it under the model's lock, for which an engine may have to wait:
/// for memory then, and not for a disk.
fn read_ahead(path: &Path) -> std::io::Result<()> {
    const STEP: usize = 1 << 20;
    let mut file = std::io::BufReader::with_capacity(STEP, std::fs::File::open(path)?);
    std::io::copy(&mut file, &mut std::io::sink()).map(drop)
}
