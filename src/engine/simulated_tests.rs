//! The whole engine on a simulated machine: random arrivals, cancels and sizes. `SHIMMY_SEED=n` repeats one run.

#[path = "adapter_tests.rs"]
mod adapters;
#[path = "guess_tests.rs"]
mod guesses;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::adapters::{AdapterSet, EngineAdapter};
use super::command::Command;
use super::event::{Event, FinishReason};
use super::forward::TokenId;
use super::handle::{EngineConfig, Shared, Ticket};
use super::image::{ImageRows, Images, uncut};
use super::request::{Request, SamplingParams};
use super::run::{Engine, Outcome};
use super::scheduler::Priority;
use super::simulation::{Machine, Rule, Simulation};
use super::stream::{EventStream, channel};

/// The next token is a hash of all before it and of the adapters: a single wrong cell changes everything after it.
struct Hash;

/// What an adapter of these tests is made from.
type Weights = Arc<u64>;

const END: TokenId = 0;
const VOCABULARY: u64 = 97;

impl Rule for Hash {
    fn next(&self, tokens: &[TokenId], _: usize, adapters: &AdapterSet) -> Result<TokenId, String> {
        let adapters = adapters.weights::<Weights>().into_iter();
        let adapters = adapters.map(|(weights, scale)| *weights << 32 | u64::from(scale.to_bits()));
        let hash = adapters
            .chain(tokens.iter().map(|token| u64::from(*token)))
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, part| (hash ^ part).wrapping_mul(0x0100_0000_01b3));
        Ok(TokenId::try_from((hash >> 17) % VOCABULARY).unwrap_or(END))
    }

    fn piece(&self, token: TokenId) -> Option<Arc<str>> {
        (token != END).then(|| format!("<{token}>").into())
    }
}

/// The same, but it never ends by itself.
struct Endless;

impl Rule for Endless {
    fn next(&self, tokens: &[TokenId], prompt: usize, adapters: &AdapterSet) -> Result<TokenId, String> {
        Ok(Hash.next(tokens, prompt, adapters)?.max(1))
    }

    fn piece(&self, token: TokenId) -> Option<Arc<str>> {
        Hash.piece(token)
    }
}

/// What the rule makes of a prompt without any engine.
fn expected(prompt: &[TokenId], adapters: &AdapterSet, most: usize) -> (String, FinishReason) {
    let (mut tokens, mut text) = (prompt.to_vec(), String::new());
    for _ in 0..most {
        let token = Hash.next(&tokens, prompt.len(), adapters).expect("never fails");
        let Some(piece) = Hash.piece(token) else { return (text, FinishReason::Eos) };
        text.push_str(&piece);
        tokens.push(token);
    }
    (text, FinishReason::Length)
}

struct Client {
    prompt: Vec<TokenId>,
    adapters: AdapterSet,
    max_tokens: usize,
    stream: Option<EventStream>,
    text: String,
    end: Option<FinishReason>,
    /// Step at which it leaves.
    leaves: Option<u64>,
    /// Reads only every so many steps.
    reads_every: u64,
}

struct World {
    engine: Engine<Simulation>,
    shared: Arc<Shared>,
    clients: Vec<Client>,
    machine: Machine,
    steps: u64,
    /// Of which prompts may have rows.
    images: Vec<Arc<ImageRows>>,
}

impl World {
    fn new(machine: Machine, parallel: usize, deterministic: bool, lookup: usize) -> Self {
        let shared = Arc::new(Shared::new());
        let config = EngineConfig {
            label: "simulation".into(),
            parallel,
            queue: 1000,
            deterministic,
            lookup,
            // Whose passes cost in steps; half of the worlds have such a device.
            warm_up: machine.n_cells.is_multiple_of(2),
            ..EngineConfig::default()
        };
        let forward = Simulation::new(Arc::new(Hash), machine);
        let engine = Engine::new(forward, None, config, Arc::clone(&shared), Arc::new(AtomicBool::new(false)));
        Self { engine, shared, clients: Vec::new(), machine, steps: 0, images: Vec::new() }
    }

