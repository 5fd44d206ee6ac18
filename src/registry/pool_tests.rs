//! Real threads ask a pool for models that load nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::budget::{Bytes, MemoryBudget};
use super::keep_alive::KeepAlive;
use super::loader::Loader;
use super::pool::{Cancel, NotLent, Pool, Wanted};
use super::residency::{Growth, Need, Phase};
use super::testing::stub as spec;
use crate::placement::Limit;
use crate::runner::{GenerateDefaults, LoadError, LoadSpec, Progress, Runner, StubRunner, StubSpeed};

static NEVER: AtomicBool = AtomicBool::new(false);

/// Loads stubs, and keeps book of them. Most hold 100 bytes.
#[derive(Debug, Default)]
struct Machine {
    loads: AtomicUsize,
    /// The models that are there, by label.
    present: Mutex<BTreeMap<String, std::sync::Weak<dyn Runner>>>,
    /// A load goes on until it is told to stop.
    endless: bool,
    /// The next look finds nothing free.
    full: AtomicBool,
}

#[derive(Debug, Clone)]
struct Shared(Arc<Machine>);

/// A hundred bytes, or for `auto` as many as it may take of 150.
fn take(spec: &LoadSpec, limit: Limit<'_>) -> Need {
    let (wished, most) = if spec.label == "auto" { (150, limit("CPU").unwrap_or(u64::MAX)) } else { (100, 100) };
    Need { bytes: Bytes::from([("CPU".to_owned(), wished.min(most))]), reduced: most < wished }
}

impl Loader for Shared {
    fn need(&self, spec: &LoadSpec, limit: Limit<'_>) -> Result<Need, LoadError> {
        Ok(take(spec, limit))
    }

    fn free(&self) -> Bytes {
        let free = if self.0.full.swap(false, Ordering::Relaxed) { 0 } else { 1000 };
        Bytes::from([("CPU".to_owned(), free)])
    }

    fn load(
        &self,
        spec: &LoadSpec,
        limit: Limit<'_>,
        progress: Progress<'_>,
    ) -> Result<(Arc<dyn Runner>, Need), LoadError> {
        match spec.label.as_str() {
            "broken" => return Err(LoadError::Failed("it is broken".into())),
            "panics" => panic!("this load panics on purpose"),
            _ => {}
        }
        self.0.loads.fetch_add(1, Ordering::Relaxed);
        loop {
            std::thread::sleep(Duration::from_millis(1));
            if !progress(0.5) {
                return Err(LoadError::Cancelled);
            }
            if !self.0.endless {
                break;
            }
        }
        let runner: Arc<dyn Runner> = Arc::new(StubRunner::new(StubSpeed::Fast, GenerateDefaults::default())?);
        let mut present = self.0.present.lock().expect("no test panics in here");
        present.retain(|_, runner| runner.strong_count() > 0);
        assert!(present.len() < 2, "three models in a budget for two");
        let old = present.insert(spec.label.clone(), Arc::downgrade(&runner));
        assert!(old.is_none(), "loaded twice");
        Ok((runner, take(spec, limit)))
    }
}

fn wanted<'a>(id: u64, spec: &'a LoadSpec) -> Wanted<'a> {
    Wanted { id, name: &spec.label, spec, keep_alive: KeepAlive::Forever, retired: &NEVER }
}

fn pool(machine: &Arc<Machine>) -> Pool {
    Pool::new(Box::new(Shared(Arc::clone(machine))), "200B".parse().expect("a budget"))
}

#[test]
fn many_threads_share_room_for_two_of_five_models() {
    let machine = Arc::new(Machine::default());
    let pool = pool(&machine);
    let specs: Vec<LoadSpec> = (0..5).map(|id| spec(&format!("m{id}"))).collect();
    std::thread::scope(|scope| {
        for seed in 0..16 {
            let (pool, specs) = (&pool, &specs);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                for _ in 0..40 {
                    let id = rng.u64(..5);
                    let wanted = wanted(id, &specs[usize::try_from(id).expect("small")]);
                    let mut lease = pool.acquire(wanted, &Cancel::default(), &mut |_| true).expect("it loads");
                    assert_eq!(lease.name(), wanted.name);
                    assert_eq!(lease.runner().info().description, "stub");
                    lease.keep_alive((rng.u8(..5) == 0).then_some(KeepAlive::NOT));
                    std::thread::sleep(Duration::from_micros(rng.u64(..500)));
                }
            });
        }
    });
    assert!(machine.loads.load(Ordering::Relaxed) >= 5);
}

#[test]
fn it_is_loaded_once_however_many_ask() {
    let machine = Arc::new(Machine::default());
    let pool = pool(&machine);
    let spec = spec("m");
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                pool.acquire(wanted(0, &spec), &Cancel::default(), &mut |_| true).map(drop).expect("it loads")
            });
        }
    });
    assert_eq!(machine.loads.load(Ordering::Relaxed), 1);
}

