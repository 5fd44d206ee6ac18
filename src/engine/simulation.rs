//! A model that is no model: it keeps book of its cache as strictly as llama.cpp does, and its next token follows from
//! the tokens before by a rule. The stub runner and the engine's own tests run on it.

use std::sync::Arc;
use std::time::Duration;

use crate::constrain::TokenFilter;

use super::adapters::AdapterSet;
use super::command::Measure;
use super::forward::{Forward, ForwardError, Lane, Probabilities, Reuse, Row, Shape, TokenId};
use super::handle::{EngineConfig, EngineHandle};
use super::image::{ImagePass, is_image, is_inside};
use super::request::SamplingParams;

/// What comes next in a sequence.
pub trait Rule: Send + Sync {
    /// The token after `tokens`, of which the first `prompt` were given, as the model with these adapters says it.
    ///
    /// # Errors
    /// A failure that ends the sequence.
    fn next(&self, tokens: &[TokenId], prompt: usize, adapters: &AdapterSet) -> Result<TokenId, String>;

    /// Text of a token; `None` for the one that ends a generation.
    fn piece(&self, token: TokenId) -> Option<Arc<str>>;
}

/// How the simulated machine is made.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub n_cells: usize,
    pub n_ctx_seq: usize,
    pub n_batch: usize,
    pub n_seq_max: u32,
    /// Sequences cannot be cut, as with recurrent models.
    pub recurrent: bool,
    /// Slept in each pass.
    pub pace: Duration,
}

/// One sequence's part of the cache.
#[derive(Clone, Debug, Default)]
struct Held {
    tokens: Vec<TokenId>,
    cells: Vec<usize>,
    /// Position that a recurrent state has come to.
    state: usize,
    /// Key of the adapter set that the cells were computed with.
    adapters: Vec<(u64, u32)>,
}

pub(super) struct Simulation {
    rule: Arc<dyn Rule>,
    machine: Machine,
    /// How many sequences hold each cell.
    holders: Vec<u32>,
    free: Vec<usize>,
    held: Vec<Held>,
    /// Sequence and length at each row of the latest pass.
    rows: Vec<(u32, usize)>,
    /// Of the latest pass.
    adapters: AdapterSet,
    /// What a pass takes by the simulated clock, and each of its rows.
    pub times: (Duration, Duration),
}

impl EngineHandle {
    /// An engine without a model.
    ///
    /// # Errors
    /// Why there is no thread for it.
    pub fn start_simulation(rule: Arc<dyn Rule>, machine: Machine, config: EngineConfig) -> Result<Self, String> {
        Self::start(config, move || Ok((Simulation::new(rule, machine), None)), |why| why)
    }
}

impl Simulation {
    pub fn new(rule: Arc<dyn Rule>, machine: Machine) -> Self {
        Self {
            rule,
            machine,
            holders: vec![0; machine.n_cells],
            free: (0..machine.n_cells).rev().collect(),
            held: vec![Held::default(); machine.n_seq_max as usize],
            rows: Vec::new(),
            adapters: AdapterSet::default(),
            times: (Duration::from_millis(5), Duration::from_millis(1)),
        }
    }

    /// Cells that are held.
    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.machine.n_cells - self.free.len()
    }

    /// Tokens of a sequence.
    #[cfg(test)]
    pub fn tokens(&self, seq: u32) -> &[TokenId] {
        &self.held[seq as usize].tokens
    }

    fn append(&mut self, row: Row) -> Result<(), ForwardError> {
        let held = &mut self.held[row.seq as usize];
        if held.tokens.len() != row.pos || held.state != row.pos {
            let (len, state) = (held.tokens.len(), held.state);
            return Err(ForwardError::Failed(format!(
                "position {} of a sequence that holds {len} and has come to {state}",
                row.pos
            )));
        }
        if held.tokens.is_empty() {
            held.adapters = self.adapters.key().collect();
        } else if !held.adapters.iter().copied().eq(self.adapters.key()) {
            return Err(ForwardError::Failed(format!(
                "a sequence that was computed with {:?} goes on with {:?}",
                held.adapters, self.adapters
            )));
        }
        let cell = self.free.pop().ok_or(ForwardError::NoCells)?;
        self.holders[cell] = 1;
        held.tokens.push(row.token);
        held.cells.push(cell);
        held.state += 1;
        Ok(())
    }
}

/// An image has a pass of its own, which has as much of it as it is said to have.
fn check_image(rows: &[Row], image: Option<ImagePass<'_>>) -> Result<(), ForwardError> {
    let failed = |what: &str| Err(ForwardError::Failed(what.into()));
    let Some(ImagePass { image, rows: part }) = image else {
        return if rows.iter().any(|row| is_image(row.token)) { failed("an image is not there") } else { Ok(()) };
    };
    if !image.tokens().skip(part.start).take(part.len()).eq(rows.iter().map(|row| row.token)) {
        return failed("rows that are not the image's");
    }
    if image.whole && part.len() != image.n {
        return failed("part of an image that is read as a whole");
    }
    if rows.iter().any(|row| row.seq != rows[0].seq) { failed("an image in two sequences") } else { Ok(()) }
}

