//! Which models are in memory, and what happens next. It knows no clock, no threads and no llama.cpp: it is told the time,
//! and how the steps ended that it asked for.
//!
//! Asks stand in a queue. The first whose model is not there is the head, and only for the head room is made, one model at a
//! time. Models that have to go for it are lent to nobody who asks later, so that a busy one comes to rest; who wants such a
//! model stands behind the head. When a model has loaded, all who wait for it get it, so that two models that do not fit
//! together take turns by queues and not by requests.

mod growth;
mod room;

use std::collections::BTreeMap;
use std::time::Instant;

use super::budget::{Bytes, MemoryBudget};
use super::keep_alive::KeepAlive;
use crate::runner::LoadError;
pub use growth::{Growth, Room};

pub type ModelId = u64;
pub type Ticket = u64;

/// What a model takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    pub bytes: Bytes,
    /// Less of it lies on GPUs than was wished, for want of memory there.
    pub reduced: bool,
}

/// Why a model does not come into memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Load(LoadError),
    /// Alone it takes more than the budget.
    TooLarge {
        device: String,
        needed: u64,
        budget: u64,
    },
}

/// What whoever asked has to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The model is lent. Give it back with [`Residency::release`].
    Ready,
    /// Find out what is free, and what the model takes where that is `needed`; then [`Residency::surveyed`].
    Survey {
        needed: bool,
    },
    /// Load it; then [`Residency::loaded`].
    Load,
    /// Ask again when something has changed.
    Wait,
    Failed(Failure),
}

/// What a model is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Unloaded,
    /// Waits for room, or for others that are loading.
    Queued,
    Loading,
    /// With the number of those who use it, and when it leaves if nobody comes.
    Loaded {
        leases: usize,
        expires: Option<Instant>,
    },
    Unloading,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Absent,
    /// Somebody finds out what it takes, or loads it.
    Coming,
    Resident {
        leases: usize,
        last_asked: Instant,
        idle_since: Instant,
    },
    Leaving,
}

#[derive(Clone, Debug)]
struct Model {
    place: Place,
    /// What it holds, or is about to.
    used: Bytes,
    /// What it takes, where that is known.
    need: Option<Need>,
    /// What models may take together on each device, as far as known. What is free changes, so it is for one attempt.
    capacity: Option<Bytes>,
    /// Waits for one to go that was not found by sums.
    squeezed: bool,
    /// Lent to nobody any more; leaves when it is idle.
    doomed: bool,
    /// Nobody will ask again.
    retired: bool,
    /// While it is loaded: what the last request that said so asked for, else its own.
    keep_alive: KeepAlive,
    own_keep_alive: KeepAlive,
}

#[derive(Clone, Debug)]
struct Ask {
    model: ModelId,
    answer: Option<Result<(), Failure>>,
}

#[derive(Debug)]
pub struct Residency {
    budget: MemoryBudget,
    models: BTreeMap<ModelId, Model>,
    /// In the order in which they came.
    asks: BTreeMap<Ticket, Ask>,
    next_ticket: Ticket,
    /// What was free on each device when no model was loaded.
    free_alone: Bytes,
    /// Others than the one who polled have something to do.
    news: bool,
}

/// Asks that may wait at the same time. Each holds a thread.
const MOST_ASKS: usize = 256;

impl Residency {
    #[must_use]
    pub fn new(budget: MemoryBudget) -> Self {
        Self {
            budget,
            models: BTreeMap::new(),
            asks: BTreeMap::new(),
            next_ticket: 0,
            free_alone: Bytes::new(),
            news: false,
        }
    }

