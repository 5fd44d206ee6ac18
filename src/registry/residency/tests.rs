//! Random lives of a machine with models, and the rules that hold in all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::{Bytes, Failure, ModelId, Need, Phase, Residency, Step, Ticket};
use crate::registry::KeepAlive;
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
    sizes: BTreeMap<ModelId, Bytes>,
    /// On each device, all in all.
    memory: Bytes,
    /// Loading or loaded or being dropped.
    present: BTreeSet<ModelId>,
    leaving: Vec<ModelId>,
    explicit: bool,
    /// Of ten loads, how many go wrong.
    failing: u8,
    served: usize,
    refused: usize,
}

const DEVICES: [&str; 2] = ["CPU", "CUDA0"];
const ROOM: u64 = 1000;

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let explicit = rng.bool();
        let budget =
            if explicit { format!("{ROOM}").parse().expect("a budget") } else { super::MemoryBudget::default() };
        let models = rng.u64(1..6);
        let mut size = |_| {
            // Now and then one that never fits.
            let most = if rng.u8(..10) == 0 { 3 * ROOM } else { ROOM };
            let mut bytes = Bytes::new();
            for device in DEVICES {
                if rng.u8(..3) > 0 {
                    bytes.insert(device.to_owned(), rng.u64(1..=most));
                }
            }
            bytes
        };
        let sizes = (0..models).map(|id| (id, size(id))).collect();
        let failing = rng.u8(..3);
        Self {
            now: Instant::now(),
            residency: Residency::new(budget),
            askers: Vec::new(),
            sizes,
            memory: DEVICES.iter().map(|device| ((*device).to_owned(), ROOM)).collect(),
            present: BTreeSet::new(),
            leaving: Vec::new(),
            explicit,
            failing,
            served: 0,
            refused: 0,
            rng,
        }
    }

    fn free(&self) -> Bytes {
        let held = |device: &String| self.present.iter().filter_map(|id| self.sizes[id].get(device)).sum::<u64>();
        self.memory.iter().map(|(device, all)| (device.clone(), all.saturating_sub(held(device)))).collect()
    }

    fn fits_alone(&self, id: ModelId) -> bool {
        self.sizes[&id].values().all(|size| *size <= ROOM)
    }

    fn ask(&mut self) {
        let id = self.rng.u64(..self.sizes.len() as u64);
        let keep = match self.rng.u8(..4) {
            0 => KeepAlive::NOT,
            1 => KeepAlive::For(Duration::from_secs(self.rng.u64(1..20))),
            _ => KeepAlive::Forever,
        };
        if let Some(ticket) = self.residency.ask(id, keep, false) {
            self.askers.push(Asker::Waits { ticket, id });
        }
    }

    /// Lets one of the askers do its next thing.
    fn act(&mut self, index: usize) {
        let asker = self.askers.swap_remove(index);
        let next = match asker {
            Asker::Waits { ticket, id } => self.poll(ticket, id),
            Asker::Surveys { ticket, id, needed } => {
                let need = || Need { bytes: self.sizes[&id].clone(), reduced: false };
                self.residency.surveyed(id, needed.then(need), self.free());
                Some(Asker::Waits { ticket, id })
            }
            Asker::Loads { ticket, id } => {
                if self.rng.u8(..10) < self.failing || (!self.explicit && !self.fits_alone(id)) {
                    let words = ["no such file", "out of memory"][self.rng.usize(..2)];
                    self.present.remove(&id);
                    self.residency.failed(id, LoadError::Failed(words.into()));
                } else {
                    let used = Need { bytes: self.sizes[&id].clone(), reduced: false };
                    self.residency.loaded(id, used, self.now);
                }
                Some(Asker::Waits { ticket, id })
            }
            Asker::Uses { id } => {
                let keep = (self.rng.u8(..4) == 0).then_some(KeepAlive::NOT);
                self.residency.release(id, keep, self.now);
                None
            }
        };
        self.askers.extend(next);
    }

    fn poll(&mut self, ticket: Ticket, id: ModelId) -> Option<Asker> {
        match self.residency.poll(ticket, self.now) {
            Step::Ready => {
                assert!(self.present.contains(&id), "lent a model that is not there");
                assert!(!self.leaving.contains(&id), "lent a model that is being dropped");
                self.served += 1;
                Some(Asker::Uses { id })
            }
            Step::Survey { needed } => Some(Asker::Surveys { ticket, id, needed }),
            Step::Load => {
                assert!(self.present.insert(id), "loaded twice");
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
            let held: u64 = self.present.iter().filter_map(|id| self.sizes[id].get(device)).sum();
            // Without a budget, what alone is too large is tried alone.
            assert!(
                held <= ROOM || (!self.explicit && self.present.len() == 1) || self.tries_too_large(device),
                "{held}"
            );
        }
    }

    fn tries_too_large(&self, device: &str) -> bool {
        let holders = self.present.iter().filter(|id| self.sizes[id].contains_key(device));
        !self.explicit && holders.count() == 1
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
                self.residency.unload(self.rng.u64(..self.sizes.len() as u64));
            }
            7 if self.rng.u8(..5) == 0 => self.leave(),
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
            if self.askers.is_empty() {
                return round;
            }
            assert!(round < 10_000, "a deadlock: {:?}\n{:?}", self.askers, self.residency);
            for index in (0..self.askers.len()).rev() {
                self.act(index);
            }
            self.janitor();
            while !self.leaving.is_empty() {
                self.drop_one();
            }
        }
        unreachable!("rounds are counted without end")
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
    let (mut served, mut refused) = (0, 0);
    for seed in seeds.clone() {
        let life = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..400 {
                world.step();
            }
            world.finish();
            (world.served, world.refused)
        });
        let (some, none) = life.unwrap_or_else(|_| panic!("SHIMMY_SEED={seed} repeats this"));
        served += some;
        refused += none;
    }
    assert!(seeds.end == seeds.start + 1 || (served > 50_000 && refused > 500), "{served} served, {refused} refused");
}

