//! Adapters on the simulated machine.

use std::sync::Arc;

use super::{Endless, Pool, World, image, machine, prompt};
use crate::engine::adapters::AdapterSet;
use crate::engine::command::Command;
use crate::engine::forward::TokenId;
use crate::engine::scheduler::Priority;
use crate::engine::simulation::Simulation;

#[test]
fn nothing_is_shared_across_adapters_and_all_within_them() {
    let mut world = World::new(machine(), 8, false, 0);
    let (_, adapter) = Pool::load(1);
    let sets = [AdapterSet::default(), AdapterSet::new([(adapter.clone(), 1.0)]), AdapterSet::new([(adapter, 0.5)])];
    for (round, computed) in [(0, 202), (1, 1)] {
        for set in &sets {
            let before = world.engine.prompt_clock;
            world.arrive_with(set, prompt(51), 4, Priority::Normal);
            world.finish_keeping();
            assert_eq!(world.engine.prompt_clock - before, computed, "round {round}, {set:?}");
        }
    }
    world.finish(1000);
}

#[test]
fn a_stream_goes_on_each_round_whoever_comes_with_other_adapters() {
    let mut world = World::new(machine(), 8, false, 0);
    let [first, second] = [1, 2].map(|number| AdapterSet::new([(Pool::load(number).1, 1.0)]));
    world.engine.forward = Simulation::new(Arc::new(Endless), machine());
    world.arrive_with(&first, vec![50, 7, 9], 400, Priority::Normal);
    world.arrive_with(&second, vec![50, 7, 9], 400, Priority::Normal);
    for _ in 0..10 {
        world.step();
    }
    for round in 0..30 {
        let before: Vec<usize> = world.clients[..2].iter().map(|client| client.text.len()).collect();
        // Each comes with a set of its own, and is urgent.
        let set = AdapterSet::new([(Pool::load(100 + round).1, 1.0)]);
        world.arrive_with(&set, prompt(60), 1, Priority::Interactive);
        for _ in 0..3 {
            world.step();
        }
        for (client, before) in world.clients.iter().zip(before) {
            assert!(client.text.len() > before, "a stream stood still in round {round}");
        }
    }
    world.finish_keeping();
}

/// Each set has its turn, and in it a stream one between two images.
#[test]
fn a_stream_goes_on_between_images_whatever_other_adapters_do() {
    let mut world = World::new(machine(), 8, false, 0);
    let [first, second] = [1, 2].map(|number| AdapterSet::new([(Pool::load(number).1, 1.0)]));
    world.engine.forward = Simulation::new(Arc::new(Endless), machine());
    for set in [&first, &second] {
        world.arrive_with(set, vec![50, 7, 9], 400, Priority::Normal);
    }
    for _ in 0..6 {
        world.step();
    }
    world.images = (0..6).map(|_| image(40, true, &machine())).collect();
    let prompt: Vec<TokenId> = world.images.iter().flat_map(|image| image.tokens()).chain([3]).collect();
    world.arrive_with(&first, prompt, 4, Priority::Normal);
    while world.clients[2].end.is_none() {
        let before: Vec<usize> = world.clients[..2].iter().map(|client| client.text.len()).collect();
        for _ in 0..4 {
            world.step();
        }
        for (client, before) in world.clients.iter().zip(before) {
            assert!(client.text.len() > before, "a stream stood still for four passes");
        }
    }
    world.finish_keeping();
}

#[test]
fn an_unloaded_adapter_goes_with_its_last_sequence() {
    let mut world = World::new(machine(), 8, false, 0);
    let (weights, adapter) = Pool::load(7);
    let set = AdapterSet::new([(adapter.clone(), 1.0)]);
    world.arrive_with(&set, prompt(51), 3, Priority::Normal);
    world.finish_keeping();
    world.arrive_with(&set, prompt(51), 30, Priority::Normal);
    world.step();
    adapter.set_unloaded();
    world.engine.take(Command::Unloaded(adapter.id()));
    drop((adapter, set));
    world.step();
    assert!(Arc::strong_count(&weights) > 1, "somebody is computed with it");
    world.finish(1000);
    world.clients.clear();
    assert_eq!(Arc::strong_count(&weights), 1);
}

#[test]
fn a_request_that_comes_after_its_adapter_was_unloaded_keeps_nothing_of_it() {
    let mut world = World::new(machine(), 8, false, 0);
    let (weights, adapter) = Pool::load(7);
    let set = AdapterSet::new([(adapter.clone(), 1.0)]);
    adapter.set_unloaded();
    world.engine.take(Command::Unloaded(adapter.id()));
    world.step();
    world.arrive_with(&set, prompt(51), 3, Priority::Normal);
    drop((adapter, set));
    world.finish(1000);
    world.clients.clear();
    assert_eq!(Arc::strong_count(&weights), 1);
}
