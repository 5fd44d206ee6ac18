//! Guesses: beside a device whose passes cost in steps, and of a drafting model that is right most of the time.

use std::sync::Arc;
use std::time::Duration;

use super::super::drafter::Drafter;
use super::super::scheduler::Work;
use super::{
    AdapterSet, Client, FinishReason, Hash, Machine, Priority, Rule, Simulation, TokenId, VOCABULARY, World, expected,
    machine,
};

/// Says what [`Hash`] says, but for one token in four.
struct Almost;

impl Rule for Almost {
    fn next(&self, tokens: &[TokenId], prompt: usize, adapters: &AdapterSet) -> Result<TokenId, String> {
        let right = Hash.next(tokens, prompt, adapters)?;
        Ok(if tokens.len().is_multiple_of(4) { (right + 1) % VOCABULARY as TokenId } else { right })
    }

    fn piece(&self, token: TokenId) -> Option<Arc<str>> {
        Hash.piece(token)
    }
}

/// Gives the engine a drafting model that guesses up to `most` tokens, in passes of `pass_us`.
fn draft(world: &mut World, machine: Machine, most: usize, pass_us: u64) {
    let mut simulation = Simulation::new(Arc::new(Almost), machine);
    simulation.times = (Duration::from_micros(pass_us), Duration::ZERO);
    world.engine.drafter = Some(Drafter::new(simulation).expect("it samples"));
    world.engine.config.draft = most;
}

/// Where guesses can be taken back, at times. Its cache may be too small for all.
pub(super) fn maybe_draft(world: &mut World, rng: &mut fastrand::Rng) {
    if rng.f64() < 0.3 && !world.machine.recurrent && !world.engine.config.deterministic {
        let machine = Machine { n_cells: rng.usize(10..500), ..world.machine };
        draft(world, machine, rng.usize(1..6), rng.u64(100..9000));
    }
}

/// Steps until all are answered, and the most tokens of one share of a pass.
fn run(world: &mut World) -> (u64, usize) {
    let mut most = 0;
    while world.clients.iter().any(|client| client.end.is_none()) {
        world.step();
        world.clients.iter_mut().for_each(Client::read);
        let shares = world.engine.plan.shares.iter();
        let decoding = shares.filter(|share| matches!(world.engine.views[share.index].work, Work::Decode { .. }));
        most = most.max(decoding.map(|share| share.tokens).max().unwrap_or(0));
    }
    (world.steps, most)
}

#[test]
fn guesses_ride_along_where_passes_cost_in_steps() {
    let stepped = machine();
    assert!(stepped.n_cells.is_multiple_of(2), "it tries passes");
    let mut world = World::new(stepped, 4, false, 4);
    // Whatever comes first has followed the last token before.
    let last = 98;
    let all = 1..TokenId::try_from(VOCABULARY).unwrap();
    world.arrive(all.flat_map(|token| [last, token]).chain([last]).collect(), 8, Priority::Normal);
    assert!(run(&mut world).1 > 1, "no guess was computed");
}

#[test]
fn a_drafting_model_saves_passes_and_changes_no_text() {
    let prompt_of = |own: TokenId| (0..90).map(|n| 1 + (n * n + own) % 90).collect::<Vec<TokenId>>();
    let wanted = |prompt: &[TokenId]| expected(prompt, &AdapterSet::default(), 100);
    // Three that do not end by themselves, so that as many decode all the time.
    let long = |prompt: &Vec<TokenId>| wanted(prompt).1 == FinishReason::Length;
    let prompts: Vec<_> = (0..90).map(prompt_of).filter(long).take(3).collect();
    let answer = |pass_us: Option<u64>| {
        let mut world = World::new(Machine { n_cells: 1999, ..machine() }, 4, false, 0);
        if let Some(pass_us) = pass_us {
            draft(&mut world, machine(), 3, pass_us);
        }
        for prompt in &prompts {
            world.arrive(prompt.clone(), 100, Priority::Normal);
        }
        let (steps, _) = run(&mut world);
        for (client, prompt) in world.clients.iter().zip(&prompts) {
            let (text, end) = wanted(prompt);
            assert_eq!((&client.text, client.end), (&text, Some(end)));
        }
        steps
    };
    let (alone, drafted) = (answer(None), answer(Some(100)));
    assert!(2 * drafted < alone, "{alone} passes, {drafted} with guesses");
    let slow = answer(Some(20_000));
    assert!(slow > alone * 2 / 3, "{alone} passes, {slow} with a model that is slower than its guesses are worth");
}