#[test]
fn whoever_gives_up_ends_the_load_unless_another_one_wants_it() {
    let machine = Arc::new(Machine { endless: true, ..Machine::default() });
    let pool = pool(&machine);
    let (spec, first, second) = (spec("m"), Cancel::default(), Cancel::default());
    let loading = || {
        while pool.status(0).0 != Phase::Loading || machine.loads.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
    };
    let ask = |cancel| pool.acquire(wanted(0, &spec), cancel, &mut |_| true).map(drop);
    std::thread::scope(|scope| {
        let one = scope.spawn(|| ask(&first));
        loading();
        let two = scope.spawn(|| ask(&second));
        while pool.waiting(0) < 2 {
            std::thread::yield_now();
        }
        pool.cancel(&first);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(pool.status(0).0, Phase::Loading, "the other one still wants it");
        pool.cancel(&second);
        assert_eq!(one.join().expect("no panic"), Err(NotLent::Cancelled));
        assert_eq!(two.join().expect("no panic"), Err(NotLent::Cancelled));
    });
    assert_eq!(pool.status(0).0, Phase::Unloaded);
    assert_eq!(machine.loads.load(Ordering::Relaxed), 1);
}

#[test]
fn a_load_that_fails_or_panics_is_an_error_for_all_and_can_be_tried_again() {
    let machine = Arc::new(Machine::default());
    let pool = pool(&machine);
    for (id, label, words) in [(0, "broken", "it is broken"), (1, "panics", "loading panicked")] {
        let spec = spec(label);
        for _ in 0..2 {
            let error =
                pool.acquire(wanted(id, &spec), &Cancel::default(), &mut |_| true).map(drop).expect_err("no model");
            assert!(format!("{error:?}").contains(words), "{error:?}");
        }
        assert!(pool.status(id).2.expect("it is kept").contains(words));
    }
}

#[test]
fn closing_ends_all_waiting() {
    let machine = Arc::new(Machine::default());
    let pool = pool(&machine);
    let specs = ["a", "b", "c"].map(spec);
    let ask = |id: usize| pool.acquire(wanted(id as u64, &specs[id]), &Cancel::default(), &mut |_| true);
    let held = [ask(0).expect("room"), ask(1).expect("room")];
    std::thread::scope(|scope| {
        let third = scope.spawn(|| ask(2).map(drop));
        while pool.waiting(2) == 0 {
            std::thread::yield_now();
        }
        pool.close();
        assert_eq!(third.join().expect("no panic"), Err(NotLent::Cancelled));
    });
    drop(held);
    assert_eq!(ask(0).map(drop), Err(NotLent::Cancelled));
}

#[test]
fn a_model_leaves_by_itself_when_its_time_is_over() {
    let machine = Arc::new(Machine::default());
    let pool = pool(&machine);
    let spec = spec("m");
    let mut lease = pool.acquire(wanted(0, &spec), &Cancel::default(), &mut |_| true).expect("room");
    lease.keep_alive(Some(KeepAlive::For(Duration::from_millis(30))));
    drop(lease);
    assert!(matches!(pool.status(0).0, Phase::Loaded { leases: 0, expires: Some(_) } | Phase::Unloading));
    while pool.status(0).0 != Phase::Unloaded {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(machine.present.lock().expect("no panic")["m"].strong_count(), 0);
}

#[test]
fn what_chooses_its_own_size_takes_what_the_others_leave_of_the_budget() {
    let machine = Arc::new(Machine::default());
    let pool = pool(&machine);
    let specs = ["busy", "auto"].map(spec);
    let ask = |id: usize| pool.acquire(wanted(id as u64, &specs[id]), &Cancel::default(), &mut |_| true).expect("room");
    let first = ask(0);
    let second = ask(1);
    let full = pool.grow(&second, &Bytes::from([("CPU".to_owned(), 1)])).expect_err("the budget is used up");
    assert_eq!(full, Growth::NoRoom { device: "CPU".into(), needed: 1, left: 0 });
    drop((first, second));
    assert!(pool.unload(0) && pool.unload(1));
    let alone = ask(1);
    let left = pool.grow(&alone, &Bytes::from([("CPU".to_owned(), 51)])).expect_err("150 of 200 are its own");
    assert_eq!(left, Growth::NoRoom { device: "CPU".into(), needed: 51, left: 50 });
}

#[test]
fn memory_that_was_freed_meanwhile_is_looked_at_again_before_growth_is_refused() {
    let machine = Arc::new(Machine::default());
    let pool = Pool::new(Box::new(Shared(Arc::clone(&machine))), MemoryBudget::default());
    let spec = spec("m");
    let lease = pool.acquire(wanted(0, &spec), &Cancel::default(), &mut |_| true).expect("room");
    machine.full.store(true, Ordering::Relaxed);
    assert_eq!(pool.grow(&lease, &Bytes::from([("CPU".to_owned(), 500)])), Ok(()));
    assert!(!machine.full.load(Ordering::Relaxed), "the first look was the wrong one");
    let more = pool.grow(&lease, &Bytes::from([("CPU".to_owned(), 5000)]));
    assert!(matches!(more, Err(Growth::NoRoom { .. })), "{more:?}");
}
