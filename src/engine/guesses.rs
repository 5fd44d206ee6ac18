//! What may come next in the sequences that run: from the text so far, or from a drafting model.

use super::drafter::Wanted;
use super::forward::Forward;
use super::run::Engine;
use super::scheduler::{View, Work};

impl<F: Forward> Engine<F> {
    /// Has the drafting model guess for those that decode. What was guessed stays until something is sampled.
    pub(super) fn draft(&mut self) {
        let Some(drafter) = &mut self.drafter else { return };
        let shape = self.forward.shape();
        let decodes: Vec<usize> = (0..self.running.len())
            .filter(|index| self.running[*index].decoding && !self.running[*index].events.control().should_pause())
            .collect();
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
        if !wanted.is_empty()
            && let Err(error) = drafter.draft(&mut wanted)
        {
            tracing::error!(error, "the drafting model failed; the model goes on without it");
            self.drafter = None;
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
