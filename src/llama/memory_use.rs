//! How many bytes a context and its model take, and where: llama.cpp's own accounts.

use super::context::Context;
use super::device::text;
use super::error::{LlamaError, check};

/// Bytes of one of llama.cpp's buffer types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Name of the device. Memory of the host counts for the CPU, also where a GPU's driver allocated it.
    pub device: String,
    /// E.g. `CPU_Mapped`.
    pub buffer_type: String,
    pub weights: u64,
    /// KV cache and recurrent states.
    pub context: u64,
    pub compute: u64,
}

impl Context {
    /// What this context and its model take. The model counts in each of its contexts.
    ///
    /// # Errors
    /// What llama.cpp threw.
    pub fn memory_use(&self) -> Result<Vec<MemoryUse>, LlamaError> {
        let mut found = vec![llama_sys::shim_memory::default(); 64];
        let mut count = 0;
        loop {
            // SAFETY: the context is alive; writes at most as many entries as there are.
            let status =
                unsafe { llama_sys::shim_memory_use(self.raw(), found.as_mut_ptr(), found.len(), &raw mut count) };
            if status.unsigned_abs() == llama_sys::SHIM_TOO_SMALL && count > found.len() {
                found.resize(count, llama_sys::shim_memory::default());
                continue;
            }
            check("asking for the memory in use", status, String::new())?;
            break;
        }
        found.truncate(count);
        Ok(found
            .iter()
            .map(|raw| MemoryUse {
                device: text(raw.device),
                buffer_type: text(raw.buffer_type),
                weights: raw.weights,
                context: raw.context,
                compute: raw.compute,
            })
            .collect())
    }
}
