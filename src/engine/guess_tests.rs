//! Guesses beside a device whose passes cost in steps.

use super::super::scheduler::Work;
use super::{Client, Priority, TokenId, VOCABULARY, World, machine};

#[test]
fn guesses_ride_along_where_passes_cost_in_steps() {
    let stepped = machine();
    assert!(stepped.n_cells.is_multiple_of(2), "it tries passes");
    let mut world = World::new(stepped, 4, false, 4);
    // Whatever comes first has followed the last token before.
    let last = 98;
    let all = 1..TokenId::try_from(VOCABULARY).unwrap();
    world.arrive(all.flat_map(|token| [last, token]).chain([last]).collect(), 8, Priority::Normal);
    let mut most = 0;
    while world.clients.iter().any(|client| client.end.is_none()) {
        world.step();
        world.clients.iter_mut().for_each(Client::read);
        let shares = world.engine.plan.shares.iter();
        let decoding = shares.filter(|share| matches!(world.engine.views[share.index].work, Work::Decode { .. }));
        most = most.max(decoding.map(|share| share.tokens).max().unwrap_or(0));
    }
    assert!(most > 1, "no guess was computed");
}
