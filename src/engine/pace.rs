//! How many prompt tokens may ride along with decoding sequences, learned from how long passes take.

use std::time::Duration;

/// Weight of a new measurement.
const ALPHA: f64 = 0.25;
/// Even a slow machine's prompts must come to an end.
const FEWEST: usize = 4;
/// Before anything was measured.
const FIRST_GUESS: usize = 32;
/// Passes by number of decoding sequences are told apart up to here.
const TABLE: usize = 64;

/// Keeps the time between two tokens of a stream within `stretch` times what it would be without prompts beside.
#[derive(Debug)]
pub(super) struct Pace {
    stretch: f64,
    /// Seconds of a pass that decodes n sequences and nothing else; 0 where none was seen.
    decode: [f64; TABLE],
    /// Seconds that one more prompt token takes.
    token: f64,
}

impl Pace {
    pub fn new(stretch: f64) -> Self {
        Self { stretch, decode: [0.0; TABLE], token: 0.0 }
    }

    /// A pass decoded `decoding` sequences beside `prefill` prompt tokens.
    pub fn measured(&mut self, decoding: usize, prefill: usize, took: Duration) {
        let took = took.as_secs_f64();
        if prefill == 0 {
            if let Some(known) = self.decode.get_mut(decoding) {
                learn(known, took);
            }
        } else if let Some(alone) = self.decode_time(decoding) {
            // Few tokens say little beside the pass they ride on, or beside what a pass costs that they have for themselves.
            let fewest = if decoding == 0 && self.token > 0.0 { FIRST_GUESS } else { FEWEST };
            if prefill >= fewest {
                learn(&mut self.token, ((took - alone) / as_f64(prefill)).max(took / 4096.0));
            }
        }
    }

    /// Prompt tokens for the next pass, which decodes `decoding` sequences while `prefilling` more are about to.
    /// Those count too: the pace to keep is the one that the streams will have when all decode.
    pub fn budget(&self, decoding: usize, prefilling: usize) -> usize {
        let (Some(now), Some(then)) = (self.decode_time(decoding), self.decode_time(decoding + prefilling)) else {
            return FIRST_GUESS;
        };
        if self.token == 0.0 {
            return FIRST_GUESS;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Positive and capped.
        let tokens = ((self.stretch * then - now) / self.token).clamp(0.0, 1e6) as usize;
        tokens.max(FEWEST)
    }

    /// From what was measured for the nearest smaller number, each further sequence costing a prompt token.
    fn decode_time(&self, n: usize) -> Option<f64> {
        if n == 0 {
            return Some(0.0);
        }
        let known = |i: usize| self.decode[i] > 0.0;
        let below = (1..=n.min(TABLE - 1)).rev().find(|i| known(*i));
        let Some(i) = below else {
            return (n..TABLE).find(|i| known(*i)).map(|i| self.decode[i]);
        };
        Some(self.decode[i] + as_f64(n - i) * self.token)
    }
}

fn learn(value: &mut f64, new: f64) {
    *value = if *value == 0.0 { new } else { *value + ALPHA * (new - *value) };
}

fn as_f64(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Pace;

    /// A machine on which a pass takes 8 ms, a decoded row 1 ms and a prompt token 2 ms more.
    fn pass(decoding: usize, prefill: usize) -> Duration {
        let base = if decoding > 0 { 8 } else { 0 };
        Duration::from_millis((base + decoding + 2 * prefill) as u64)
    }

    #[test]
    fn streams_keep_their_pace_beside_a_prompt() {
        let mut pace = Pace::new(2.0);
        for _ in 0..20 {
            pace.measured(4, 0, pass(4, 0));
        }
        for _ in 0..50 {
            let prefill = pace.budget(4, 1);
            pace.measured(4, prefill, pass(4, prefill));
        }
        let prefill = pace.budget(4, 1);
        assert!((6..=8).contains(&prefill), "{prefill} tokens of 2 ms beside a pass of 12 ms");
        assert!(pass(4, prefill) <= pass(5, 0) * 2 + Duration::from_millis(4));
    }

    #[test]
    fn prompts_that_come_together_are_not_held_back_by_the_first_that_is_through() {
        let mut pace = Pace::new(2.0);
        pace.measured(0, 100, pass(0, 100));
        for n in 1..16 {
            pace.measured(n, 0, pass(n, 0));
        }
        assert!(pace.budget(1, 15) > 2 * pace.budget(1, 1));
    }
}