    fn arrive(&mut self, prompt: Vec<TokenId>, max_tokens: usize, priority: Priority) -> &mut Client {
        self.arrive_with(&AdapterSet::default(), prompt, max_tokens, priority)
    }

    fn arrive_with(
        &mut self,
        adapters: &AdapterSet,
        prompt: Vec<TokenId>,
        max_tokens: usize,
        priority: Priority,
    ) -> &mut Client {
        let (events, stream) = channel(None, prompt.len());
        let begins = |id: &TokenId| self.images.iter().find(|image| image.tokens().next() == Some(*id));
        let images = prompt.iter().filter_map(begins).cloned().collect();
        self.engine.take(Command::Generate(Box::new(Request {
            prompt: prompt.clone(),
            images: Images::of(&prompt, images).expect("its own"),
            sampling: SamplingParams::default(),
            stop: Vec::new(),
            max_tokens: u32::try_from(max_tokens).ok(),
            priority,
            shown: Vec::new(),
            filter: None,
            adapters: adapters.clone(),
            logprobs: None,
            events,
            ticket: Ticket::take(&self.shared, 1, usize::MAX).and_then(|mut one| one.pop()).expect("no limit"),
            submitted: Instant::now(),
        })));
        self.clients.push(Client {
            prompt,
            adapters: adapters.clone(),
            max_tokens,
            stream: Some(stream),
            text: String::new(),
            end: None,
            leaves: None,
            reads_every: 1,
        });
        self.clients.last_mut().expect("just pushed")
    }

    fn step(&mut self) -> Outcome {
        self.steps += 1;
        let outcome = self.engine.step();
        for client in &mut self.clients {
            if client.leaves.is_some_and(|at| at <= self.steps) {
                client.stream = None;
            }
            if self.steps.is_multiple_of(client.reads_every) {
                client.read();
            }
        }
        self.check();
        outcome
    }

    /// The engine's book of the cells and the cache agree, and nobody has more than a place.
    fn check(&self) {
        assert_eq!(self.engine.cache.used_cells(), self.engine.forward.used(), "cells in the book and in the cache");
        assert!(self.engine.running.len() <= self.engine.config.parallel);
        for sequence in &self.engine.running {
            let held = self.engine.forward.tokens(sequence.seq);
            assert_eq!(held, &sequence.tokens[..sequence.computed], "a sequence's cells hold its own tokens");
        }
    }

    fn finish(&mut self, most: u64) {
        for client in &mut self.clients {
            client.reads_every = 1;
        }
        let start = self.steps;
        while self.clients.iter().any(|client| client.stream.is_some() && client.end.is_none()) {
            assert!(self.steps - start < most, "somebody starves");
            self.step();
        }
        // Those who left are noticed in the next step.
        self.step();
        assert!(self.engine.running.is_empty() && self.engine.waiting.is_empty());
        assert_eq!(self.engine.cache.running_cells(), 0, "nobody runs, so nobody holds a cell");
        for client in self.clients.iter().filter(|client| client.stream.is_some()) {
            let (text, end) = expected(&client.prompt, &client.adapters, client.max_tokens);
            let room = self.machine.n_ctx_seq - client.prompt.len();
            if client.max_tokens <= room {
                assert_eq!((client.text.as_str(), client.end), (text.as_str(), Some(end)));
            }
        }
        self.engine.cache.forget_idle(&mut self.engine.forward).expect("all idle branches can go");
        assert_eq!((self.engine.cache.used_cells(), self.engine.forward.used()), (0, 0), "no cell is lost");
    }
}

impl Client {
    fn read(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        while let Some(event) = stream.try_next() {
            match event.expect("the simulation never fails") {
                Event::Token { text, .. } => self.text.push_str(&text),
                Event::Done(summary) => self.end = Some(summary.reason),
                Event::Error(error) => panic!("{error}"),
            }
        }
    }
}

