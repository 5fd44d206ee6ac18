//! What a reader can tell a running generation: stop, or change the temperature.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bits of a NaN: no change is waiting.
const NONE: u32 = 0x7fc0_0000;

/// Called when the reader cancels, to stop a forward pass that is under way.
type OnCancel = Box<dyn Fn() + Send>;

/// Shared between the reader of a generation and the engine.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    cancelled: AtomicBool,
    temperature: AtomicU32,
    on_cancel: Mutex<Option<OnCancel>>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}

impl Default for Control {
    fn default() -> Self {
        Self(Arc::new(Inner {
            cancelled: AtomicBool::new(false),
            temperature: AtomicU32::new(NONE),
            on_cancel: Mutex::new(None),
        }))
    }
}

impl Control {
    /// Ends the generation within one step, in whatever phase it is.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Release);
        if let Some(hook) = self.0.on_cancel.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            hook();
        }
    }

    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// From the next token on. The caller checks the range.
    pub fn set_temperature(&self, temperature: f32) {
        self.0.temperature.store(temperature.to_bits(), Ordering::Release);
    }

    /// The temperature that was asked for since the last call.
    #[must_use]
    pub fn take_temperature(&self) -> Option<f32> {
        let bits = self.0.temperature.swap(NONE, Ordering::AcqRel);
        (bits != NONE).then(|| f32::from_bits(bits))
    }

    /// Replaces the hook that [`Control::cancel`] runs. While it is set, `cancel` may run it at any time.
    #[cfg(feature = "llama")]
    pub(super) fn on_cancel(&self, hook: Option<OnCancel>) {
        *self.0.on_cancel.lock().unwrap_or_else(PoisonError::into_inner) = hook;
    }
}
