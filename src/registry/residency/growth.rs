//! What comes to a model while it is loaded, and what models may take beside each other.

use super::{Bytes, Model, ModelId, Place, Residency};
use crate::registry::budget::{MemoryBudget, add};

/// Whether there is room for more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Growth {
    Done,
    /// Ask again when something has changed: idle models leave for it.
    Wait,
    /// All that nobody uses would not be enough.
    NoRoom {
        device: String,
        needed: u64,
        /// Without the models that nobody uses.
        left: u64,
    },
}

/// How much a model may take.
#[derive(Debug)]
pub struct Room {
    budget: MemoryBudget,
    capacity: Bytes,
    /// By the others.
    held: Bytes,
}

impl Room {
    /// Bytes on a device, where somebody limits that. What is free is for others to know.
    pub fn on(&self, device: &str) -> Option<u64> {
        let budget = self.budget.of(device, self.capacity.get(device).copied());
        let budget = budget.filter(|_| self.budget.is_explicit(device))?;
        Some(budget.saturating_sub(self.held.get(device).copied().unwrap_or(0)))
    }
}

impl Residency {
    /// What models may take together, as far as known, where `free` is free beside them.
    pub(super) fn capacity(&self, free: &Bytes) -> Bytes {
        let all = |(device, free): (&String, &u64)| {
            // Where files are mapped, what models hold counts as free, too.
            let alone = self.free_alone.get(device).copied().unwrap_or(u64::MAX);
            (device.clone(), free.saturating_add(self.held(device)).min(alone))
        };
        free.iter().map(all).collect()
    }

    /// How much the model may take beside the others. `free` is looked at where its own survey is not over.
    #[must_use]
    pub fn room(&self, id: ModelId, free: Option<&Bytes>) -> Room {
        let surveyed = || self.models.get(&id).and_then(|model| model.capacity.clone());
        let capacity = free.map(|free| self.capacity(free)).or_else(surveyed).unwrap_or_default();
        let mut held = Bytes::new();
        self.models.iter().filter(|(other, _)| **other != id).for_each(|(_, model)| add(&mut held, &model.used));
        Room { budget: self.budget.clone(), capacity, held }
    }

    /// More comes to a model that is loaded and lent.
    pub fn grow(&mut self, id: ModelId, more: &Bytes, free: &Bytes) -> Growth {
        let capacity = self.capacity(free);
        let (mut going, mut doomed) = (false, Vec::new());
        for (device, needed) in more {
            let Some(limit) = self.budget.of(device, capacity.get(device).copied()) else { continue };
            let mut left = limit.saturating_sub(self.held(device));
            if left >= *needed {
                continue;
            }
            let is_going = |model: &Model| model.place == Place::Leaving || (model.doomed && model.is_idle());
            let on_it = |model: &Model| model.used.get(device).copied().unwrap_or(0);
            let leaving: u64 = self.models.values().filter(|model| is_going(model)).map(on_it).sum();
            (left, going) = (left + leaving, going | (leaving > 0));
            let idle = self.models.iter().filter(|(_, model)| model.is_idle() && !model.doomed);
            let mut idle: Vec<_> = idle.filter(|(idle, model)| **idle != id && on_it(model) > 0).collect();
            idle.sort_by_key(|(_, model)| model.order());
            for (id, model) in idle {
                if left < *needed {
                    left += on_it(model);
                    doomed.push(*id);
                }
            }
            if left < *needed {
                return Growth::NoRoom { device: device.clone(), needed: *needed, left };
            }
        }
        if going || !doomed.is_empty() {
            doomed.into_iter().for_each(|id| self.model(id).doomed = true);
            return Growth::Wait;
        }
        add(&mut self.model(id).used, more);
        Growth::Done
    }