/// One random life of an engine.
fn live(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let chance = |rng: &mut fastrand::Rng, of: f64| rng.f64() < of;
    let n_cells = rng.usize(40..400);
    let machine = Machine {
        n_cells,
        n_ctx_seq: rng.usize(20..=n_cells),
        n_batch: rng.usize(1..64),
        n_seq_max: rng.u32(2..12),
        recurrent: chance(&mut rng, 0.25),
        pace: Duration::ZERO,
    };
    let parallel = rng.usize(1..=machine.n_seq_max as usize);
    let lookup = if chance(&mut rng, 0.3) { rng.usize(1..6) } else { 0 };
    let deterministic = chance(&mut rng, 0.1);
    let mut world = World::new(machine, parallel, deterministic, lookup);
    guesses::maybe_draft(&mut world, &mut rng);
    let drafts = world.engine.drafter.is_some();
    if chance(&mut rng, 0.4) {
        world.images = (0..4).map(|_| image(rng.usize(1..25), chance(&mut rng, 0.5), &machine)).collect();
    }
    // A few beginnings, so that much is shared.
    let mut pool = Pool::new(if chance(&mut rng, 0.5) { 3 } else { 0 });
    let stems: Vec<Vec<TokenId>> = (0..3).map(|_| (0..rng.usize(1..30)).map(|_| rng.u32(1..90)).collect()).collect();
    for _ in 0..rng.u32(5..60) {
        for _ in 0..rng.u32(0..3) {
            let prompt = match world.clients.len() {
                // Some ask the same again, or what somebody else's prompt begins with.
                n if n > 0 && chance(&mut rng, 0.2) => {
                    let earlier = &world.clients[rng.usize(0..n)].prompt;
                    earlier[..uncut(earlier, rng.usize(1..=earlier.len())).max(1)].to_vec()
                }
                _ => {
                    let stem = &stems[rng.usize(0..3)];
                    random_prompt(&stem[..rng.usize(1..=stem.len())], &world, &mut rng)
                }
            };
            let priority = [Priority::Interactive, Priority::Normal, Priority::Batch][rng.usize(0..3)];
            let steps = world.steps;
            let leaves = chance(&mut rng, 0.2).then(|| steps + rng.u64(0..30));
            let reads_every = if chance(&mut rng, 0.1) { 7 } else { 1 };
            let adapters = pool.draw(&mut rng);
            let client = world.arrive_with(&adapters, prompt, rng.usize(0..40), priority);
            client.leaves = leaves;
            client.reads_every = reads_every;
        }
        if chance(&mut rng, 0.1) {
            pool.swap(&mut world, &mut rng);
        }
        for _ in 0..rng.u32(0..6) {
            world.step();
        }
    }
    world.finish(200_000);
    assert_eq!(world.engine.drafter.is_some(), drafts, "the drafting model failed");
    world.clients.clear();
    for weights in &pool.swapped {
        assert_eq!(Arc::strong_count(weights), 1, "an adapter that was unloaded is still held");
    }
}

fn random_prompt(stem: &[TokenId], world: &World, rng: &mut fastrand::Rng) -> Vec<TokenId> {
    let mut prompt = stem.to_vec();
    for _ in 0..rng.usize(0..3).min(world.images.len()) {
        prompt.extend(world.images[rng.usize(0..4)].tokens());
        prompt.extend((0..rng.usize(0..3)).map(|_| rng.u32(1..90)));
    }
    prompt.extend((0..rng.usize(0..40)).map(|_| rng.u32(1..90)));
    prompt.truncate(uncut(&prompt, world.machine.n_ctx_seq - 1));
    prompt
}

/// An image that is read as a `whole` fits a pass.
fn image(n: usize, whole: bool, machine: &Machine) -> Arc<ImageRows> {
    let n = if whole { n.min(machine.n_batch) } else { n };
    Arc::new(ImageRows::new(n, n, Vec::new(), Vec::new(), whole))
}

