//! What the reader of a generation and the engine tell each other beside the events: stop, change the
//! temperature, I am slow.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// Bits of a NaN: no change is waiting.
const NONE: u32 = 0x7fc0_0000;

/// Bytes of unread events beyond which a sequence pauses, and below which it goes on.
const PAUSE_ABOVE: usize = 128 << 10;
const RESUME_BELOW: usize = 64 << 10;

/// What the engine should know at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// The reader wants no more. `pass`: the one under way that the sequence is part of.
    Cancelled { pass: Option<NonZeroU32> },
    /// A reader that was slow has caught up.
    CaughtUp,
}

pub(super) type OnSignal = Arc<dyn Fn(Signal) + Send + Sync>;

/// Shared between the reader of a generation and the engine. Each of the two sets something and then looks at what the
/// other has set, so both must see the same order.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

#[derive(Default)]
struct Inner {
    cancelled: AtomicBool,
    temperature: AtomicU32,
    /// Bytes that were sent and not yet read.
    backlog: AtomicUsize,
    paused: AtomicBool,
    /// The pass under way that the sequence is part of; 0 where it is not.
    pass: AtomicU32,
    on_signal: Option<OnSignal>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}

impl Control {
    pub(super) fn new(on_signal: Option<OnSignal>) -> Self {
        Self(Arc::new(Inner { temperature: AtomicU32::new(NONE), on_signal, ..Inner::default() }))
    }

    /// Ends the generation within one step, in whatever phase it is.
    pub fn cancel(&self) {
        if !self.0.cancelled.swap(true, Ordering::SeqCst) {
            self.signal(Signal::Cancelled { pass: self.leave_pass() });
        }
    }

    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// From the next token on. The caller checks the range.
    pub fn set_temperature(&self, temperature: f32) {
        self.0.temperature.store(temperature.to_bits(), Ordering::Release);
    }

    /// The temperature that was asked for since the last call.
    #[must_use]
    pub fn take_temperature(&self) -> Option<f32> {
        if self.0.temperature.load(Ordering::Relaxed) == NONE {
            return None;
        }
        let bits = self.0.temperature.swap(NONE, Ordering::AcqRel);
        (bits != NONE).then(|| f32::from_bits(bits))
    }

    /// Bytes that wait for the reader.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.0.backlog.load(Ordering::SeqCst)
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.0.backlog.fetch_add(bytes, Ordering::SeqCst);
    }

    pub(super) fn read(&self, bytes: usize) {
        let left = self.0.backlog.fetch_sub(bytes, Ordering::SeqCst) - bytes;
        if left < RESUME_BELOW && self.0.paused.load(Ordering::SeqCst) && self.0.paused.swap(false, Ordering::SeqCst) {
            self.signal(Signal::CaughtUp);
        }
    }

    /// Whether the reader is so far behind that the sequence should wait. It is told when the reader catches up.
    pub(super) fn should_pause(&self) -> bool {
        let behind = if self.0.paused.load(Ordering::SeqCst) { RESUME_BELOW } else { PAUSE_ABOVE };
        if self.backlog() < behind {
            return false;
        }
        self.0.paused.store(true, Ordering::SeqCst);
        // It may have caught up between the two.
        self.backlog() >= RESUME_BELOW || !self.0.paused.swap(false, Ordering::SeqCst)
    }

    /// Marks the sequence as part of a pass.
    pub(super) fn join_pass(&self, pass: NonZeroU32) {
        self.0.pass.store(pass.get(), Ordering::SeqCst);
    }

    /// Takes the mark away. The result is the pass, for whoever of two comes first.
    pub(super) fn leave_pass(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.0.pass.swap(0, Ordering::SeqCst))
    }

    fn signal(&self, signal: Signal) {
        if let Some(hook) = &self.0.on_signal {
            hook(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{Control, PAUSE_ABOVE, Signal};

    #[test]
    fn a_slow_reader_pauses_until_it_has_caught_up() {
        let caught_up = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&caught_up);
        let control = Control::new(Some(Arc::new(move |signal| {
            assert_eq!(signal, Signal::CaughtUp);
            count.fetch_add(1, Ordering::Relaxed);
        })));
        control.sent(PAUSE_ABOVE - 1);
        assert!(!control.should_pause());
        control.sent(1);
        assert!(control.should_pause());
        control.read(PAUSE_ABOVE / 4);
        assert!(control.should_pause(), "half way is not enough");
        control.read(PAUSE_ABOVE / 2);
        assert_eq!(caught_up.load(Ordering::Relaxed), 1);
        assert!(!control.should_pause());
    }
}
