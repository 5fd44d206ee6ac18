//! Compute devices as llama.cpp's backends report them.

use std::ffi::{CStr, c_char};

use super::error::{LlamaError, check};

/// What kind of processor a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    Cpu,
    /// A GPU with memory of its own.
    Gpu,
    /// A GPU that shares the host's memory.
    IntegratedGpu,
    /// Helps the CPU with some operations (BLAS, AMX); never holds layers by itself.
    Accelerator,
}

/// One compute device.
#[derive(Clone, Debug)]
pub struct Device {
    /// llama.cpp's name, e.g. `Vulkan0`.
    pub name: String,
    /// The maker's name, e.g. `NVIDIA H200`.
    pub description: String,
    /// Name of the backend that drives it, e.g. `Vulkan`.
    pub backend: String,
    pub kind: DeviceKind,
    /// PCI bus id where the backend knows it.
    pub id: Option<String>,
    /// Bytes.
    pub memory_free: u64,
    /// Bytes.
    pub memory_total: u64,
    pub(super) handle: llama_sys::ggml_backend_dev_t,
}

// SAFETY: the handle points at an entry of ggml's device registry, which is never freed and which llama.cpp
// itself reads from any thread.
unsafe impl Send for Device {}
// SAFETY: as above; nothing is written through the handle.
unsafe impl Sync for Device {}

impl Device {
    /// Whether model layers can be placed on it.
    #[must_use]
    pub fn is_gpu(&self) -> bool {
        matches!(self.kind, DeviceKind::Gpu | DeviceKind::IntegratedGpu)
    }
}

pub(super) fn device_at(index: usize) -> Result<Device, LlamaError> {
    let mut raw = llama_sys::shim_device::default();
    // SAFETY: fills one struct; its strings live as long as the process.
    check("reading a device", unsafe { llama_sys::shim_device_get(index, &raw mut raw) }, String::new())?;
    Ok(Device {
        name: text(raw.name),
        description: text(raw.description).trim().to_owned(),
        backend: text(raw.backend),
        kind: match u32::try_from(raw.type_).unwrap_or(u32::MAX) {
            llama_sys::GGML_BACKEND_DEVICE_TYPE_CPU => DeviceKind::Cpu,
            llama_sys::GGML_BACKEND_DEVICE_TYPE_GPU => DeviceKind::Gpu,
            llama_sys::GGML_BACKEND_DEVICE_TYPE_IGPU => DeviceKind::IntegratedGpu,
            _ => DeviceKind::Accelerator,
        },
        id: (!raw.id.is_null()).then(|| text(raw.id)),
        memory_free: raw.memory_free,
        memory_total: raw.memory_total,
        handle: raw.handle,
    })
}

pub(super) fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the shim hands out NUL-terminated strings only.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