/// The adapters of one life.
struct Pool {
    loaded: Vec<(Weights, EngineAdapter)>,
    /// Those that were replaced.
    swapped: Vec<Weights>,
}

impl Pool {
    fn new(n: u64) -> Self {
        Self { loaded: (0..n).map(Self::load).collect(), swapped: Vec::new() }
    }

    fn load(number: u64) -> (Weights, EngineAdapter) {
        let weights = Arc::new(number);
        (Arc::clone(&weights), EngineAdapter::new(weights))
    }

    fn draw(&self, rng: &mut fastrand::Rng) -> AdapterSet {
        let scales = [0.0, 0.0, 0.5, 1.0];
        AdapterSet::new(self.loaded.iter().map(|(_, adapter)| (adapter.clone(), scales[rng.usize(0..4)])))
    }

    /// Another one takes the place of one of them, while it may be in use.
    fn swap(&mut self, world: &mut World, rng: &mut fastrand::Rng) {
        if self.loaded.is_empty() {
            return;
        }
        let new = Self::load(10 + self.swapped.len() as u64);
        let place = rng.usize(0..self.loaded.len());
        let (weights, adapter) = std::mem::replace(&mut self.loaded[place], new);
        adapter.set_unloaded();
        world.engine.take(Command::Unloaded(adapter.id()));
        self.swapped.push(weights);
    }
}

#[test]
fn thousands_of_lives_without_a_lost_cell_or_a_wrong_token() {
    if let Ok(seed) = std::env::var("SHIMMY_SEED") {
        return live(seed.parse().expect("SHIMMY_SEED is a number"));
    }
    for seed in 0..3000 {
        if let Err(panic) = std::panic::catch_unwind(|| live(seed)) {
            eprintln!("SHIMMY_SEED={seed} repeats this");
            std::panic::resume_unwind(panic);
        }
    }
}

fn machine() -> Machine {
    Machine { n_cells: 2000, n_ctx_seq: 1000, n_batch: 64, n_seq_max: 16, recurrent: false, pace: Duration::ZERO }
}

fn prompt(own: TokenId) -> Vec<TokenId> {
    (0..200).map(|n| 1 + n % 50).chain([own, own + 1]).collect()
}

#[test]
fn a_cold_prefix_that_many_ask_for_is_computed_once() {
    for recurrent in [false, true] {
        let mut world = World::new(Machine { recurrent, ..machine() }, 8, false, 0);
        for own in 0..8 {
            let own = if recurrent { 51 } else { 51 + own };
            world.arrive(prompt(own), 4, Priority::Normal);
        }
        world.finish(1000);
        let computed = world.engine.prompt_clock;
        assert!(computed < 202 + 8 * 8, "recurrent {recurrent}: {computed} prompt tokens were computed for 8 × 202");
    }
}

#[test]
fn a_later_turn_computes_only_what_is_new() {
    let mut world = World::new(machine(), 2, false, 0);
    let mut tokens = prompt(60);
    world.arrive(tokens.clone(), 3, Priority::Normal);
    world.finish_keeping();
    let before = world.engine.prompt_clock;
    tokens.extend([61, 62, 63]);
    world.arrive(tokens, 3, Priority::Normal);
    world.finish(1000);
    assert!(world.engine.prompt_clock - before <= 4);
}

#[test]
fn streams_go_on_while_a_long_prompt_is_computed() {
    let mut world = World::new(machine(), 8, false, 0);
    for own in 0..4 {
        world.arrive(vec![50 + own, 7, 9], 400, Priority::Normal);
    }
    for _ in 0..20 {
        world.step();
    }
    let before: Vec<usize> = world.clients.iter().map(|client| client.text.len()).collect();
    world.arrive(prompt(80), 1, Priority::Normal);
    for _ in 0..5 {
        world.step();
    }
    for (client, before) in world.clients.iter().zip(before).filter(|(client, _)| client.end.is_none()) {
        assert!(client.text.len() > before, "a stream stood still");
    }
    let longest = world.engine.rows.len();
    assert!(longest < 20, "{longest} rows in a pass beside 4 streams");
}