    /// Takes a place in the queue; `None` where it is full and the model cannot be had at once. `keep_alive` is the model's own, for when it loads.
    pub fn ask(&mut self, id: ModelId, keep_alive: KeepAlive, retired: bool) -> Option<Ticket> {
        if self.asks.len() >= MOST_ASKS && !(self.models.contains_key(&id) && self.may_lend(id, self.next_ticket + 1)) {
            return None;
        }
        let model = self.models.entry(id).or_insert_with(|| Model::absent(keep_alive));
        model.retired |= retired;
        model.own_keep_alive = keep_alive;
        self.next_ticket += 1;
        self.asks.insert(self.next_ticket, Ask { model: id, answer: None });
        Some(self.next_ticket)
    }

    /// What to do for a ticket. It is used up by `Ready` and `Failed`.
    pub fn poll(&mut self, ticket: Ticket, now: Instant) -> Step {
        let Some(ask) = self.asks.get(&ticket) else { return Step::Wait };
        let id = ask.model;
        if let Some(answer) = ask.answer.clone() {
            self.asks.remove(&ticket);
            self.tidy(id);
            return answer.map_or_else(Step::Failed, |()| Step::Ready);
        }
        if self.may_lend(id, ticket) {
            self.asks.remove(&ticket);
            self.lend(id, now);
            return Step::Ready;
        }
        if self.is_working() || self.head().is_none_or(|(_, head)| head != id) {
            return Step::Wait;
        }
        let step = self.advance(id);
        if matches!(step, Step::Failed(_)) {
            self.asks.remove(&ticket);
            self.tidy(id);
        }
        step
    }

    /// Lends a model that is loaded, past all who wait. Returns whether it is.
    pub fn lend_loaded(&mut self, id: ModelId, now: Instant) -> bool {
        let is_there = self.models.get(&id).is_some_and(Model::can_go);
        if is_there {
            self.lend(id, now);
        }
        is_there
    }

    /// Whether a poll changed something for others: wake those who wait.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Gives a place in the queue up.
    pub fn withdraw(&mut self, ticket: Ticket, now: Instant) {
        let Some(ask) = self.asks.remove(&ticket) else { return };
        if ask.answer == Some(Ok(())) {
            self.release(ask.model, None, now);
        }
        self.tidy(ask.model);
    }

    /// How many wait for the model.
    #[must_use]
    pub fn waiting(&self, id: ModelId) -> usize {
        self.asks.values().filter(|ask| ask.model == id && ask.answer.is_none()).count()
    }

    /// Whether anybody still waits for the model, beside `ticket`.
    #[must_use]
    pub fn is_wanted(&self, id: ModelId, beside: Ticket) -> bool {
        self.asks.iter().any(|(ticket, ask)| ask.model == id && ask.answer.is_none() && *ticket != beside)
    }

    /// Ends [`Step::Survey`]: what is free on the devices, and what the model takes where that was needed.
    pub fn surveyed(&mut self, id: ModelId, need: Option<Need>, free: Bytes) {
        if !self.holds_any() {
            self.free_alone.clone_from(&free);
        }
        let capacity = self.capacity(&free);
        let model = self.model(id);
        model.place = Place::Absent;
        // Nothing of it was there to unload.
        model.doomed = false;
        model.capacity = Some(capacity);
        model.need = need.or(model.need.take());
        if model.need.as_ref().is_some_and(|need| need.reduced) {
            // Without an idle one, more of it may lie on a GPU.
            self.squeeze(id, |idle| !idle.is_only_on_cpu());
        }
        self.tidy(id);
    }

    /// Ends [`Step::Load`]: `used` is what the model really holds. All who wait for it have it now.
    pub fn loaded(&mut self, id: ModelId, used: Need, now: Instant) {
        let mut leases = 0;
        for ask in self.asks.values_mut().filter(|ask| ask.model == id && ask.answer.is_none()) {
            ask.answer = Some(Ok(()));
            leases += 1;
        }
        let model = self.model(id);
        model.place = Place::Resident { leases, last_asked: now, idle_since: now };
        model.keep_alive = model.own_keep_alive;
        model.used.clone_from(&used.bytes);
        model.need = (!used.reduced).then_some(used);
        model.squeezed = false;
        model.doomed |= model.retired;
        self.forget_capacities();
    }

