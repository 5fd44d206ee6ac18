//! The loaded models, and the threads that wait for one. Whoever waits for a model does what it takes to load it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::budget::{Bytes, MemoryBudget, add};
use super::keep_alive::KeepAlive;
use super::lease::Lease;
use super::loader::Loader;
use super::residency::{Failure, Growth, ModelId, Phase, Residency, Room, Step, Ticket};
use crate::runner::{LoadError, LoadSpec, Runner, RunnerInfo};

/// How long a request waits for a model to come. A large one can take minutes from a slow disk.
const PATIENCE: Duration = Duration::from_secs(300);

/// A model as the pool knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub id: ModelId,
    pub name: &'a str,
    pub spec: &'a LoadSpec,
    pub keep_alive: KeepAlive,
    /// Replaced meanwhile: it is for those only who asked before. Looked at under the pool's lock, behind which [`Pool::retire`] comes.
    pub retired: &'a AtomicBool,
}

/// Why a model was not lent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotLent {
    Failed(Failure),
    /// Too many wait already.
    QueueFull,
    /// What uses the memory did not come to its end in time.
    TooLate {
        busy: Vec<String>,
    },
    /// Whoever asked has left, or the program ends.
    Cancelled,
}

/// Tells a waiting request that nobody wants its answer any more.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Whether it was cancelled.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Hears the loaded fraction; `false` gives up.
pub(super) type OwnProgress<'a> = &'a mut dyn FnMut(f32) -> bool;

#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    started: Once,
    janitor: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    loader: Box<dyn Loader>,
    /// Of the model that loads, in 1/65536.
    progress: AtomicU32,
}

#[derive(Debug)]
struct State {
    residency: Residency,
    loaded: HashMap<ModelId, Loaded>,
    /// Why the latest load failed.
    errors: HashMap<ModelId, String>,
    closed: bool,
}

#[derive(Debug)]
struct Loaded {
    name: String,
    runner: Arc<dyn Runner>,
    /// What of the memory that it is counted with are adapters.
    adapters: Bytes,
}

impl Pool {
    pub fn new(loader: Box<dyn Loader>, budget: MemoryBudget) -> Self {
        let state =
            State { residency: Residency::new(budget), loaded: HashMap::new(), errors: HashMap::new(), closed: false };
        let shared = Shared { state: Mutex::new(state), changed: Condvar::new(), loader, progress: AtomicU32::new(0) };
        Self { shared: Arc::new(shared), started: Once::new(), janitor: Mutex::new(None) }
    }