#[test]
fn streams_go_on_between_images_and_an_image_is_computed_once() {
    // Read as a whole and not, and where passes cost in steps or not.
    for (whole, n_cells) in [(true, 2000), (false, 2000), (false, 2001)] {
        let machine = Machine { n_cells, ..machine() };
        let mut world = World::new(machine, 8, false, 0);
        world.engine.forward = Simulation::new(Arc::new(Endless), machine);
        world.arrive(vec![50, 7, 9], 400, Priority::Normal);
        for _ in 0..5 {
            world.step();
        }
        world.images = (0..6).map(|_| image(40, whole, &machine)).collect();
        let prompt: Vec<TokenId> = world.images.iter().flat_map(|image| image.tokens()).chain([3]).collect();
        world.arrive(prompt.clone(), 4, Priority::Normal);
        // Beside a stream a pass of 8 rows is the cheapest there, of which an image gets 7.
        for _ in 0..50 {
            let before = world.clients[0].text.len();
            world.step();
            world.step();
            assert!(world.clients[0].text.len() > before, "a stream stood still for two passes");
        }
        assert_eq!(world.clients[1].end, Some(FinishReason::Length), "whole {whole}, {n_cells} cells");
        let before = world.engine.prompt_clock;
        world.arrive(prompt[..200].iter().copied().chain([4]).collect(), 1, Priority::Normal);
        world.finish_keeping();
        assert_eq!(world.engine.prompt_clock - before, 1, "five images were there");
    }
}

#[test]
fn readers_that_stand_still_do_not_hold_all_places() {
    let machine = Machine { n_cells: 9000, n_ctx_seq: 4000, ..machine() };
    let mut world = World::new(machine, 2, false, 0);
    world.engine.forward = Simulation::new(Arc::new(Endless), machine);
    for own in 0..2 {
        world.arrive(prompt(51 + own), 3000, Priority::Normal).reads_every = u64::MAX;
    }
    while world.step() == Outcome::Busy {
        assert!(world.steps < 10_000, "readers that stand still should pause");
    }
    world.arrive(vec![5, 6, 7], 20, Priority::Normal);
    for _ in 0..100 {
        world.step();
    }
    assert_eq!(world.clients[2].end, Some(FinishReason::Length), "the third is served");
    world.clients.iter_mut().for_each(|client| client.reads_every = 1);
    world.finish_keeping();
    assert!(world.clients.iter().all(|client| client.end == Some(FinishReason::Length)), "and nothing is lost");
}

#[test]
fn whoever_leaves_is_gone_in_the_next_step() {
    let mut world = World::new(machine(), 2, false, 0);
    for own in 0..4 {
        // Two run, two wait.
        world.arrive(prompt(51 + own), 500, Priority::Normal).leaves = Some(3);
    }
    for _ in 0..4 {
        world.step();
    }
    assert!(world.engine.running.is_empty() && world.engine.waiting.is_empty());
    assert_eq!(world.engine.cache.running_cells(), 0);
}

impl World {
    /// As `finish`, but what was computed stays in the cache.
    fn finish_keeping(&mut self) {
        while self.clients.iter().any(|client| client.end.is_none()) {
            self.step();
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: 64, ..Config::default() })]

    /// Two that are larger than the cache together take turns, and both get their whole text.
    #[test]
    fn sequences_that_do_not_fit_together_take_turns(a in 1u32..90, b in 1u32..90) {
        let machine = Machine { n_cells: 120, n_ctx_seq: 120, ..machine() };
        let mut world = World::new(machine, 4, false, 0);
        world.arrive(vec![a; 60], 50, Priority::Normal);
        world.arrive(vec![b; 50], 60, Priority::Normal);
        world.finish(5000);
    }
}
