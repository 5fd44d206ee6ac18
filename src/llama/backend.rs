//! Process-wide initialisation of llama.cpp.

use std::ffi::CStr;
use std::sync::OnceLock;

use super::callback;
use super::device::{Device, device_at};
use super::error::{LlamaError, check};

/// What the initialisation said, or its status and message.
static DONE: OnceLock<Result<String, (i32, String)>> = OnceLock::new();

/// Proof that llama.cpp is initialised. Cheap to copy; it stays initialised until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct Backend(());

impl Backend {
    /// Initialises llama.cpp and every backend that is compiled in, once per process.
    ///
    /// # Errors
    /// What a backend threw while it looked for its devices. It is the same at every later call.
    pub fn init() -> Result<Self, LlamaError> {
        let done = DONE.get_or_init(|| {
            callback::install_log();
            // SAFETY: called once, before any other call into llama.cpp.
            let (status, log) = callback::capture_log(|| unsafe { llama_sys::shim_backend_init() });
            check("backend initialisation", status, log.clone()).map_err(|e| (status, e.to_string()))?;
            Ok(log)
        });
        match done {
            Ok(_) => Ok(Self(())),
            Err((status, message)) => Err(LlamaError::Native {
                call: "backend initialisation",
                status: status.unsigned_abs(),
                message: message.clone(),
                log: String::new(),
            }),
        }
    }

    /// Warnings and errors of the backends while they looked for their devices, a line each.
    #[must_use]
    pub fn complaints(self) -> &'static str {
        DONE.get().and_then(|done| done.as_deref().ok()).unwrap_or_default()
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