    /// Waits until the model is there, and loads it where that is to do.
    pub fn acquire(&self, wanted: Wanted<'_>, cancel: &Cancel, progress: OwnProgress<'_>) -> Result<Lease, NotLent> {
        self.start_janitor();
        let mut state = self.shared.lock();
        let Some(ticket) = state.residency.ask(wanted.id, wanted.keep_alive, wanted.retired.load(Ordering::Relaxed))
        else {
            return Err(NotLent::QueueFull);
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Instant::now();
            if state.closed || cancel.is_set() {
                return Err(self.give_up(state, ticket, NotLent::Cancelled));
            }
            let step = state.residency.poll(ticket, now);
            if state.residency.take_news() {
                self.shared.changed.notify_all();
            }
            state = match step {
                Step::Ready => return self.lend(&state, wanted),
                Step::Failed(failure) => return Err(NotLent::Failed(failure)),
                Step::Survey { needed } => {
                    drop(state);
                    self.survey(wanted, needed)
                }
                Step::Load => {
                    let room = state.residency.room(wanted.id, None);
                    drop(state);
                    match self.load(wanted, &room, ticket, cancel, progress) {
                        (state, true) => state,
                        (state, false) => return Err(self.give_up(state, ticket, NotLent::Cancelled)),
                    }
                }
                Step::Wait if now >= deadline => {
                    let busy = state.busy_names();
                    return Err(self.give_up(state, ticket, NotLent::TooLate { busy }));
                }
                Step::Wait => {
                    let waited = self.shared.changed.wait_timeout(state, deadline - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn lend(&self, state: &State, wanted: Wanted<'_>) -> Result<Lease, NotLent> {
        match state.loaded.get(&wanted.id) {
            Some(loaded) => Ok(Lease::new(wanted.name, wanted.id, Arc::clone(&loaded.runner), &self.shared)),
            // Only after `close`.
            None => Err(NotLent::Cancelled),
        }
    }

    fn give_up(&self, mut state: MutexGuard<'_, State>, ticket: Ticket, why: NotLent) -> NotLent {
        state.residency.withdraw(ticket, Instant::now());
        self.shared.changed.notify_all();
        why
    }

    fn survey(&self, wanted: Wanted<'_>, needed: bool) -> MutexGuard<'_, State> {
        let loader = &self.shared.loader;
        let found = caught(|| Ok(loader.free())).and_then(|free| {
            let room = self.shared.lock().residency.room(wanted.id, Some(&free));
            let need = needed.then(|| caught(|| loader.need(wanted.spec, &|device| room.on(device))));
            Ok((need.transpose()?, free))
        });
        let mut state = self.shared.lock();
        match found {
            Ok((need, free)) => state.residency.surveyed(wanted.id, need, free),
            Err(error) => state.fail(wanted.id, error),
        }
        self.shared.changed.notify_all();
        state
    }

    /// Returns whether whoever asked is still there.
    fn load(
        &self,
        wanted: Wanted<'_>,
        room: &Room,
        ticket: Ticket,
        cancel: &Cancel,
        progress: OwnProgress<'_>,
    ) -> (MutexGuard<'_, State>, bool) {
        let shared = &self.shared;
        shared.progress.store(0, Ordering::Relaxed);
        let mut stays = true;
        let loaded = caught(|| {
            shared.loader.load(wanted.spec, &|device| room.on(device), &mut |fraction| {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                shared.progress.store((fraction * 65536.0) as u32, Ordering::Relaxed);
                stays &= progress(fraction) && !cancel.is_set();
                // Others may want what one has given up.
                let state = shared.lock();
                !state.closed && (stays || state.residency.is_wanted(wanted.id, ticket))
            })
        });
        let mut state = shared.lock();
        match loaded {
            Ok((runner, used)) => {
                state.errors.remove(&wanted.id);
                let (name, adapters) = (wanted.name.to_owned(), runner.adapters_held());
                state.loaded.insert(wanted.id, Loaded { name, runner, adapters });
                state.residency.loaded(wanted.id, used, Instant::now());
            }
            Err(error) => state.fail(wanted.id, error),
        }
        shared.changed.notify_all();
        (state, stays)
    }

    /// Lets the model go as soon as nobody uses it, and waits for that where nobody does. Returns whether it was loaded.
    pub fn unload(&self, id: ModelId) -> bool {
        let mut state = self.shared.lock();
        let was_there = state.residency.unload(id);
        self.shared.changed.notify_all();
        while was_there && !state.closed && state.residency.is_leaving(id) {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        was_there
    }

    /// As [`Pool::unload`], without waiting, for a model that nobody can name any more.
    pub fn retire(&self, id: ModelId) {
        let mut state = self.shared.lock();
        state.residency.retire(id);
        state.errors.remove(&id);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// What the model does, the fraction that is loaded, why it failed, and what it is while it is loaded.
    pub fn status(&self, id: ModelId) -> (Phase, f32, Option<String>, Option<RunnerInfo>) {
        let state = self.shared.lock();
        let phase = state.residency.phase(id);
        #[allow(clippy::cast_precision_loss)]
        let progress = self.shared.progress.load(Ordering::Relaxed) as f32 / 65536.0;
        let info = state.loaded.get(&id).map(|loaded| {
            let mut info = loaded.runner.info().clone();
            info.placement.add_adapters(&loaded.adapters);
            info
        });
        (phase, progress, state.errors.get(&id).cloned(), info)
    }

    /// Lends the model where it is loaded.
    pub fn lend_loaded(&self, id: ModelId) -> Option<Lease> {
        let mut state = self.shared.lock();
        let is_lent = state.residency.lend_loaded(id, Instant::now());
        let loaded = state.loaded.get(&id).filter(|_| is_lent)?;
        Some(Lease::new(&loaded.name, id, Arc::clone(&loaded.runner), &self.shared))
    }

    /// Makes room for what comes to a lent model, and counts it. Idle models leave for it where that is enough.
    pub fn grow(&self, lease: &Lease, more: &Bytes) -> Result<(), Growth> {
        let mut is_sure = false;
        loop {
            let free = self.shared.loader.free();
            let mut state = self.shared.lock();
            match state.residency.grow(lease.id(), more, &free) {
                Growth::Done => {
                    if let Some(loaded) = state.loaded.get_mut(&lease.id()) {
                        add(&mut loaded.adapters, more);
                    }
                    return Ok(());
                }
                Growth::Wait if !state.closed => {
                    self.shared.changed.notify_all();
                    drop(self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
                }
                // What others freed since may not be in what was read.
                Growth::NoRoom { .. } if !is_sure => is_sure = true,
                none => return Err(none),
            }
        }
    }

    /// Counts a lent model's adapters anew.
    pub fn recount(&self, lease: &Lease) {
        let held = lease.runner().adapters_held();
        let mut state = self.shared.lock();
        if let Some(loaded) = state.loaded.get_mut(&lease.id()) {
            let before = std::mem::replace(&mut loaded.adapters, held.clone());
            state.residency.changed(lease.id(), &before, &held);
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Looks at the loaded model. `look` must be quick.
    pub fn look_at_loaded<T>(&self, id: ModelId, look: impl FnOnce(&dyn Runner) -> T) -> Option<T> {
        self.shared.lock().loaded.get(&id).map(|loaded| look(&*loaded.runner))
    }

    /// How many wait for the model.
    #[cfg(test)]
    pub fn waiting(&self, id: ModelId) -> usize {
        self.shared.lock().residency.waiting(id)
    }

    /// Those who wait look whether they were cancelled.
    pub fn cancel(&self, cancel: &Cancel) {
        cancel.0.store(true, Ordering::Relaxed);
        // Under the lock: nobody is between looking and waiting.
        let _state = self.shared.lock();
        self.shared.changed.notify_all();
    }

    /// Ends all waiting, and unloads what nobody uses.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        let janitor = self.janitor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(janitor) = janitor {
            let _ = janitor.join();
        }
        let loaded = std::mem::take(&mut self.shared.lock().loaded);
        drop(loaded);
    }

    fn start_janitor(&self) {
        self.started.call_once(|| {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("unload".into()).spawn(move || shared.unload_expired());
            match thread {
                Ok(thread) => *self.janitor.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread),
                Err(error) => {
                    tracing::error!(%error, "no thread for unloading models, so none is loaded");
                    self.shared.lock().closed = true;
                }
            }
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl State {
    fn busy_names(&self) -> Vec<String> {
        self.residency.busy().filter_map(|id| Some(self.loaded.get(&id)?.name.clone())).collect()
    }

    fn fail(&mut self, id: ModelId, error: LoadError) {
        if error != LoadError::Cancelled {
            self.errors.insert(id, error.to_string());
        }
        self.residency.failed(id, error);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn release(&self, id: ModelId, keep_alive: Option<KeepAlive>) {
        self.lock().residency.release(id, keep_alive, Instant::now());
        self.changed.notify_all();
    }

    /// The janitor's life.
    fn unload_expired(&self) {
        let mut state = self.lock();
        while !state.closed {
            let expired = state.residency.take_expired(Instant::now());
            let leaving: Vec<Loaded> = expired.iter().filter_map(|id| state.loaded.remove(id)).collect();
            if expired.is_empty() {
                let wait = state.residency.next_expiry().map(|at| at.saturating_duration_since(Instant::now()));
                state = match wait {
                    Some(wait) => self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
                    None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                };
                continue;
            }
            drop(state);
            for Loaded { name, runner, .. } in leaving {
                // Waits for the engine's thread to end.
                drop(runner);
                tracing::info!(model = name, "model unloaded");
            }
            state = self.lock();
            expired.into_iter().for_each(|id| state.residency.left(id));
            self.changed.notify_all();
        }
    }
}

/// A panic in a load must not leave the others waiting for it.
fn caught<T>(work: impl FnOnce() -> Result<T, LoadError>) -> Result<T, LoadError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(LoadError::Failed("loading panicked; the log has the reason".into())))
}