impl Forward for Simulation {
    /// Length of the prompt.
    type Sampler = usize;
    type Saved = usize;

    fn shape(&self) -> Shape {
        Shape {
            n_cells: self.machine.n_cells,
            n_ctx_seq: self.machine.n_ctx_seq,
            n_batch: self.machine.n_batch,
            n_outputs: self.machine.n_seq_max as usize,
            n_seq_max: self.machine.n_seq_max,
            tile: 64,
            reuse: if self.machine.recurrent { Reuse::Whole } else { Reuse::Any },
        }
    }

    fn sampler(
        &self,
        _: &SamplingParams,
        _: u32,
        prompt: &[TokenId],
        _: Option<Box<dyn TokenFilter>>,
    ) -> Result<usize, String> {
        Ok(prompt.len())
    }

    fn set_temperature(&self, _: &mut usize, _: f32) -> Result<(), String> {
        Ok(())
    }

    fn decode(
        &mut self,
        rows: &[Row],
        image: Option<ImagePass<'_>>,
        adapters: &AdapterSet,
    ) -> Result<(), ForwardError> {
        self.rows.clear();
        self.adapters = adapters.clone();
        check_image(rows, image)?;
        if rows.len() > self.free.len() {
            return Err(ForwardError::NoCells);
        }
        for row in rows {
            self.append(*row)?;
            self.rows.push((row.seq, row.pos + 1));
        }
        if !self.machine.pace.is_zero() {
            std::thread::sleep(self.machine.pace);
        }
        Ok(())
    }

    fn sample(&mut self, lanes: &mut [Lane<usize>]) {
        for lane in lanes {
            lane.sample(|prompt, row, wanted| {
                let (seq, len) = self.rows[row];
                if len > *prompt && self.rule.piece(self.held[seq as usize].tokens[len - 1]).is_none() {
                    return Err("nothing follows the end".into());
                }
                let token = self.rule.next(&self.held[seq as usize].tokens[..len], *prompt, &self.adapters)?;
                // There is nothing else that it could have been.
                let certain = |n| Probabilities { sampled: 0.0, top: [(token, 0.0)].into_iter().take(n).collect() };
                Ok((token, wanted.map(certain)))
            });
        }
    }

    fn append_piece(&self, token: TokenId, _: bool, out: &mut Vec<u8>) -> Result<(), String> {
        let piece = self.rule.piece(token).ok_or("the end has no text")?;
        out.extend_from_slice(piece.as_bytes());
        Ok(())
    }

    fn is_end(&self, token: TokenId) -> bool {
        self.rule.piece(token).is_none()
    }

    fn fork(&mut self, from: u32, to: u32, len: usize) -> Result<(), String> {
        let source = self.held[from as usize].clone();
        if is_inside(&source.tokens, len) {
            return Err(format!("{len} positions end in an image"));
        }
        if !self.held[to as usize].tokens.is_empty() || len > source.tokens.len() {
            return Err(format!("{len} of {} positions onto a sequence in use", source.tokens.len()));
        }
        let state = if self.machine.recurrent { source.state } else { len };
        for cell in &source.cells[..len] {
            self.holders[*cell] += 1;
        }
        self.held[to as usize] =
            Held { tokens: source.tokens[..len].to_vec(), cells: source.cells[..len].to_vec(), state, ..source };
        Ok(())
    }

    fn let_go(&mut self) {
        if self.adapters.is_stale() {
            self.adapters = AdapterSet::default();
        }
    }

    fn truncate(&mut self, seq: u32, len: usize) -> Result<bool, String> {
        let held = &mut self.held[seq as usize];
        if self.machine.recurrent && len > 0 && len < held.tokens.len() || is_inside(&held.tokens, len) {
            return Ok(false);
        }
        held.tokens.truncate(len);
        held.state = held.state.min(len);
        for cell in held.cells.drain(len.min(held.cells.len())..) {
            self.holders[cell] -= 1;
            if self.holders[cell] == 0 {
                self.free.push(cell);
            }
        }
        Ok(true)
    }

    fn save(&mut self, seq: u32) -> Option<usize> {
        Some(self.held[seq as usize].state)
    }

    fn restore(&mut self, seq: u32, saved: &usize) -> Result<(), String> {
        self.held[seq as usize].state = *saved;
        Ok(())
    }

    fn set_threads(&mut self, _: u32) {}

    fn aborter(&self) -> Box<dyn Fn() + Send + Sync> {
        Box::new(|| {})
    }

    fn clear_abort(&mut self) {}

    /// A device whose passes cost in steps.
    fn pass_costs(&mut self) -> Vec<(usize, Duration)> {
        let costs = [(1, 5), (4, 8), (8, 15), (16, 44), (64, 53), (128, 143), (256, 160), (512, 231)];
        costs.map(|(rows, ms)| (rows, Duration::from_millis(ms))).to_vec()
    }

    /// So that simulations repeat exactly.
    fn pass_time(&self) -> Option<Duration> {
        let (pass, row) = self.times;
        Some(pass + row * u32::try_from(self.rows.len()).unwrap_or(u32::MAX))
    }

    fn measure(&mut self, _: Measure, _: &AdapterSet) -> Result<f64, String> {
        Err("a simulation has no speed to measure".into())
    }
}
