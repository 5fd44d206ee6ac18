//! One forward pass of the engine: from a plan to rows, through the model, and back to the sequences.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::adapters::Turn;
use super::error::EngineError;
use super::event::FinishReason;
use super::forward::{Forward, ForwardError, Row};
use super::image::ImagePass;
use super::meter::Meter;
use super::run::Engine;
use super::scheduler::Plan;
use super::sequence::{Sequence, Step};

impl<F: Forward> Engine<F> {
    /// Computes the plan's rows, of which there are some, samples where a sequence has caught up, and emits.
    pub(super) fn pass(&mut self) {
        self.fill_rows();
        self.begin_pass();
        let start = Instant::now();
        let adapters = &self.running[self.plan.shares[0].index].adapters;
        let image = image_of(&self.plan, &self.running);
        let result = self.forward.decode(&self.rows, image, adapters);
        let took = self.forward.pass_time().unwrap_or_else(|| start.elapsed());
        self.end_pass();
        tracing::trace!(rows = self.rows.len(), sequences = self.plan.shares.len(), took_us = took.as_micros(), "pass");
        if result.is_err() {
            for share in &self.plan.shares {
                self.lanes[share.index].row = None;
            }
        }
        match result {
            Ok(()) => self.passed(took),
            Err(ForwardError::Aborted) => self.rewind_all(),
            Err(ForwardError::NoCells) => {
                // Our book says that there is room; the cache knows better.
                tracing::warn!(rows = self.rows.len(), "the KV cache is fuller than expected");
                if self.cache.forget_idle(&mut self.forward).is_err() || !self.preempt() {
                    self.fail_all("the KV cache has no cells left");
                }
            }
            Err(ForwardError::Failed(failure)) => {
                let mut members: Vec<usize> = self.plan.shares.iter().map(|share| share.index).collect();
                members.sort_unstable_by(|a, b| b.cmp(a));
                for index in members {
                    self.fail(index, EngineError::Failed(failure.clone()));
                }
            }
        }
    }

    fn fill_rows(&mut self) {
        self.steps += 1;
        self.rows.clear();
        let turn = Turn { pass: self.steps, image: image_of(&self.plan, &self.running).is_some() };
        for share in &self.plan.shares {
            let (sequence, lane) = (&mut self.running[share.index], &mut self.lanes[share.index]);
            sequence.served = self.steps;
            self.cache.passed(sequence.seq, turn);
            let own = share.tokens.min(sequence.pending());
            lane.guesses.truncate(share.tokens - own);
            let caught_up = own == sequence.pending();
            lane.row = caught_up.then(|| self.rows.len() + own - 1);
            lane.sampled.clear();
            lane.probabilities.clear();
            let tokens = sequence.tokens[sequence.computed..][..own].iter().chain(&lane.guesses);
            let last_own = sequence.computed + own - 1;
            for (pos, token) in (sequence.computed..).zip(tokens) {
                let output = caught_up && pos >= last_own;
                self.rows.push(Row { token: *token, pos, seq: sequence.seq, output });
            }
        }
    }

    /// A reader that leaves during the pass stops it, if nobody else is in it.
    fn begin_pass(&mut self) {
        self.forward.clear_abort();
        if self.is_stopping() {
            self.shared.abort();
        }
        #[allow(clippy::cast_possible_truncation)] // Only to tell a pass from the few before it.
        let pass = NonZeroU32::new(self.steps as u32).unwrap_or(NonZeroU32::MAX);
        self.shared.begin_pass(pass, self.plan.shares.len());
        for share in &self.plan.shares {
            let control = self.running[share.index].events.control();
            control.join_pass(pass);
            // Its signal came before the mark, so it was not counted.
            if control.is_cancelled()
                && let Some(pass) = control.leave_pass()
            {
                self.shared.left_pass(pass);
            }
        }
    }

    fn end_pass(&mut self) {
        for share in &self.plan.shares {
            self.running[share.index].events.control().leave_pass();
        }
        self.shared.end_pass();
    }

