//! What may come next in the sequences that run: from the text so far, or from a drafting model.

use std::time::Duration;

use super::drafter::Wanted;
use super::forward::Forward;
use super::run::Engine;
use super::scheduler::{View, Work};

/// What the drafting model did for the next pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct DraftStep {
    /// That decode.
    streams: usize,
    drafted: bool,
    took: Duration,
}

impl<F: Forward> Engine<F> {
    /// Has the drafting model guess for those that decode. What was guessed stays until something is sampled.
    pub(super) fn draft(&mut self) {
        let Some(drafter) = &mut self.drafter else { return };
        let shape = self.forward.shape();
        let decodes: Vec<usize> = (0..self.running.len())
            .filter(|index| self.running[*index].decoding && !self.running[*index].events.control().should_pause())
            .collect();
        let drafted = self.payoff.pays(decodes.len());
        let mut step = DraftStep { streams: decodes.len(), drafted, took: Duration::ZERO };
        self.draft_step = Some(step);
        if !drafted {
            return;
        }
        // All of them must find room in a pass.
        let rows = shape.n_batch.min(shape.n_outputs).min(shape.tile.saturating_sub(1));
        let room = (rows / decodes.len().max(1)).saturating_sub(1).min(self.config.draft);
        let mut wanted = Vec::with_capacity(decodes.len());
        for (index, (sequence, lane)) in self.running.iter().zip(&mut self.lanes).enumerate() {
            let most = room.min(sequence.room().saturating_sub(1));
            if most > 0 && lane.drafted_at != sequence.tokens.len() && decodes.contains(&index) {
                lane.drafted_at = sequence.tokens.len();
                lane.draft.clear();
                wanted.push(Wanted { seq: sequence.seq, tokens: &sequence.tokens, most, guesses: &mut lane.draft });
            }
        }
        if wanted.is_empty() {
            return;
        }
        match drafter.draft(&mut wanted) {
            Ok(took) => {
                step.took = took;
                self.draft_step = Some(step);
            }
            Err(error) => {
                tracing::error!(error, "the drafting model failed; the model goes on without it");
                (self.drafter, self.draft_step) = (None, None);
            }
        }
    }

    /// A pass of streams alone, which took so long, shows whether guesses pay.
    pub(super) fn note_payoff(&mut self, took: Duration) {
        let Some(step) = self.draft_step.take() else { return };
        if self.plan.shares.iter().all(|share| self.running[share.index].decoding) {
            let tokens = self.plan.shares.iter().map(|share| self.lanes[share.index].sampled.len()).sum();
            self.payoff.measured(step.streams, step.drafted, tokens, took + step.took);
        }
    }

    /// Describes what runs to the scheduler, with guesses where that is wanted.
    pub(super) fn look(&mut self, guessing: bool) {
        self.views.clear();
        for (sequence, lane) in self.running.iter_mut().zip(&mut self.lanes) {
            lane.guesses.clear();
            let work = if sequence.events.control().should_pause() {
                Work::Rest
            } else if sequence.decoding {
                if guessing {
                    let most = sequence.room().saturating_sub(1);
                    super::lookup::guess(&sequence.tokens, most.min(self.config.lookup), &mut lane.guesses);
                    if lane.guesses.is_empty() && lane.drafted_at == sequence.tokens.len() {
                        lane.guesses.extend(lane.draft.iter().take(most));
                    }
                    // Nothing follows the end.
                    let end = lane.guesses.iter().position(|token| self.forward.is_end(*token));
                    lane.guesses.truncate(end.unwrap_or(usize::MAX));
                }
                Work::Decode { guesses: lane.guesses.len() }
            } else {
                let save = self.cache.next_save(sequence.seq).unwrap_or(usize::MAX);
                Work::Prefill { left: sequence.pending(), cut: sequence.cut.min(save).min(sequence.own_cut()).max(1) }
            };
            let (set, turn) = self.cache.turn(sequence.seq);
            self.views.push(View { work, deadline: sequence.deadline, served: sequence.served, set, turn });
        }
    }
}
