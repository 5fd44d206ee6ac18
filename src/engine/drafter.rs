//! Guessing the next tokens with a second, smaller model. Its own context follows the sequences of the first one; the first
//! model verifies each guess, so the text is the one that it would have written anyway.

use std::time::{Duration, Instant};

use super::adapters::AdapterSet;
use super::forward::{Forward, ForwardError, Lane, Row, TokenId};
use super::request::SamplingParams;

/// How likely a token must be to the drafting model: a guess that is wrong costs a row of the large one.
const LIKELY: f32 = 0.6;
/// Fewest tokens that another sequence must have in common to begin from what it holds.
const WORTH_SHARING: usize = 32;
/// Most tokens that one pass of the model adds to a sequence: as many guesses as can be asked for, and what follows them.
const READ_ALONG: usize = 33;

/// A sequence that wants guesses.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub seq: u32,
    pub tokens: &'a [TokenId],
    pub most: usize,
    /// Appended to. Stays empty while the drafting model has not read all `tokens`.
    pub guesses: &'a mut Vec<TokenId>,
}

/// See the module.
pub(super) struct Drafter<F: Forward> {
    pub forward: F,
    /// What the context holds of each sequence.
    held: Vec<Vec<TokenId>>,
    lanes: Vec<Lane<F::Sampler>>,
    rows: Vec<Row>,
}

impl<F: Forward> Drafter<F> {
    /// # Errors
    /// What making a sampler failed with.
    #[cfg_attr(not(any(test, feature = "llama")), expect(dead_code, reason = "nothing drafts for the stub"))]
    pub fn new(forward: F) -> Result<Self, String> {
        let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
        let n = forward.shape().n_seq_max as usize;
        let lane = || Ok(Lane { logprobs: Some(0), ..Lane::new(forward.sampler(&greedy, 0, &[], None)?) });
        let lanes = (0..n).map(|_| lane()).collect::<Result<_, String>>()?;
        Ok(Self { held: vec![Vec::new(); n], lanes, rows: Vec::new(), forward })
    }

