//! What may come next in the sequences that run: from the text so far, or from a drafting model.

use std::time::Duration;

use super::drafter::Wanted;
use super::forward::Forward;
use super::image::{is_image, stretch};
use super::run::Engine;
use super::scheduler::{View, Work};
use super::sequence::Sequence;

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
        let goes_on = |sequence: &Sequence| sequence.decoding && !sequence.events.control().should_pause();
        let streams = self.running.iter().filter(|sequence| goes_on(sequence)).count();
        let drafted = self.payoff.pays(streams);
        self.draft_step = Some(DraftStep { streams, drafted, took: Duration::ZERO });
        // All of them must find room in a pass.
        let rows = shape.n_batch.min(shape.n_outputs).min(shape.tile.saturating_sub(1));
        let room = (rows / streams.max(1)).saturating_sub(1).min(self.config.draft);
        if !drafted || room == 0 {
            return;
        }
        let mut wanted = Vec::with_capacity(streams);
        for (sequence, lane) in self.running.iter().zip(&mut self.lanes) {
            let most = room.min(sequence.room().saturating_sub(1));
            // Another model reads no images.
            if most > 0 && sequence.images.is_empty() && lane.drafted_at != sequence.tokens.len() && goes_on(sequence) {
                lane.drafted_at = sequence.tokens.len();
                lane.draft.clear();
                wanted.push(Wanted { seq: sequence.seq, tokens: &sequence.tokens, most, guesses: &mut lane.draft });
            }
        }
        match drafter.draft(&mut wanted) {
            // A pass for which it had to catch up says nothing of those to come.
            Ok(took) => self.draft_step = took.map(|took| DraftStep { streams, drafted, took }),
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
                    let most = self.config.lookup.min(sequence.room().saturating_sub(1));
                    super::lookup::guess(&sequence.tokens, most, &mut lane.guesses);
                    if lane.guesses.is_empty() && lane.drafted_at == sequence.tokens.len() {
                        lane.guesses.extend_from_slice(&lane.draft);
                    }
                    // Nothing follows the end, and no image is written.
                    let ends = |token: &u32| is_image(*token) || self.forward.is_end(*token);
                    let end = lane.guesses.iter().position(ends);
                    lane.guesses.truncate(end.unwrap_or(usize::MAX));
                }
                Work::Decode { guesses: lane.guesses.len() }
            } else if let Some((image, row)) = sequence.images.at(sequence.computed) {
                Work::Image { rows: image.n - row, whole: image.whole }
            } else {
                let save = self.cache.next_save(sequence.seq).unwrap_or(usize::MAX);
                let text = stretch(&sequence.tokens, sequence.computed);
                Work::Prefill {
                    left: sequence.pending(),
                    cut: sequence.cut.min(save).min(sequence.own_cut()).min(text).max(1),
                }
            };
            let (set, turn) = self.cache.turn(sequence.seq);
            let (deadline, served) = (sequence.deadline, sequence.served);
            self.views.push(View { work, deadline, served, set, turn: turn.pass, after_image: turn.image });
        }
    }
}
