//! Short lives, step by step. `lives.rs` has the long ones.

use std::time::{Duration, Instant};

use super::{Bytes, Failure, ModelId, Need, Phase, Residency, Step, Ticket};
use crate::registry::KeepAlive;
use crate::runner::LoadError;

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

/// One who wants it gone at once does not decide for those who come while it goes.
#[test]
fn a_model_that_is_loaded_anew_stays_as_long_as_its_own_setting_says() {
    let mut small = Small::new("");
    small.load(1, 400);
    small.residency.release(1, Some(KeepAlive::NOT), small.now);
    assert_eq!(small.residency.take_expired(small.now), [1]);
    let again = small.ask(1);
    assert_eq!(small.poll(again), Step::Wait, "it leaves first");
    small.residency.left(1);
    let Step::Survey { needed } = small.poll(again) else { panic!("it is not there") };
    small.residency.surveyed(1, needed.then(|| need(400)), room(1000));
    assert_eq!(small.poll(again), Step::Load);
    small.residency.loaded(1, need(400), small.now);
    assert_eq!(small.poll(again), Step::Ready);
    small.release(1);
    assert_eq!(small.residency.take_expired(small.now + Duration::from_secs(3600)), [0; 0], "it stays");
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
