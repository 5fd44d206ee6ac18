//! Process-wide initialisation of llama.cpp.

use std::ffi::CStr;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::callback;
use super::device::{Device, device_at};
use super::error::{LlamaError, check};
use super::modules::{self, BackendModule, Modules};

/// What the initialisation came to, or why it failed.
static DONE: OnceLock<Result<Modules, String>> = OnceLock::new();

/// Proof that llama.cpp is initialised. Cheap to copy; it stays initialised until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct Backend(());

impl Backend {
    /// Initialises llama.cpp and every backend that is compiled in or found as a module, once per process.
    ///
    /// # Errors
    /// What a backend threw while it looked for its devices; no module for the CPU. It is the same at every later call.
    pub fn init() -> Result<Self, LlamaError> {
        let done = DONE.get_or_init(|| {
            callback::install_log();
            let mut modules = modules::load().map_err(|e| e.to_string())?;
            // SAFETY: called once, before any other call into llama.cpp but the loading of modules.
            let (status, said) = callback::capture_log(|| unsafe { llama_sys::shim_backend_init() });
            check("backend initialisation", status, said.clone()).map_err(|e| e.to_string())?;
            modules.log.push_str(&said);
            Ok(modules)
        });
        done.as_ref().map(|_| Self(())).map_err(|why| LlamaError::Backends(why.clone()))
    }

    fn started(self) -> Option<&'static Modules> {
        DONE.get().and_then(|done| done.as_ref().ok())
    }

    /// Warnings and errors of the backends while they looked for their devices, a line each.
    #[must_use]
    pub fn complaints(self) -> &'static str {
        self.started().map_or("", |started| &started.log)
    }

    /// The modules that were found, with what became of them; none where the backends are in the binary.
    #[must_use]
    pub fn modules(self) -> &'static [BackendModule] {
        self.started().map_or(&[], |started| &started.found)
    }

    /// Where modules were looked for; empty where the backends are in the binary.
    #[must_use]
    pub fn searched(self) -> &'static [PathBuf] {
        self.started().map_or(&[], |started| &started.searched)
    }

    /// Names of the registered backends in llama.cpp's order, e.g. `["Vulkan", "CPU"]`. A name is here because
    /// the backend was compiled in; whether it has a device is [`Backend::devices`]'s answer.
    ///
    /// # Errors
    /// What the backend threw.
    pub fn names(self) -> Result<Vec<String>, LlamaError> {
        let mut count = 0;
        // SAFETY: writes one size_t.
        check("counting backends", unsafe { llama_sys::shim_backend_count(&raw mut count) }, String::new())?;
        (0..count)
            .map(|index| {
                let mut name = std::ptr::null();
                // SAFETY: writes one pointer to a static, NUL-terminated string.
                let status = unsafe { llama_sys::shim_backend_name(index, &raw mut name) };
                check("naming a backend", status, String::new())?;
                // SAFETY: see above; the backend stays registered for the process's life.
                Ok(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
            })
            .collect()
    }

    /// All devices of all backends, the CPU included, in llama.cpp's order.
    ///
    /// # Errors
    /// What the backend threw.
    pub fn devices(self) -> Result<Vec<Device>, LlamaError> {
        let mut count = 0;
        // SAFETY: writes one size_t.
        check("counting devices", unsafe { llama_sys::shim_device_count(&raw mut count) }, String::new())?;
        (0..count).map(device_at).collect()
    }
}

/// The llama.cpp revision that is linked, e.g. `b10200 (5f55650a78f9)`.
#[must_use]
pub fn revision() -> &'static str {
    llama_sys::REVISION
}
