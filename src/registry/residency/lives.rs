//! Random lives of a machine with models, and the rules that hold in all of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::{Bytes, Failure, Growth, ModelId, Need, Residency, Step, Ticket};
use crate::registry::KeepAlive;
use crate::registry::budget::add;
use crate::runner::LoadError;

/// One who asks for a model, uses it for a while and gives it back.
#[derive(Debug)]
enum Asker {
    Waits { ticket: Ticket, id: ModelId },
    Surveys { ticket: Ticket, id: ModelId, needed: bool },
    Loads { ticket: Ticket, id: ModelId },
    Uses { id: ModelId },
}

/// What is true, apart from what the residency thinks.
struct World {
    rng: Rng,
    now: Instant,
    residency: Residency,
    askers: Vec<Asker>,
    models: BTreeMap<ModelId, Size>,
    /// The models that can be named. Others took the places of those before them.
    named: Vec<ModelId>,
    /// On each device, all in all.
    memory: Bytes,
    /// Loading or loaded or being dropped, with what it holds.
    present: BTreeMap<ModelId, Bytes>,
    leaving: Vec<ModelId>,
    explicit: bool,
    /// Of ten loads, how many go wrong.
    failing: u8,
    served: usize,
    refused: usize,
    reduced: usize,
    grown: usize,
}

/// What a model takes.
#[derive(Clone, Debug)]
struct Size {
    bytes: Bytes,
    /// Of the GPU it takes what it may, up to this.
    auto: bool,
}

