//! What llama.cpp calls back: log lines, load progress and the abort question. None may unwind into C.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Log text kept for one error, at most.
const CAPTURE_LIMIT: usize = 16 * 1024;

thread_local! {
    /// What is logged now comes from an attempt that may well fail.
    static QUIET: Cell<bool> = const { Cell::new(false) };
    /// The line that this thread is in the middle of, with its level.
    static LINE: RefCell<(u32, String)> = const { RefCell::new((0, String::new())) };
    /// Warnings and errors since `capture_log` began, where one is running.
    static CAPTURE: RefCell<Option<String>> = const { RefCell::new(None) };
    /// What can abort the decode that runs on this thread.
    static RUNNING: RefCell<Option<AbortFlag>> = const { RefCell::new(None) };
}

/// Sends llama.cpp's log to `tracing`, level for level, with target `llama.cpp`.
pub(super) fn install_log() {
    // SAFETY: the callback is a plain function that lives for ever and needs no user data; nothing logs yet.
    unsafe {
        llama_sys::llama_log_set(Some(on_log), std::ptr::null_mut());
        llama_sys::shim_projector_log_set(Some(on_log), std::ptr::null_mut());
    }
}

unsafe extern "C" fn on_log(level: u32, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a NUL-terminated string that is valid for this call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    // A panicking subscriber must not unwind into C; the line is lost, the process is not.
    let _ = catch_unwind(AssertUnwindSafe(|| append(level, &text)));
}

fn append(level: u32, text: &str) {
    LINE.with_borrow_mut(|(line_level, line)| {
        if level != llama_sys::GGML_LOG_LEVEL_CONT {
            *line_level = level;
        }
        line.push_str(text);
        while let Some(end) = line.find('\n') {
            emit(*line_level, line[..end].trim_end());
            line.drain(..=end);
        }
        if line.len() > CAPTURE_LIMIT {
            emit(*line_level, line);
            line.clear();
        }
    });
}

fn emit(asked: u32, line: &str) {
    if line.is_empty() || line.chars().all(|c| c == '.') {
        return;
    }
    // llama.cpp reports a decode that we aborted as a chain of errors; it is what was asked for.
    let level = if is_aborting() || QUIET.get() { llama_sys::GGML_LOG_LEVEL_DEBUG } else { asked };
    match level {
        llama_sys::GGML_LOG_LEVEL_ERROR => tracing::error!(target: "llama.cpp", "{line}"),
        llama_sys::GGML_LOG_LEVEL_WARN => tracing::warn!(target: "llama.cpp", "{line}"),
        llama_sys::GGML_LOG_LEVEL_INFO => tracing::info!(target: "llama.cpp", "{line}"),
        _ => tracing::debug!(target: "llama.cpp", "{line}"),
    }
    if matches!(asked, llama_sys::GGML_LOG_LEVEL_ERROR | llama_sys::GGML_LOG_LEVEL_WARN) && !is_aborting() {
        CAPTURE.with_borrow_mut(|capture| {
            if let Some(kept) = capture.as_mut().filter(|kept| kept.len() < CAPTURE_LIMIT) {
                kept.push_str(line);
                kept.push('\n');
            }
        });
    }
}

/// Runs `call` and returns with its result the warnings and errors that this thread logged meanwhile.
pub(super) fn capture_log<T>(call: impl FnOnce() -> T) -> (T, String) {
    let outer = CAPTURE.replace(Some(String::new()));
    let result = call();
    let log = CAPTURE.replace(outer).unwrap_or_default();
    (result, log)
}

/// As [`capture_log`], for something that is only tried: its warnings and errors go to the debug log, and come back.
pub(super) fn try_out<T>(trying: bool, call: impl FnOnce() -> T) -> (T, String) {
    let outer = QUIET.replace(trying);
    let result = capture_log(call);
    QUIET.set(outer);
    result
}

fn is_aborting() -> bool {
    RUNNING.with_borrow(|running| running.as_ref().is_some_and(AbortFlag::is_set))
}

/// As [`capture_log`], for a call that `abort` can end.
pub(super) fn capture_abortable<T>(abort: &AbortFlag, call: impl FnOnce() -> T) -> (T, String) {
    RUNNING.set(Some(abort.clone()));
    let result = capture_log(call);
    RUNNING.set(None);
    result
}

/// Asked with the loaded fraction, 0.0 to 1.0; `false` cancels the load.
pub(super) type Progress<'a> = &'a mut dyn FnMut(f32) -> bool;

pub(super) unsafe extern "C" fn on_progress(fraction: f32, data: *mut c_void) -> bool {
    // SAFETY: `data` points at the `Progress` that Model::load keeps alive until the load returns, and
    // llama.cpp calls from the loading thread alone.
    let progress = unsafe { &mut *data.cast::<Progress<'_>>() };
    // A panic in the caller's closure cancels the load instead of unwinding into C.
    catch_unwind(AssertUnwindSafe(|| progress(fraction))).unwrap_or(false)
}

/// Stops a running decode from another thread. CPU work notices within one graph node.
#[derive(Clone, Debug, Default)]
pub struct AbortFlag(Arc<AtomicBool>);

impl AbortFlag {
    /// Makes the running decode, or the next one, end with [`super::LlamaError::Aborted`].
    pub fn abort(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Takes an abort back that no decode has seen.
    pub fn clear(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn as_data(&self) -> *mut c_void {
        Arc::as_ptr(&self.0).cast_mut().cast()
    }
}

pub(super) unsafe extern "C" fn on_abort_query(data: *mut c_void) -> bool {
    // SAFETY: `data` is the AtomicBool of an AbortFlag that the context owns for its whole life.
    unsafe { &*data.cast::<AtomicBool>() }.load(Ordering::Relaxed)
}
