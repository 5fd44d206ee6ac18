//! How many rows the next pass should have, where the time of a pass goes up in steps: a GPU's program for 65 rows can take
//! three times as long as that for 64.

use std::time::Duration;

/// A smaller pass must be better by so much to be chosen: more rows at once have other merits.
const CLEARLY: f64 = 0.9;
/// How much longer than undisturbed the time between two tokens may get while prompts are computed beside.
const STRETCH: f64 = 2.0;
/// Seconds between two tokens that are no trouble to a reader, however fast the device would be undisturbed.
const READABLE: f64 = 0.03;
/// Rows from which on steps are small beside the whole.
const MANY: usize = 128;
/// Costs that differ by less are those of the same step.
const SAME_STEP: f64 = 1.15;

/// Seconds of passes by their rows, measured when the model was loaded. Empty where they go up evenly.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PassCosts(Vec<(usize, f64)>);

impl PassCosts {
    pub fn new(measured: impl IntoIterator<Item = (usize, Duration)>) -> Self {
        let mut costs: Vec<_> = measured.into_iter().map(|(rows, took)| (rows, took.as_secs_f64())).collect();
        costs.sort_unstable_by_key(|(rows, _)| *rows);
        Self(costs)
    }

    pub fn is_known(&self) -> bool {
        !self.0.is_empty()
    }

    /// What a pass of so many rows takes, as far as it is known: that of the next larger one that was measured, or of what
    /// lies between two where there are many steps.
    fn of(&self, rows: usize) -> f64 {
        let Some(above) = self.0.iter().position(|(measured, _)| *measured >= rows) else {
            return self.0.last().map_or(0.0, |(most, cost)| cost * as_f64(rows) / as_f64(*most));
        };
        let (more, cost) = self.0[above];
        match above.checked_sub(1).map(|below| self.0[below]) {
            Some((fewer, less)) if fewer >= MANY => less + (cost - less) * as_f64(rows - fewer) / as_f64(more - fewer),
            _ => cost,
        }
    }

    /// A pass of so many rows took so long: less than it did while it was tried, when the driver may still have been compiling.
    pub fn learn(&mut self, rows: usize, took: Duration) {
        if let Some((_, cost)) = self.0.iter_mut().find(|(measured, _)| *measured == rows) {
            *cost = cost.min(took.as_secs_f64());
        }
    }

    /// Rows of a pass that is to decode `decoding` sequences and has `more` tokens to compute beside: of prompts, and guesses.
    pub fn rows(&self, decoding: usize, more: usize) -> usize {
        let wanted = decoding + more;
        if decoding == 0 || more == 0 {
            return self.best(wanted, 1, f64::INFINITY);
        }
        // The next step at least, or prompts would never come to an end.
        let most = (STRETCH * self.of(decoding)).max(SAME_STEP * self.of(decoding + 1)).max(READABLE);
        self.best(wanted, decoding + 1, most)
    }

    /// The number of rows from `least` to `wanted` that are cheapest each, in a pass that takes no longer than `most`; `least`
    /// where none is so short.
    fn best(&self, wanted: usize, least: usize, most: f64) -> usize {
        let each = |rows: usize| self.of(rows) / as_f64(rows.max(1));
        let measured = self.0.iter().rev().map(|(rows, _)| *rows).filter(|rows| (least..wanted).contains(rows));
        let fit = std::iter::once(wanted).chain(measured).filter(|rows| self.of(*rows) <= most);
        fit.reduce(|best, rows| if each(rows) < CLEARLY * each(best) { rows } else { best }).unwrap_or(least)
    }
}

fn as_f64(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::PassCosts;

    fn costs(milliseconds: &[(usize, u64)]) -> PassCosts {
        PassCosts::new(milliseconds.iter().map(|(rows, ms)| (*rows, Duration::from_millis(*ms))))
    }

    /// Seen on an H100 through Vulkan, with a model of 7 billion weights.
    fn steps() -> PassCosts {
        costs(&[(1, 5), (2, 6), (4, 8), (8, 15), (16, 44), (32, 47), (64, 53), (128, 143), (256, 160), (512, 231)])
    }

    #[test]
    fn a_pass_ends_before_a_step_that_does_not_pay() {
        let costs = steps();
        assert_eq!(costs.rows(32, 0), 32);
        assert_eq!(costs.rows(128, 0), 64, "twice 64 is faster than once 128");
        assert_eq!(costs.rows(32, 40), 64, "the rest of the prompt comes in the next pass");
        assert_eq!(costs.rows(0, 512), 512);
        assert_eq!(costs.rows(0, 70), 64);
        assert_eq!(costs.rows(0, 40), 40);
    }

    #[test]
    fn streams_keep_their_pace_and_prompts_come_to_an_end() {
        let costs = steps();
        assert_eq!(costs.rows(32, 2000), 64, "512 rows would hold 32 streams up");
        assert_eq!(costs.rows(8, 2000), 32, "16 rows are the smallest step, and 32 take hardly longer");
        assert_eq!(costs.rows(1, 2000), 8, "30 ms are no trouble to a reader");
    }

    /// Seen on the same device with shaders for its tensor cores.
    #[test]
    fn prompts_do_not_wait_for_room_that_the_next_step_has() {
        let costs =
            costs(&[(1, 4), (2, 5), (4, 6), (7, 8), (8, 9), (16, 17), (64, 18), (128, 19), (256, 29), (512, 50)]);
        for decoding in [1, 6, 7, 8, 12, 31] {
            assert_eq!(costs.rows(decoding, 2000), 256, "beside {decoding}");
        }
        assert_eq!(costs.rows(12, 0), 8, "two passes of 8 and 4 are faster than one of 12");
    }

    #[test]
    fn what_was_measured_too_high_is_put_right() {
        let mut costs = costs(&[(4, 23), (8, 32), (128, 19)]);
        for (rows, ms) in [(8, 9), (8, 40), (7, 1), (65, 10)] {
            costs.learn(rows, Duration::from_millis(ms));
        }
        assert_eq!(costs, PassCosts(vec![(4, 0.023), (8, 0.009), (128, 0.019)]), "fewer rows say nothing of more");
    }

    #[test]
    fn where_more_rows_are_always_cheaper_a_pass_takes_what_there_is() {
        let even = costs(&[(1, 3), (8, 5), (32, 8), (64, 10), (128, 17), (256, 27), (512, 48)]);
        assert_eq!([even.rows(128, 0), even.rows(0, 512), even.rows(0, 300)], [128, 512, 300]);
        assert_eq!(even.rows(32, 1000), 256);
    }
}