    /// Guesses what follows, and says how long that took; `None` where it had to read more than one pass of the model adds. One
    /// pass reads what is new of the sequences, as far as it has room; each guess takes one more.
    ///
    /// # Errors
    /// What the model failed with.
    pub fn draft(&mut self, wanted: &mut [Wanted<'_>]) -> Result<Option<Duration>, String> {
        let mut took = Duration::ZERO;
        let mut behind = false;
        for sequence in wanted.iter() {
            self.align(sequence.seq, sequence.tokens)?;
        }
        self.rows.clear();
        let mut room = self.make_room(wanted)?;
        for sequence in wanted.iter() {
            let held = self.held[sequence.seq as usize].len();
            let new = &sequence.tokens[held..];
            behind |= new.len() > READ_ALONG;
            let taken = new.len().min(room);
            room -= taken;
            self.add_rows(sequence.seq, &new[..taken], taken == new.len());
        }
        while !self.rows.is_empty() {
            let Some(pass) = self.pass()? else { break };
            took += pass;
            self.rows.clear();
            for sequence in wanted.iter_mut() {
                let Some(guess) = self.sampled(sequence.seq) else { continue };
                sequence.guesses.push(guess);
                if sequence.guesses.len() < sequence.most && !self.forward.is_end(guess) {
                    self.add_rows(sequence.seq, &[guess], true);
                }
            }
        }
        Ok((!behind).then_some(took))
    }

    /// Takes back what is not the beginning of `tokens`, of which the last is always read anew.
    fn align(&mut self, seq: u32, tokens: &[TokenId]) -> Result<(), String> {
        let own = common(&self.held[seq as usize], tokens);
        // Mostly it holds all but what came last.
        if tokens.len() > own + WORTH_SHARING
            && let Some((most, other)) = self.longest_other(tokens)
            && most >= own + WORTH_SHARING
            && self.forward.is_whole(other, most)
        {
            self.forget(seq as usize)?;
            self.forward.fork(other, seq, most)?;
            self.held[seq as usize].extend_from_slice(&tokens[..most]);
        } else if own < self.held[seq as usize].len() {
            if !self.forward.truncate(seq, own)? {
                return self.forget(seq as usize);
            }
            self.held[seq as usize].truncate(own);
        }
        Ok(())
    }

    /// The sequence that has most of the beginning of `tokens`, and how much.
    fn longest_other(&self, tokens: &[TokenId]) -> Option<(usize, u32)> {
        (0..).zip(&self.held).map(|(seq, held)| (common(held, tokens), seq)).max()
    }

    /// Rows that the next pass may have, and those behind it in all: sequences that want nothing now make room.
    fn make_room(&mut self, wanted: &[Wanted<'_>]) -> Result<usize, String> {
        let shape = self.forward.shape();
        let new: usize = wanted.iter().map(|w| w.tokens.len() - self.held[w.seq as usize].len() + w.most).sum();
        let used = |held: &[Vec<TokenId>]| held.iter().map(Vec::len).sum::<usize>();
        for seq in 0..self.held.len() {
            if used(&self.held) + new <= shape.n_cells {
                break;
            }
            if wanted.iter().all(|wanted| wanted.seq as usize != seq) {
                self.forget(seq)?;
            }
        }
        let guesses: usize = wanted.iter().map(|wanted| wanted.most).sum();
        Ok(shape.n_batch.min(shape.n_cells.saturating_sub(used(&self.held) + guesses)))
    }

    fn forget(&mut self, seq: usize) -> Result<(), String> {
        if !self.held[seq].is_empty() {
            #[allow(clippy::cast_possible_truncation)] // One of n_seq_max.
            self.forward.truncate(seq as u32, 0)?;
            self.held[seq].clear();
        }
        Ok(())
    }

    fn add_rows(&mut self, seq: u32, tokens: &[TokenId], output: bool) {
        let held = &mut self.held[seq as usize];
        for (at, token) in tokens.iter().enumerate() {
            let output = output && at + 1 == tokens.len();
            if output {
                self.lanes[seq as usize].row = Some(self.rows.len());
            }
            self.rows.push(Row { token: *token, pos: held.len(), seq, output });
            held.push(*token);
        }
    }

    /// How long it took; `None` where there was no room after all, and nothing is held then.
    fn pass(&mut self) -> Result<Option<Duration>, String> {
        for lane in &mut self.lanes {
            lane.sampled.clear();
            lane.probabilities.clear();
        }
        let start = Instant::now();
        match self.forward.decode(&self.rows, None, &AdapterSet::default()) {
            Ok(()) => {}
            Err(error) => {
                self.lanes.iter_mut().for_each(|lane| lane.row = None);
                return match error {
                    ForwardError::Failed(failure) => Err(failure),
                    ForwardError::Aborted => Err("its pass was stopped".into()),
                    ForwardError::NoCells => (0..self.held.len()).try_for_each(|seq| self.forget(seq)).map(|()| None),
                };
            }
        }
        self.forward.sample(&mut self.lanes);
        let took = self.forward.pass_time().unwrap_or_else(|| start.elapsed());
        match self.lanes.iter_mut().find_map(|lane| lane.failure.take()) {
            Some(failure) => Err(failure),
            None => Ok(Some(took)),
        }
    }

    /// What the latest pass says of a sequence, where it is sure enough.
    fn sampled(&self, seq: u32) -> Option<TokenId> {
        let lane = &self.lanes[seq as usize];
        let token = *lane.sampled.first()?;
        let is_likely = lane.probabilities.first().is_some_and(|found| found.sampled >= LIKELY.ln());
        is_likely.then_some(token)
    }
}

/// Tokens that `held` and `tokens` begin with, without the last of `tokens`.
fn common(held: &[TokenId], tokens: &[TokenId]) -> usize {
    let most = tokens.len().saturating_sub(1);
    held.iter().zip(&tokens[..most]).take_while(|(a, b)| a == b).count()
}