struct Small {
    residency: Residency,
    now: Instant,
}

fn need(bytes: u64) -> Need {
    Need { bytes: [("CPU".to_owned(), bytes)].into(), reduced: false }
}

fn room(free: u64) -> Bytes {
    [("CPU".to_owned(), free)].into()
}

impl Small {
    fn new(budget: &str) -> Self {
        let budget = if budget.is_empty() { super::MemoryBudget::default() } else { budget.parse().expect("a budget") };
        Self { residency: Residency::new(budget), now: Instant::now() }
    }

    fn ask(&mut self, id: ModelId) -> Ticket {
        self.residency.ask(id, KeepAlive::Forever, false).expect("the queue is not full")
    }

    fn poll(&mut self, ticket: Ticket) -> Step {
        self.now += Duration::from_secs(1);
        self.residency.poll(ticket, self.now)
    }

    /// Asks for a model that can come at once, and has it.
    fn load(&mut self, id: ModelId, bytes: u64) {
        let ticket = self.ask(id);
        let Step::Survey { needed } = self.poll(ticket) else { panic!("it is not there") };
        self.residency.surveyed(id, needed.then(|| need(bytes)), room(1000));
        assert_eq!(self.poll(ticket), Step::Load);
        self.residency.loaded(id, need(bytes), self.now);
        assert_eq!(self.poll(ticket), Step::Ready);
    }

    fn release(&mut self, id: ModelId) {
        self.now += Duration::from_secs(1);
        self.residency.release(id, None, self.now);
    }
}

#[test]
fn the_first_model_is_not_planned_and_the_least_recently_used_goes() {
    let mut small = Small::new("");
    let first = small.ask(1);
    assert_eq!(small.poll(first), Step::Survey { needed: false }, "there is nothing to make room for");
    small.residency.surveyed(1, None, room(1000));
    assert_eq!(small.poll(first), Step::Load);
    small.residency.loaded(1, need(400), small.now);
    assert_eq!(small.poll(first), Step::Ready);
    small.load(2, 400);
    small.release(2);
    small.release(1);
    let third = small.ask(3);
    assert_eq!(small.poll(third), Step::Survey { needed: true });
    small.residency.surveyed(3, Some(need(400)), room(200));
    assert_eq!(small.poll(third), Step::Wait);
    assert_eq!(small.residency.take_expired(small.now), [2], "1 was used later");
    small.residency.left(2);
    assert_eq!(small.poll(third), Step::Survey { needed: false }, "memory is looked at anew");
    small.residency.surveyed(3, None, room(600));
    assert_eq!(small.poll(third), Step::Load);
}

#[test]
fn a_busy_model_comes_to_rest_when_its_room_is_needed() {
    let mut small = Small::new("1000B");
    small.load(1, 600);
    let other = small.ask(2);
    assert_eq!(small.poll(other), Step::Survey { needed: true });
    small.residency.surveyed(2, Some(need(600)), room(400));
    assert_eq!(small.poll(other), Step::Wait);
    let late = small.ask(1);
    assert_eq!(small.poll(late), Step::Wait, "it asked after the one who waits for its room");
    assert_eq!(small.residency.take_expired(small.now), [0; 0], "it is busy");
    assert_eq!(small.residency.phase(1), Phase::Loaded { leases: 1, expires: None });
    small.release(1);
    assert_eq!(small.poll(other), Step::Wait);
    assert_eq!(small.residency.take_expired(small.now), [1]);
    small.residency.left(1);
    assert_eq!(small.residency.phase(1), Phase::Queued);
    small.residency.withdraw(other, small.now);
    assert_eq!(small.poll(late), Step::Survey { needed: false }, "what it takes is known from its first time");
}