    /// Ends [`Step::Survey`] or [`Step::Load`] otherwise. For want of memory, others go first; after a cancelled load it
    /// begins anew where somebody still waits.
    pub fn failed(&mut self, id: ModelId, error: LoadError) {
        let model = self.model(id);
        model.place = Place::Absent;
        model.used.clear();
        (model.need, model.capacity) = (None, None);
        model.doomed = false;
        let again = error == LoadError::Cancelled || (error.is_memory() && self.squeeze(id, |_| true));
        if !again {
            self.refuse(id, &Failure::Load(error));
        }
        self.tidy(id);
    }

    /// Lets the least recently used idle model go that will do, where somebody waits for `id`. Returns whether one goes.
    fn squeeze(&mut self, id: ModelId, will_do: impl Fn(&Model) -> bool) -> bool {
        let idle = self.models.values_mut().filter(|model| model.is_idle() && will_do(model));
        let Some(first) = idle.min_by_key(|model| (!model.doomed, model.order())) else { return false };
        first.doomed = true;
        self.news = true;
        self.model(id).squeezed = true;
        true
    }

    /// Gives a lent model back. A `keep_alive` holds from now on.
    pub fn release(&mut self, id: ModelId, keep_alive: Option<KeepAlive>, now: Instant) {
        let model = self.model(id);
        if let Some(keep_alive) = keep_alive {
            model.keep_alive = keep_alive;
        }
        if let Place::Resident { leases, idle_since, .. } = &mut model.place {
            *leases -= 1;
            *idle_since = now;
        }
    }

    /// Lends the model to nobody any more. Returns whether there was anything to unload.
    pub fn unload(&mut self, id: ModelId) -> bool {
        let Some(model) = self.models.get_mut(&id).filter(|model| model.place != Place::Absent) else { return false };
        model.doomed = true;
        true
    }

    /// As [`Residency::unload`], for a model that nobody can name any more.
    pub fn retire(&mut self, id: ModelId) {
        if let Some(model) = self.models.get_mut(&id) {
            model.retired = true;
        }
        self.unload(id);
        self.tidy(id);
    }

    /// The idle models whose time is over. Drop them; then [`Residency::left`].
    pub fn take_expired(&mut self, now: Instant) -> Vec<ModelId> {
        let over = |model: &Model| model.is_idle() && (model.doomed || model.expires().is_some_and(|at| at <= now));
        let expired = self.models.iter_mut().filter(|(_, model)| over(model));
        expired
            .map(|(id, model)| {
                model.place = Place::Leaving;
                *id
            })
            .collect()
    }

    pub fn left(&mut self, id: ModelId) {
        let model = self.model(id);
        model.place = Place::Absent;
        model.used.clear();
        model.doomed = false;
        self.forget_capacities();
        for model in self.models.values_mut().filter(|model| model.squeezed) {
            // It may take something else now.
            (model.need, model.squeezed) = (None, false);
        }
        self.tidy(id);
    }

