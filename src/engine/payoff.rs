//! Whether a drafting model makes the streams faster: both ways are measured while they run, and the faster one is taken.
//!
//! A guess costs a pass of the small model and a row of the large one. A GPU computes a few more rows in the same time; on a
//! CPU a row can cost as much as a pass. How often guesses are right depends on the text.

use std::time::Duration;

/// Passes of each way before they are compared.
const TRIES: u32 = 8;
/// Passes after which the slower way gets some again.
const AGAIN_AFTER: u32 = 64;
const AGAIN: u32 = 2;
/// Weight of what was measured before.
const KEPT: f64 = 0.9;
/// Numbers of streams that are told apart.
const TABLE: usize = 32;

/// Seconds and tokens of late.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    seconds: f64,
    tokens: f64,
    passes: u32,
}

impl Way {
    fn measured(&mut self, tokens: usize, took: Duration) {
        self.seconds = KEPT * self.seconds + took.as_secs_f64();
        self.tokens = KEPT * self.tokens + super::run::as_f64(tokens);
        self.passes += 1;
    }

    fn speed(&self) -> f64 {
        self.tokens / self.seconds.max(1e-9)
    }
}

/// Of one number of streams.
#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    with: Way,
    without: Way,
    passes: u32,
}

impl Ways {
    fn pays(&self) -> bool {
        if self.with.passes < TRIES || self.without.passes < TRIES {
            return self.with.passes < TRIES;
        }
        let better = self.with.speed() > self.without.speed();
        // The slower one gets its chance, too.
        if self.passes % AGAIN_AFTER < AGAIN_AFTER - AGAIN { better } else { !better }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Payoff([Ways; TABLE]);

impl Payoff {
    fn of(&mut self, streams: usize) -> &mut Ways {
        &mut self.0[streams.min(TABLE - 1)]
    }

    /// Whether the next pass of so many streams should have guesses.
    pub fn pays(&mut self, streams: usize) -> bool {
        self.of(streams).pays()
    }

    /// A pass of streams alone gave them so many tokens, in so long with all that was done for it.
    pub fn measured(&mut self, streams: usize, drafted: bool, tokens: usize, took: Duration) {
        let ways = self.of(streams);
        ways.passes += 1;
        if drafted { &mut ways.with } else { &mut ways.without }.measured(tokens, took);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Payoff;

    /// Of 1,000 passes, those that were drafted for.
    fn drafted(payoff: &mut Payoff, tokens: usize, took_ms: u64) -> usize {
        let mut drafted = 0;
        for _ in 0..1000 {
            let pays = payoff.pays(2);
            let (tokens, took) = if pays { (tokens, took_ms) } else { (2, 10) };
            payoff.measured(2, pays, tokens, Duration::from_millis(took));
            drafted += usize::from(pays);
        }
        drafted
    }

    #[test]
    fn the_faster_way_is_taken_and_the_other_one_tried_again() {
        assert!(drafted(&mut Payoff::default(), 6, 15) > 940);
        let mut payoff = Payoff::default();
        let slower = drafted(&mut payoff, 6, 45);
        assert!((20..60).contains(&slower), "{slower}");
        assert!(drafted(&mut payoff, 6, 15) > 650, "it has become the faster one");
        assert!(payoff.pays(3), "another number of streams is another matter");
    }
}