const DEVICES: [&str; 2] = ["CPU", GPU];
const GPU: &str = "CUDA0";
const ROOM: u64 = 1000;

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let explicit = rng.bool();
        let budget =
            if explicit { format!("{ROOM}").parse().expect("a budget") } else { super::MemoryBudget::default() };
        let named: Vec<ModelId> = (0..rng.u64(1..6)).collect();
        let models = named.iter().map(|id| (*id, Size::random(&mut rng))).collect();
        let failing = rng.u8(..3);
        Self {
            now: Instant::now(),
            residency: Residency::new(budget),
            askers: Vec::new(),
            models,
            named,
            memory: DEVICES.iter().map(|device| ((*device).to_owned(), ROOM)).collect(),
            present: BTreeMap::new(),
            leaving: Vec::new(),
            explicit,
            failing,
            served: 0,
            refused: 0,
            reduced: 0,
            grown: 0,
            rng,
        }
    }

    fn held(&self, device: &str) -> u64 {
        self.present.values().filter_map(|held| held.get(device)).sum()
    }

    fn free(&self) -> Bytes {
        let left = |(device, all): (&String, &u64)| (device.clone(), all.saturating_sub(self.held(device)));
        self.memory.iter().map(left).collect()
    }

    fn fits_alone(&self, id: ModelId) -> bool {
        let size = &self.models[&id];
        size.bytes.iter().all(|(device, bytes)| *bytes <= ROOM || (size.auto && device == GPU))
    }

    /// What loading the model would take at this moment. `free` is looked at during its survey.
    fn need(&self, id: ModelId, free: Option<&Bytes>) -> Need {
        let size = &self.models[&id];
        let (mut bytes, mut reduced) = (size.bytes.clone(), false);
        if let Some(taken) = bytes.get_mut(GPU).filter(|_| size.auto) {
            let room = self.residency.room(id, free).on(GPU);
            // As placement does, with some air where nobody limits it.
            let most = room.unwrap_or_else(|| self.free()[GPU] * 32 / 33);
            reduced = most < *taken;
            *taken = most.min(*taken);
        }
        Need { bytes, reduced }
    }

    fn ask(&mut self) {
        // Now and then somebody who looked it up before another one took its place.
        let id = if self.rng.u8(..10) == 0 {
            self.rng.u64(..self.models.len() as u64)
        } else {
            self.named[self.rng.usize(..self.named.len())]
        };
        let keep = match self.rng.u8(..4) {
            0 => KeepAlive::NOT,
            1 => KeepAlive::For(Duration::from_secs(self.rng.u64(1..20))),
            _ => KeepAlive::Forever,
        };
        if let Some(ticket) = self.residency.ask(id, keep, !self.named.contains(&id)) {
            self.askers.push(Asker::Waits { ticket, id });
        }
    }

    /// A model with other settings takes a model's place.
    fn replace(&mut self) {
        let place = self.rng.usize(..self.named.len());
        self.residency.retire(self.named[place]);
        self.named[place] = self.models.len() as u64;
        self.models.insert(self.named[place], Size::random(&mut self.rng));
    }

    /// Lets one of the askers do its next thing.
    fn act(&mut self, index: usize) {
        let asker = self.askers.swap_remove(index);
        let next = match asker {
            Asker::Waits { ticket, id } => self.poll(ticket, id),
            Asker::Surveys { ticket, id, needed } => {
                let free = self.free();
                let need = needed.then(|| self.need(id, Some(&free)));
                self.reduced += usize::from(need.as_ref().is_some_and(|need| need.reduced));
                self.residency.surveyed(id, need, free);
                Some(Asker::Waits { ticket, id })
            }
            Asker::Loads { ticket, id } => {
                if self.rng.u8(..10) < self.failing || (!self.explicit && !self.fits_alone(id)) {
                    let words = ["no such file", "out of memory"][self.rng.usize(..2)];
                    self.present.remove(&id);
                    self.residency.failed(id, LoadError::Failed(words.into()));
                } else {
                    let bytes = self.present[&id].clone();
                    let reduced = bytes != self.models[&id].bytes;
                    self.residency.loaded(id, Need { bytes, reduced }, self.now);
                }
                Some(Asker::Waits { ticket, id })
            }
            Asker::Uses { id } if self.rng.u8(..4) == 0 => {
                self.grow(id);
                Some(Asker::Uses { id })
            }
            Asker::Uses { id } => {
                let keep = (self.rng.u8(..4) == 0).then_some(KeepAlive::NOT);
                self.residency.release(id, keep, self.now);
                None
            }
        };
        self.askers.extend(next);
    }

    /// An adapter comes to a model that is in use.
    fn grow(&mut self, id: ModelId) {
        let more = Bytes::from([(DEVICES[self.rng.usize(..2)].to_owned(), self.rng.u64(1..ROOM / 4))]);
        match self.residency.grow(id, &more, &self.free()) {
            Growth::Done => {
                add(self.present.get_mut(&id).expect("it is in use"), &more);
                self.grown += 1;
                self.check_budget();
            }
            Growth::NoRoom { device, needed, left } => assert!(needed > left && more[&device] == needed),
            Growth::Wait => {}
        }
    }

    fn poll(&mut self, ticket: Ticket, id: ModelId) -> Option<Asker> {
        match self.residency.poll(ticket, self.now) {
            Step::Ready => {
                assert!(self.present.contains_key(&id), "lent a model that is not there");
                assert!(!self.leaving.contains(&id), "lent a model that is being dropped");
                self.served += 1;
                Some(Asker::Uses { id })
            }
            Step::Survey { needed } => Some(Asker::Surveys { ticket, id, needed }),
            Step::Load => {
                let taken = self.need(id, None).bytes;
                assert!(self.present.insert(id, taken).is_none(), "loaded twice");
                self.check_budget();
                Some(Asker::Loads { ticket, id })
            }
            Step::Wait => Some(Asker::Waits { ticket, id }),
            Step::Failed(failure) => {
                if let Failure::TooLarge { needed, budget, .. } = failure {
                    assert!(self.explicit && needed > budget && !self.fits_alone(id), "refused what fits");
                }
                self.refused += 1;
                None
            }
        }
    }

    fn check_budget(&self) {
        for device in DEVICES {
            // Without a budget, what alone is too large is tried alone.
            let holders = self.present.values().filter(|held| held.contains_key(device)).count();
            let tried = !self.explicit && (holders == 1 || self.present.len() == 1);
            assert!(self.held(device) <= ROOM || tried, "{} on {device}", self.held(device));
        }
    }

    fn janitor(&mut self) {
        for id in self.residency.take_expired(self.now) {
            let used = self.askers.iter().any(|asker| matches!(asker, Asker::Uses { id: used } if *used == id));
            assert!(!used, "a busy model is dropped");
            self.leaving.push(id);
        }
    }

    fn drop_one(&mut self) {
        if !self.leaving.is_empty() {
            let id = self.leaving.swap_remove(self.rng.usize(..self.leaving.len()));
            self.present.remove(&id);
            self.residency.left(id);
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.u64(..2000));
        match self.rng.u8(..20) {
            0..3 => self.ask(),
            3 => self.janitor(),
            4..6 => self.drop_one(),
            6 if self.rng.u8(..5) == 0 => {
                self.residency.unload(self.rng.u64(..self.models.len() as u64));
            }
            7 if self.rng.u8(..5) == 0 => self.leave(),
            8 if self.rng.u8(..10) == 0 => self.replace(),
            _ if !self.askers.is_empty() => {
                let index = self.rng.usize(..self.askers.len());
                self.act(index);
            }
            _ => {}
        }
    }

    /// One of those who wait gives up.
    fn leave(&mut self) {
        let waiting = |asker: &Asker| matches!(asker, Asker::Waits { .. });
        if let Some(index) = self.askers.iter().position(waiting)
            && let Asker::Waits { ticket, .. } = self.askers.swap_remove(index)
        {
            self.residency.withdraw(ticket, self.now);
        }
    }

    /// Nobody new comes; everybody does what there is to do. Returns after how many rounds all were served.
    fn finish(&mut self) -> usize {
        for round in 0.. {
            self.janitor();
            while !self.leaving.is_empty() {
                self.drop_one();
            }
            if self.askers.is_empty() {
                return round;
            }
            assert!(round < 10_000, "a deadlock: {:?}\n{:?}", self.askers, self.residency);
            for index in (0..self.askers.len()).rev() {
                self.act(index);
            }
        }
        unreachable!("rounds are counted without end")
    }
}

impl Size {
    fn random(rng: &mut Rng) -> Self {
        // Now and then one that never fits.
        let most = if rng.u8(..10) == 0 { 3 * ROOM } else { ROOM };
        let mut bytes = Bytes::new();
        for device in DEVICES {
            if rng.u8(..3) > 0 {
                bytes.insert(device.to_owned(), rng.u64(1..=most));
            }
        }
        Self { bytes, auto: rng.u8(..3) == 0 }
    }
}

#[test]
fn random_lives_keep_the_rules() {
    let seeds = match std::env::var("SHIMMY_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("SHIMMY_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..4000,
    };
    let mut counts = [0; 5];
    for seed in seeds.clone() {
        let life = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..400 {
                world.step();
            }
            world.finish();
            let known = |id| world.named.contains(id);
            assert!(world.residency.models.keys().all(known), "a retired one is remembered: {:?}", world.residency);
            let retired = world.models.len() - world.named.len();
            [world.served, world.refused, world.reduced, world.grown, retired]
        });
        let some = life.unwrap_or_else(|_| panic!("SHIMMY_SEED={seed} repeats this"));
        counts.iter_mut().zip(some).for_each(|(sum, n)| *sum += n);
    }
    let enough = counts.iter().zip([50_000, 500, 1000, 1000, 1000]).all(|(n, least)| *n > least);
    assert!(enough || seeds.end == seeds.start + 1, "served, refused, reduced, grown, retired: {counts:?}");
}
