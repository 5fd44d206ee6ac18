//! Making room for the head of the queue.

use super::{Bytes, Failure, Model, ModelId, Place, Residency, Step};

impl Residency {
    /// The next step for the head, whose model is absent while nothing else comes.
    pub(super) fn advance(&mut self, id: ModelId) -> Step {
        let model = &self.models[&id];
        if model.capacity.is_none() {
            let alone = !self.holds_any() && self.budget.is_default();
            let needed = model.need.is_none() && !alone;
            self.model(id).place = Place::Coming;
            return Step::Survey { needed };
        }
        if let Some(failure) = self.too_large(id) {
            self.refuse(id, &failure);
            return Step::Failed(failure);
        }
        let victims = self.victims(id);
        for victim in &victims {
            let victim = self.models.get_mut(victim).filter(|victim| victim.is_idle());
            if let Some(victim) = victim {
                victim.doomed = true;
                self.news = true;
            }
        }
        let short = !self.shortage(id).is_empty();
        let going = |model: &Model| model.place == Place::Leaving || (model.doomed && (short || model.is_idle()));
        let waits = short || self.models[&id].squeezed;
        if waits && (!victims.is_empty() || self.models.values().any(going)) {
            return Step::Wait;
        }
        let model = self.model(id);
        model.place = Place::Coming;
        model.used = model.need.as_ref().map(|need| need.bytes.clone()).unwrap_or_default();
        Step::Load
    }

    fn too_large(&self, id: ModelId) -> Option<Failure> {
        let model = &self.models[&id];
        let over = |(device, needed): (&String, &u64)| {
            let budget = model.limit(&self.budget, device).filter(|_| self.budget.is_explicit(device))?;
            (*needed > budget).then(|| Failure::TooLarge { device: device.clone(), needed: *needed, budget })
        };
        model.need.as_ref()?.bytes.iter().find_map(over)
    }

    /// Bytes that are missing on each device.
    fn shortage(&self, id: ModelId) -> Bytes {
        let model = &self.models[&id];
        let Some(need) = &model.need else { return Bytes::new() };
        let short = |(device, needed): (&String, &u64)| {
            let limit = model.limit(&self.budget, device)?;
            // Drivers and other programs want their share of what nobody limited.
            let air = if self.budget.is_explicit(device) { 0 } else { needed / 32 };
            let missing = (needed + air).saturating_add(self.held(device)).saturating_sub(limit);
            (missing > 0).then(|| (device.clone(), missing))
        };
        need.bytes.iter().filter_map(short).collect()
    }

    /// The models that have to go for the head, beside those that go already: idle ones first, least recently used first.
    pub(super) fn victims(&self, head: ModelId) -> Vec<ModelId> {
        if self.models[&head].capacity.is_none() {
            return Vec::new();
        }
        let mut candidates: Vec<(&ModelId, &Model)> = self.models.iter().filter(|(_, model)| model.can_go()).collect();
        candidates.sort_by_key(|(_, model)| model.order());
        let mut short = self.shortage(head);
        let mut take = |used: &Bytes| {
            let helps = used.keys().any(|device| short.contains_key(device));
            short =
                short.iter().map(|(d, n)| (d.clone(), n.saturating_sub(used.get(d).copied().unwrap_or(0)))).collect();
            short.retain(|_, missing| *missing > 0);
            helps
        };
        for going in self.models.values().filter(|model| !model.can_go()) {
            if going.place == Place::Leaving || going.doomed {
                take(&going.used);
            }
        }
        candidates.into_iter().filter(|(_, model)| take(&model.used)).map(|(id, _)| *id).collect()
    }

    pub(super) fn holds_any(&self) -> bool {
        self.models.values().any(|model| matches!(model.place, Place::Resident { .. } | Place::Leaving))
    }

    pub(super) fn held(&self, device: &str) -> u64 {
        self.models.values().filter_map(|model| model.used.get(device)).sum()
    }
}