    fn passed(&mut self, took: Duration) {
        let (mut decoded, mut prefilled) = (0, 0);
        let image = image_of(&self.plan, &self.running).is_some();
        for share in &self.plan.shares {
            let sequence = &mut self.running[share.index];
            sequence.computed += share.tokens;
            self.cache.grew(&mut self.forward, sequence.seq, share.tokens);
            if sequence.decoding {
                decoded += 1;
                prefilled += share.tokens - 1;
            } else {
                prefilled += share.tokens;
                self.prompt_clock += share.tokens as u64;
            }
        }
        if decoded == 0 {
            self.prompts_turn = self.steps;
        }
        // A pass of an image says nothing of one of tokens: llama.cpp may have made its graph anew for it.
        if !image {
            self.pace.measured(decoded, prefilled, took);
            self.costs.learn(decoded + prefilled, took);
        }
        self.set_temperatures();
        let start = Instant::now();
        self.forward.sample(&mut self.lanes);
        let sampled_in = start.elapsed();
        tracing::trace!(took_us = sampled_in.as_micros(), "sampled");
        self.note_payoff(self.forward.pass_time().unwrap_or(took + sampled_in));
        // From the back, since whoever ends is swapped with the last.
        for index in (0..self.running.len()).rev() {
            if let Some(failure) = self.lanes[index].failure.take() {
                self.fail(index, EngineError::Failed(failure));
            } else if !self.lanes[index].sampled.is_empty() {
                self.take_in(index);
            }
        }
    }

    fn set_temperatures(&mut self) {
        for (sequence, lane) in self.running.iter().zip(&mut self.lanes) {
            if lane.row.is_some()
                && let Some(temperature) = sequence.events.control().take_temperature()
                && let Err(failure) = self.forward.set_temperature(&mut lane.sampler, temperature)
            {
                lane.row = None;
                lane.failure = Some(failure);
            }
        }
    }

    /// Gives a sequence what was sampled for it, and takes back what was computed on a wrong guess.
    fn take_in(&mut self, index: usize) {
        let now = Instant::now();
        let sequence = &mut self.running[index];
        if sequence.is_exhausted() {
            // Nothing was asked for but the prompt.
            return self.finish(index, FinishReason::Length, None);
        }
        let guessed = self.lanes[index].guesses.len();
        let mut sampled = std::mem::take(&mut self.lanes[index].sampled);
        let mut probabilities = std::mem::take(&mut self.lanes[index].probabilities).into_iter();
        let before = sequence.tokens.len();
        let mut step = Ok(Step::Continue);
        for token in &sampled {
            step = sequence.push(&self.forward, *token, probabilities.next());
            if !matches!(step, Ok(Step::Continue)) {
                break;
            }
        }
        let pushed = sequence.tokens.len() - before;
        note_times(&self.meter, sequence, now, pushed);
        self.cache.goes_on(sequence.seq, &sequence.tokens[before..]);
        sequence.decoding = true;
        if guessed > 0 {
            self.meter.guessed_tokens.increment(guessed as u64);
            self.meter.accepted_guesses.increment(sampled.len() as u64 - 1);
            // The row of each right guess counts, and the one before them.
            let right = before - 1 + sampled.len();
            if right < sequence.computed {
                match self.cache.rewind(&mut self.forward, sequence.seq, right) {
                    Ok(left) => {
                        sequence.computed = left;
                        sequence.decoding = left == right;
                    }
                    Err(failure) => step = Err(failure),
                }
            }
        }
        sampled.clear();
        self.lanes[index].sampled = sampled;
        match step {
            Ok(Step::Continue) => {}
            Ok(Step::Finished { reason, stop }) => self.finish(index, reason, stop),
            Err(failure) => self.fail(index, EngineError::Failed(failure)),
        }
    }

    /// An aborted pass may have left some of its rows in the cache.
    fn rewind_all(&mut self) {
        let mut members: Vec<usize> = self.plan.shares.iter().map(|share| share.index).collect();
        members.sort_unstable_by(|a, b| b.cmp(a));
        for index in members {
            let sequence = &mut self.running[index];
            match self.cache.rewind(&mut self.forward, sequence.seq, sequence.computed) {
                Ok(left) => {
                    sequence.decoding &= left == sequence.computed;
                    sequence.computed = left;
                }
                Err(failure) => self.fail(index, EngineError::Failed(failure)),
            }
        }
    }
}

/// The rows of an image that a pass is for, before it.
fn image_of<'a>(plan: &Plan, running: &'a [Sequence]) -> Option<ImagePass<'a>> {
    let share = plan.shares.first()?;
    let sequence = &running[share.index];
    let (image, row) = sequence.images.at(sequence.computed)?;
    Some(ImagePass { image, rows: row..row + share.tokens })
}

fn note_times(meter: &Meter, sequence: &mut Sequence, now: Instant, pushed: usize) {
    let clock = &mut sequence.clock;
    if clock.first_token.is_none() {
        clock.first_token = Some(now);
        meter.ttft.record(now.saturating_duration_since(clock.submitted));
    } else if let Some(latest) = clock.latest_token
        && pushed > 0
    {
        meter.inter_token.record(now.saturating_duration_since(latest));
    }
    clock.latest_token = Some(now);
    meter.generated_tokens.increment(pushed as u64);
}
