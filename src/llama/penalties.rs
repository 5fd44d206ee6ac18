//! Penalties on tokens that came up before.

use std::collections::{HashMap, VecDeque};

/// What repeated tokens lose, and which those are.
#[derive(Debug)]
pub(super) struct Penalties {
    repeat: f32,
    frequency: f32,
    presence: f32,
    /// How many of the latest tokens count.
    window: usize,
    latest: VecDeque<i32>,
    counts: HashMap<i32, u32>,
}

impl Penalties {
    /// `None` where they would change nothing.
    pub fn new(repeat: f32, frequency: f32, presence: f32, window: usize) -> Option<Self> {
        if window == 0 || (repeat == 1.0 && frequency == 0.0 && presence == 0.0) {
            return None;
        }
        Some(Self { repeat, frequency, presence, window, latest: VecDeque::new(), counts: HashMap::new() })
    }

    pub fn accept(&mut self, token: i32) {
        if self.latest.len() == self.window
            && let Some(oldest) = self.latest.pop_front()
            && let Some(count) = self.counts.get_mut(&oldest)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&oldest);
            }
        }
        self.latest.push_back(token);
        *self.counts.entry(token).or_default() += 1;
    }

    /// Different tokens that are penalised.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    pub fn contains(&self, token: i32) -> bool {
        self.counts.contains_key(&token)
    }

    /// The penalised tokens with their new logits.
    pub fn adjusted<'a>(&'a self, logits: &'a [f32]) -> impl Iterator<Item = (f32, i32)> + 'a {
        self.counts.iter().filter_map(move |(token, count)| {
            let logit = *logits.get(usize::try_from(*token).ok()?)?;
            Some((self.adjust(logit, *count), *token))
        })
    }

    fn adjust(&self, logit: f32, count: u32) -> f32 {
        let logit = if logit > 0.0 { logit / self.repeat } else { logit * self.repeat };
        #[allow(clippy::cast_precision_loss)] // Counts are below 2^24.
        let count = count as f32;
        logit - count * self.frequency - self.presence
    }
}

#[cfg(test)]
mod tests {
    use super::Penalties;

    #[test]
    fn only_the_window_counts() {
        let mut penalties = Penalties::new(2.0, 0.5, 0.25, 2).expect("they change something");
        for token in [7, 1, 1, 3] {
            penalties.accept(token);
        }
        assert_eq!((penalties.len(), penalties.contains(7)), (2, false));
        let mut adjusted: Vec<_> = penalties.adjusted(&[0.0, 4.0, 0.0, -1.0]).collect();
        adjusted.sort_by_key(|(_, token)| *token);
        assert_eq!(adjusted, [(2.0 - 0.75, 1), (-2.0 - 0.75, 3)]);
    }

    #[test]
    fn neutral_values_cost_nothing() {
        assert!(Penalties::new(1.0, 0.0, 0.0, 64).is_none());
        assert!(Penalties::new(1.5, 0.0, 0.0, 0).is_none());
    }
}