    /// When [`Residency::take_expired`] has something to do next, if nothing changes.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.models.values().filter(|model| model.is_idle()).filter_map(Model::expires).min()
    }

    #[must_use]
    pub fn phase(&self, id: ModelId) -> Phase {
        let Some(model) = self.models.get(&id) else { return Phase::Unloaded };
        match model.place {
            Place::Absent if self.waiting(id) > 0 => Phase::Queued,
            Place::Absent => Phase::Unloaded,
            Place::Coming => Phase::Loading,
            Place::Resident { .. } if model.doomed => Phase::Unloading,
            Place::Resident { leases, .. } => {
                Phase::Loaded { leases, expires: if leases == 0 { model.expires() } else { None } }
            }
            Place::Leaving => Phase::Unloading,
        }
    }

    /// Whether it is on its way out, with nobody using it.
    #[must_use]
    pub fn is_leaving(&self, id: ModelId) -> bool {
        let leaves = |model: &Model| model.place == Place::Leaving || (model.doomed && model.is_idle());
        self.models.get(&id).is_some_and(leaves)
    }

    /// The models that are lent at this moment.
    pub fn busy(&self) -> impl Iterator<Item = ModelId> {
        self.models.iter().filter(|(_, model)| model.leases() > 0).map(|(id, _)| *id)
    }

    fn model(&mut self, id: ModelId) -> &mut Model {
        self.models.entry(id).or_insert_with(|| Model::absent(KeepAlive::Forever))
    }

    fn tidy(&mut self, id: ModelId) {
        let idle = |model: &Model| model.retired && model.place == Place::Absent;
        if self.models.get(&id).is_some_and(idle) && !self.asks.values().any(|ask| ask.model == id) {
            self.models.remove(&id);
        }
    }

    fn is_working(&self) -> bool {
        self.models.values().any(|model| model.place == Place::Coming)
    }

    /// The first ask whose model has to be loaded.
    fn head(&self) -> Option<(Ticket, ModelId)> {
        let waits = |id: &ModelId| matches!(self.models[id].place, Place::Absent | Place::Coming);
        let ask = self.asks.iter().find(|(_, ask)| ask.answer.is_none() && waits(&ask.model));
        ask.map(|(ticket, ask)| (*ticket, ask.model))
    }

    fn may_lend(&self, id: ModelId, ticket: Ticket) -> bool {
        let model = &self.models[&id];
        if model.doomed || !matches!(model.place, Place::Resident { .. }) {
            return false;
        }
        self.head().is_none_or(|(first, head)| ticket < first || !self.victims(head).contains(&id))
    }

    fn lend(&mut self, id: ModelId, now: Instant) {
        if let Place::Resident { leases, last_asked, .. } = &mut self.model(id).place {
            *leases += 1;
            *last_asked = now;
        }
    }

    fn refuse(&mut self, id: ModelId, failure: &Failure) {
        for ask in self.asks.values_mut().filter(|ask| ask.model == id && ask.answer.is_none()) {
            ask.answer = Some(Err(failure.clone()));
            self.news = true;
        }
    }

    fn forget_capacities(&mut self) {
        self.models.values_mut().for_each(|model| model.capacity = None);
    }
}

impl Model {
    fn absent(keep_alive: KeepAlive) -> Self {
        Self {
            place: Place::Absent,
            used: Bytes::new(),
            need: None,
            capacity: None,
            squeezed: false,
            doomed: false,
            retired: false,
            keep_alive,
            own_keep_alive: keep_alive,
        }
    }

    fn leases(&self) -> usize {
        if let Place::Resident { leases, .. } = self.place { leases } else { 0 }
    }

    fn is_idle(&self) -> bool {
        matches!(self.place, Place::Resident { leases: 0, .. })
    }

    fn can_go(&self) -> bool {
        matches!(self.place, Place::Resident { .. }) && !self.doomed
    }

    fn expires(&self) -> Option<Instant> {
        match (self.place, self.keep_alive) {
            (Place::Resident { idle_since, .. }, KeepAlive::For(time)) => idle_since.checked_add(time),
            _ => None,
        }
    }

    /// Those that go first come first.
    fn order(&self) -> (bool, bool, Option<Instant>) {
        let stays = self.keep_alive == KeepAlive::Forever;
        match self.place {
            Place::Resident { leases: 0, idle_since, .. } => (false, stays, Some(idle_since)),
            Place::Resident { last_asked, .. } => (true, stays, Some(last_asked)),
            _ => (true, stays, None),
        }
    }

    fn limit(&self, budget: &MemoryBudget, device: &str) -> Option<u64> {
        budget.of(device, self.capacity.as_ref()?.get(device).copied())
    }

    fn is_only_on_cpu(&self) -> bool {
        self.used.keys().all(|device| device == "CPU")
    }
}

#[cfg(test)]
mod lives;
#[cfg(test)]
mod tests;