    /// What a loaded model holds has changed in part.
    pub fn changed(&mut self, id: ModelId, from: &Bytes, to: &Bytes) {
        let model = self.model(id);
        add(&mut model.used, to);
        for (device, bytes) in from {
            if let Some(used) = model.used.get_mut(device) {
                *used = used.saturating_sub(*bytes);
            }
        }
        self.forget_capacities();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::Growth;
    use crate::registry::KeepAlive;
    use crate::registry::budget::Bytes;
    use crate::registry::residency::{ModelId, Need, Residency, Step};

    fn on(device: &str, bytes: u64) -> Bytes {
        Bytes::from([(device.to_owned(), bytes)])
    }

    fn residency(budget: &str) -> Residency {
        Residency::new(if budget.is_empty() { Default::default() } else { budget.parse().expect("a budget") })
    }

    /// Asks for a model that can come at once, and has it.
    fn load(residency: &mut Residency, id: ModelId, bytes: &Bytes, free: &Bytes) {
        let now = Instant::now();
        let ticket = residency.ask(id, KeepAlive::Forever, false).expect("the queue is not full");
        let need = Need { bytes: bytes.clone(), reduced: false };
        let Step::Survey { needed } = residency.poll(ticket, now) else { panic!("it is not there") };
        residency.surveyed(id, needed.then(|| need.clone()), free.clone());
        assert_eq!(residency.poll(ticket, now), Step::Load);
        residency.loaded(id, need, now);
        assert_eq!(residency.poll(ticket, now), Step::Ready);
    }

    #[test]
    fn what_comes_to_a_model_counts_until_it_goes() {
        let mut residency = residency("CUDA0=100B");
        load(&mut residency, 1, &on("CUDA0", 60), &on("CUDA0", 500));
        let (more, free) = (on("CUDA0", 30), on("CUDA0", 440));
        assert_eq!(residency.grow(1, &more, &free), Growth::Done);
        let refused = Growth::NoRoom { device: "CUDA0".into(), needed: 30, left: 10 };
        assert_eq!(residency.grow(1, &more, &free), refused);
        assert_eq!(residency.grow(1, &on("CPU", 1 << 40), &free), Growth::Done, "nobody limits that");
        residency.changed(1, &more, &Bytes::new());
        assert_eq!(residency.grow(1, &more, &free), Growth::Done, "what was unloaded no longer counts");
    }

    #[test]
    fn idle_models_leave_for_it_where_that_is_enough() {
        let mut residency = residency("100B");
        for id in 1..4 {
            load(&mut residency, id, &on("CPU", 30), &on("CPU", 500));
        }
        let (now, free) = (Instant::now(), on("CPU", 500));
        residency.release(2, None, now);
        let refused = Growth::NoRoom { device: "CPU".into(), needed: 50, left: 40 };
        assert_eq!(residency.grow(1, &on("CPU", 50), &free), refused);
        assert_eq!(residency.take_expired(now), [0; 0], "none leaves in vain");
        assert_eq!(residency.grow(1, &on("CPU", 40), &free), Growth::Wait);
        assert_eq!(residency.take_expired(now), [2]);
        assert_eq!(residency.grow(1, &on("CPU", 40), &free), Growth::Wait, "it is still on its way out");
        residency.left(2);
        assert_eq!(residency.grow(1, &on("CPU", 40), &free), Growth::Done);
    }

    #[test]
    fn without_a_budget_it_is_what_is_free() {
        let mut residency = residency("");
        load(&mut residency, 1, &on("CPU", 60), &on("CPU", 100));
        let refused = Growth::NoRoom { device: "CPU".into(), needed: 41, left: 40 };
        assert_eq!(residency.grow(1, &on("CPU", 41), &on("CPU", 40)), refused);
        assert_eq!(residency.grow(1, &on("CPU", 41), &on("CPU", 100)), refused, "mapped files count as free");
        assert_eq!(residency.grow(1, &on("CPU", 40), &on("CPU", 40)), Growth::Done);
    }

    #[test]
    fn a_model_may_take_what_the_others_leave_of_the_budget() {
        let mut residency = residency("CUDA0=50%,CPU=70B");
        let free: Bytes = [("CUDA0".to_owned(), 200), ("CPU".to_owned(), 500), ("CUDA1".to_owned(), 9)].into();
        load(&mut residency, 1, &[("CUDA0".to_owned(), 60), ("CPU".to_owned(), 80 - 10)].into(), &free);
        let room = residency.room(2, Some(&on("CUDA0", 140)));
        assert_eq!([room.on("CUDA0"), room.on("CPU"), room.on("CUDA1")], [Some(40), Some(0), None]);
        let own = residency.room(1, Some(&free));
        assert_eq!([own.on("CUDA0"), own.on("CPU")], [Some(100), Some(70)], "what it holds itself is no limit");
    }
}