#[test]
fn a_full_queue_keeps_nobody_from_a_model_that_is_there() {
    let mut small = Small::new("");
    small.load(1, 100);
    let mut full = false;
    for _ in 0..=super::MOST_ASKS {
        full = small.residency.ask(2, KeepAlive::Forever, false).is_none();
    }
    assert!(full);
    let ticket = small.ask(1);
    assert_eq!(small.poll(ticket), Step::Ready);
    assert!(small.residency.lend_loaded(1, small.now) && !small.residency.lend_loaded(2, small.now));
}

#[test]
fn a_model_that_the_budget_never_holds_is_refused_with_numbers() {
    let mut small = Small::new("CPU=1000B");
    let (one, two) = (small.ask(1), small.ask(1));
    assert_eq!(small.poll(one), Step::Survey { needed: true });
    small.residency.surveyed(1, Some(need(1001)), room(5000));
    let refusal = Step::Failed(Failure::TooLarge { device: "CPU".into(), needed: 1001, budget: 1000 });
    assert_eq!(small.poll(two), refusal);
    assert_eq!(small.poll(one), refusal);
    assert_eq!(small.residency.phase(1), Phase::Unloaded);
}

#[test]
fn a_load_that_runs_out_of_memory_is_tried_again_without_an_idle_model() {
    let mut small = Small::new("");
    small.load(1, 100);
    small.release(1);
    let ticket = small.ask(2);
    small.poll(ticket);
    small.residency.surveyed(2, Some(need(100)), room(900));
    assert_eq!(small.poll(ticket), Step::Load);
    small.residency.failed(2, LoadError::Failed("out of memory".into()));
    assert_eq!(small.poll(ticket), Step::Survey { needed: true });
    small.residency.surveyed(2, Some(need(100)), room(900));
    assert_eq!(small.poll(ticket), Step::Wait);
    assert_eq!(small.residency.take_expired(small.now), [1]);
    small.residency.left(1);
    assert!(matches!(small.poll(ticket), Step::Survey { .. }));
    small.residency.surveyed(2, Some(need(100)), room(1000));
    assert_eq!(small.poll(ticket), Step::Load);
    let error = LoadError::Failed("out of memory".into());
    small.residency.failed(2, error.clone());
    assert_eq!(small.poll(ticket), Step::Failed(Failure::Load(error)), "nobody is left to go");
}

#[test]
fn less_on_the_gpu_for_want_of_room_lets_an_idle_model_go_first() {
    let gpu = |bytes: u64, reduced| Need { bytes: [("CUDA0".to_owned(), bytes)].into(), reduced };
    let free = |bytes: u64| -> Bytes { [("CUDA0".to_owned(), bytes)].into() };
    let mut small = Small::new("");
    let first = small.ask(1);
    small.poll(first);
    small.residency.surveyed(1, None, free(1000));
    small.poll(first);
    small.residency.loaded(1, gpu(700, false), small.now);
    small.poll(first);
    small.release(1);
    let second = small.ask(2);
    small.poll(second);
    small.residency.surveyed(2, Some(gpu(300, true)), free(300));
    assert_eq!(small.poll(second), Step::Wait);
    assert_eq!(small.residency.take_expired(small.now), [1]);
    small.residency.left(1);
    assert_eq!(small.poll(second), Step::Survey { needed: false }, "alone it takes what it wishes");
    small.residency.surveyed(2, None, free(1000));
    assert_eq!(small.poll(second), Step::Load);
}

#[test]
fn a_model_leaves_when_its_time_is_over() {
    let mut small = Small::new("");
    small.load(1, 100);
    small.residency.release(1, Some(KeepAlive::For(Duration::from_secs(60))), small.now);
    let leaves = small.now + Duration::from_secs(60);
    assert_eq!(small.residency.next_expiry(), Some(leaves));
    assert_eq!(small.residency.take_expired(leaves - Duration::from_secs(1)), [0; 0]);
    assert_eq!(small.residency.take_expired(leaves), [1]);
    small.residency.left(1);
    small.load(2, 100);
    small.residency.release(2, Some(KeepAlive::NOT), small.now);
    assert_eq!(small.residency.take_expired(small.now), [2]);
}

#[test]
fn an_unloaded_model_is_lent_to_nobody_and_a_retired_one_is_forgotten() {
    let mut small = Small::new("");
    small.load(1, 100);
    assert!(small.residency.unload(1) && !small.residency.unload(2));
    assert_eq!(small.residency.phase(1), Phase::Unloading);
    let ticket = small.ask(1);
    assert_eq!(small.poll(ticket), Step::Wait);
    small.release(1);
    assert_eq!(small.residency.take_expired(small.now), [1]);
    small.residency.left(1);
    assert!(matches!(small.poll(ticket), Step::Survey { .. }), "then it comes again");
    small.residency.surveyed(1, None, room(1000));
    small.poll(ticket);
    small.residency.retire(1);
    small.residency.loaded(1, need(1), small.now);
    assert_eq!(small.poll(ticket), Step::Ready, "whoever asked before gets it");
    small.release(1);
    assert_eq!(small.residency.take_expired(small.now), [1]);
    small.residency.left(1);
    assert!(small.residency.models.is_empty());
}
