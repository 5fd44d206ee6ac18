//! The KV cache as the engine keeps book of it: which sequence ids run, which are kept for what they hold, and
//! which beginnings a new prompt can share.

use super::adapters::{AdapterSet, SetId, Sets, Turn};
use super::cells::Cells;
use super::forward::{Forward, Reuse, Shape, TokenId};
use super::image::{is_inside, uncut};
use super::prefix_tree::{Match, PrefixTree};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Holder {
    #[default]
    Nobody,
    Running,
    /// Its request is done; its cells stay until someone needs them.
    Idle,
}

#[derive(Debug)]
struct Entry<S> {
    holder: Holder,
    /// For which branch goes first.
    used_at: u64,
    /// Length at which a state was kept, where the memory cannot go back by itself.
    saved: Option<(usize, S)>,
    /// Length at which one will be kept; 0 where none will.
    save_at: usize,
    /// Adapters that its cells are computed with, where the tree has it.
    set: Option<SetId>,
}

impl<S> Default for Entry<S> {
    fn default() -> Self {
        Self { holder: Holder::Nobody, used_at: 0, saved: None, save_at: 0, set: None }
    }
}

/// What a prompt can share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Computed already.
    pub ready: Option<Match>,
    /// More than that, being computed by a running sequence.
    pub coming: Option<Match>,
}

impl Found {
    pub fn ready_len(&self) -> usize {
        self.ready.map_or(0, |found| found.len)
    }
}

/// A sequence id with the beginning of the prompt in its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admission {
    pub seq: u32,
    pub cached: usize,
}

#[derive(Debug)]
pub(super) struct Cache<S> {
    shape: Shape,
    tree: PrefixTree,
    sets: Sets,
    cells: Cells,
    entries: Vec<Entry<S>>,
    clock: u64,
}

impl<S> Cache<S> {
    pub fn new(shape: Shape) -> Self {
        let n = shape.n_seq_max as usize;
        let entries = (0..n).map(|_| Entry::default()).collect();
        Self { shape, tree: PrefixTree::new(n), sets: Sets::default(), cells: Cells::new(n), entries, clock: 0 }
    }

    /// What the prompt can share now, and soon, of what is computed with the same adapters. Its last token is always
    /// computed again, for its logits.
    pub fn find(&self, prompt: &[TokenId], adapters: &AdapterSet) -> Found {
        let mut found = Found::default();
        let limit = prompt.len().saturating_sub(1);
        if self.shape.reuse == Reuse::Nothing || limit == 0 {
            return found;
        }
        let Some(set) = self.sets.find(adapters) else { return found };
        for candidate in self.tree.matches(set, &prompt[..limit]) {
            if candidate.len <= found.ready_len() {
                break;
            }
            let (now, soon) = self.usable(candidate, prompt);
            if now > found.ready_len() {
                found.ready = Some(Match { seq: candidate.seq, len: now });
            }
            if soon > found.coming.map_or(0, |coming| coming.len) {
                found.coming = Some(Match { seq: candidate.seq, len: soon });
            }
        }
        let ready = found.ready_len();
        found.coming = found.coming.filter(|coming| coming.len > ready);
        found
    }

    /// How much of a match is there, and how much will be. Images are shared as a whole.
    fn usable(&self, candidate: Match, prompt: &[TokenId]) -> (usize, usize) {
        let (seq, shared) = (candidate.seq, uncut(prompt, candidate.len));
        let entry = &self.entries[seq as usize];
        let computed = self.cells.len(seq);
        let runs = entry.holder == Holder::Running;
        match self.shape.reuse {
            Reuse::Nothing => (0, 0),
            Reuse::Any => (uncut(prompt, shared.min(computed)), if runs { shared } else { 0 }),
            Reuse::Whole => {
                let whole = if computed <= shared && !is_inside(prompt, computed) { computed } else { 0 };
                let saved = entry.saved.as_ref().map_or(0, |(len, _)| *len);
                let now = whole.max(if saved <= shared { saved } else { 0 });
                let soon = if runs && computed < entry.save_at && entry.save_at <= shared { entry.save_at } else { 0 };
                (now, soon)
            }
        }
    }

    /// Gives the prompt a sequence id that holds as much of it as can be shared. `None` where no id is free. One that is
    /// to be `repeatable` takes the place of an idle branch that went on from the same prompt: what comes lies in the
    /// same cells then, and is added up in the same order.
    pub fn admit<F: Forward<Saved = S>>(
        &mut self,
        forward: &mut F,
        prompt: &[TokenId],
        adapters: &AdapterSet,
        found: Found,
        repeatable: bool,
    ) -> Result<Option<Admission>, String> {
        self.clock += 1;
        let source = found
            .ready
            .filter(|source| self.cells.len(source.seq) == source.len || forward.is_whole(source.seq, source.len));
        let Some(source) = source else {
            let Some(seq) = self.free_id(forward, None)? else { return Ok(None) };
            return Ok(Some(self.enter(seq, prompt, adapters, 0)));
        };
        let idle = self.entries[source.seq as usize].holder == Holder::Idle;
        if idle && self.cells.len(source.seq) == source.len {
            return Ok(Some(self.enter(source.seq, prompt, adapters, source.len)));
        }
        let same_prompt = repeatable && source.len == uncut(prompt, prompt.len() - 1);
        if idle && same_prompt && self.shape.reuse == Reuse::Any && forward.truncate(source.seq, source.len)? {
            self.cells.truncate(source.seq, source.len);
            return Ok(Some(self.enter(source.seq, prompt, adapters, source.len)));
        }
        if let Some(seq) = self.free_id(forward, Some(source.seq))? {
            forward.fork(source.seq, seq, source.len)?;
            self.cells.fork(source.seq, seq, source.len);
            if self.shape.reuse == Reuse::Whole
                && self.cells.len(source.seq) != source.len
                && let Some((_, saved)) = &self.entries[source.seq as usize].saved
                && let Err(error) = forward.restore(seq, saved)
            {
                forward.truncate(seq, 0)?;
                self.cells.truncate(seq, 0);
                return Err(error);
            }
            return Ok(Some(self.enter(seq, prompt, adapters, source.len)));
        }
        // The source itself is the only id left.
        if idle && self.shape.reuse == Reuse::Any && forward.truncate(source.seq, source.len)? {
            self.cells.truncate(source.seq, source.len);
            return Ok(Some(self.enter(source.seq, prompt, adapters, source.len)));
        }
        Ok(None)
    }

    fn enter(&mut self, seq: u32, prompt: &[TokenId], adapters: &AdapterSet, cached: usize) -> Admission {
        let set = self.sets.enter(adapters);
        self.tree.set(seq, set, prompt);
        let entry = &mut self.entries[seq as usize];
        if let Some(before) = entry.set.replace(set) {
            self.sets.leave(before);
        }
        entry.holder = Holder::Running;
        entry.used_at = self.clock;
        // A state at the end of the prompt would not do: the last token is computed again for its logits.
        entry.save_at = if self.shape.reuse == Reuse::Whole { uncut(prompt, prompt.len() - 1) } else { 0 };
        if entry.saved.as_ref().is_some_and(|(len, _)| *len > cached) {
            entry.saved = None;
        }
        Admission { seq, cached }
    }

    /// An id that nobody holds; an idle branch makes room where need be, but not `keep`.
    fn free_id<F: Forward<Saved = S>>(&mut self, forward: &mut F, keep: Option<u32>) -> Result<Option<u32>, String> {
        if let Some(seq) = self.entries.iter().position(|entry| entry.holder == Holder::Nobody) {
            return Ok(u32::try_from(seq).ok());
        }
        let oldest = self.oldest_idle(keep);
        if let Some(seq) = oldest {
            self.release(forward, seq)?;
        }
        Ok(oldest)
    }

    fn oldest_idle(&self, keep: Option<u32>) -> Option<u32> {
        (0u32..)
            .zip(&self.entries)
            .filter(|(seq, entry)| entry.holder == Holder::Idle && Some(*seq) != keep)
            .min_by_key(|(_, entry)| entry.used_at)
            .map(|(seq, _)| seq)
    }

    /// Frees cells of idle branches until `n` are free; the oldest branches go first. `false` where that is not
    /// enough.
    pub fn make_room<F: Forward<Saved = S>>(&mut self, forward: &mut F, n: usize) -> Result<bool, String> {
        while self.free_cells() < n {
            let Some(seq) = self.oldest_idle(None) else { return Ok(false) };
            self.release(forward, seq)?;
        }
        Ok(true)
    }

    /// The sequence goes on with these tokens, which are not computed yet.
    pub fn goes_on(&mut self, seq: u32, tokens: &[TokenId]) {
        if self.shape.reuse != Reuse::Nothing {
            self.tree.extend(seq, tokens);
        }
    }

    /// Takes computed tokens back. Where the memory cannot go back part of the way, all of them; the result is what
    /// is left.
    pub fn rewind<F: Forward<Saved = S>>(&mut self, forward: &mut F, seq: u32, len: usize) -> Result<usize, String> {
        let left = if forward.truncate(seq, len)? {
            len
        } else {
            forward.truncate(seq, 0)?;
            0
        };
        self.cells.truncate(seq, left);
        let entry = &mut self.entries[seq as usize];
        if entry.saved.as_ref().is_some_and(|(len, _)| *len > left) {
            entry.saved = None;
        }
        Ok(left)
    }

    /// Where the next stretch of the prompt must end so that a state can be kept there: tokens from `computed` on.
    pub fn next_save(&self, seq: u32) -> Option<usize> {
        self.entries[seq as usize].save_at.checked_sub(self.cells.len(seq)).filter(|left| *left > 0)
    }

    /// The sequence computed `n` more tokens.
    pub fn grew<F: Forward<Saved = S>>(&mut self, forward: &mut F, seq: u32, n: usize) {
        self.cells.append(seq, n);
        let len = self.cells.len(seq);
        let entry = &mut self.entries[seq as usize];
        if entry.save_at == len {
            entry.saved = forward.save(seq).map(|saved| (len, saved));
        }
    }

    /// The request is done: what its sequence computed stays for others to share.
    pub fn retire<F: Forward<Saved = S>>(
        &mut self,
        forward: &mut F,
        seq: u32,
        tokens: &[TokenId],
    ) -> Result<(), String> {
        let computed = self.cells.len(seq);
        if computed == 0 || self.shape.reuse == Reuse::Nothing {
            return self.release(forward, seq);
        }
        self.tree.truncate(seq, computed);
        self.clock += 1;
        let entry = &mut self.entries[seq as usize];
        entry.holder = Holder::Idle;
        entry.used_at = self.clock;
        // A branch that this one continues has nothing of its own to offer, unless it keeps a state.
        let Some(set) = entry.set else { return Ok(()) };
        let covered = self.tree.matches(set, &tokens[..computed.min(tokens.len())]).find(|other| {
            let entry = &self.entries[other.seq as usize];
            other.seq != seq
                && entry.holder == Holder::Idle
                && entry.saved.is_none()
                && self.shape.reuse == Reuse::Any
                && other.len == self.tree.len(other.seq)
        });
        match covered {
            Some(other) => self.release(forward, other.seq),
            None => Ok(()),
        }
    }

    /// Frees the sequence's id and those of its cells that nobody shares.
    pub fn release<F: Forward<Saved = S>>(&mut self, forward: &mut F, seq: u32) -> Result<(), String> {
        self.tree.remove(seq);
        if let Some(set) = std::mem::take(&mut self.entries[seq as usize]).set {
            self.sets.leave(set);
        }
        if let Err(failure) = forward.truncate(seq, 0) {
            // Nobody can share it, and whoever needs room tries again.
            self.entries[seq as usize].holder = Holder::Idle;
            return Err(failure);
        }
        self.cells.truncate(seq, 0);
        Ok(())
    }

    /// Frees all idle branches.
    pub fn forget_idle<F: Forward<Saved = S>>(&mut self, forward: &mut F) -> Result<(), String> {
        while let Some(seq) = self.oldest_idle(None) {
            self.release(forward, seq)?;
        }
        Ok(())
    }

    /// Frees the idle branches that this adapter is part of.
    pub fn forget_adapter<F: Forward<Saved = S>>(&mut self, forward: &mut F, adapter: u64) -> Result<(), String> {
        for seq in (0u32..).take(self.entries.len()) {
            let entry = &self.entries[seq as usize];
            let has_it = entry.set.is_some_and(|set| self.sets.contains(set, adapter));
            if has_it && entry.holder == Holder::Idle {
                self.release(forward, seq)?;
            }
        }
        Ok(())
    }

    /// The number of a running sequence's adapter set, with the latest pass that was computed with it. Two with the same
    /// number can share a pass.
    pub fn turn(&self, seq: u32) -> (SetId, Turn) {
        self.entries[seq as usize].set.map_or((0, Turn::default()), |set| (set, self.sets.turn(set)))
    }

    /// A pass was computed with the adapters of this sequence.
    pub fn passed(&mut self, seq: u32, turn: Turn) {
        if let Some(set) = self.entries[seq as usize].set {
            self.sets.passed(set, turn);
        }
    }

    pub fn free_cells(&self) -> usize {
        self.shape.n_cells.saturating_sub(self.cells.used())
    }

    pub fn used_cells(&self) -> usize {
        self.cells.used()
    }

    /// Cells that running sequences hold. The rest is free, or can be.
    pub fn running_cells(&self) -> usize {
        self.cells.held_by(|seq| self.is_running(seq))
    }

    pub fn is_running(&self, seq: u32) -> bool {
        self.entries[seq as usize].holder == Holder::Running
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::forward::Row;
    use super::super::image::{ImagePass, ImageRows};
    use super::super::simulation::{Machine, Rule, Simulation};
    use super::*;

    struct Silent;

    impl Rule for Silent {
        fn next(&self, _: &[TokenId], _: usize, _: &AdapterSet) -> Result<TokenId, String> {
            Ok(0)
        }

        fn piece(&self, _: TokenId) -> Option<Arc<str>> {
            None
        }
    }

    fn simulation(recurrent: bool) -> Simulation {
        let machine =
            Machine { n_cells: 99, n_ctx_seq: 99, n_batch: 99, n_seq_max: 4, recurrent, pace: Duration::ZERO };
        Simulation::new(Arc::new(Silent), machine)
    }

    const TEXT: [TokenId; 3] = [1, 2, 3];

    /// A prompt of [`TEXT`] and an image of four rows.
    fn with_image() -> (Vec<TokenId>, ImageRows) {
        let image = ImageRows::new(4, 4, Vec::new(), Vec::new(), false);
        (TEXT.into_iter().chain(image.tokens()).collect(), image)
    }

    /// A cache in which a sequence runs that has computed the text and some rows of the image.
    fn cache_with(prompt: &[TokenId], image: &ImageRows, n_rows: usize) -> (Cache<usize>, Simulation) {
        let mut forward = simulation(false);
        let mut cache = Cache::new(forward.shape());
        let found = cache.find(prompt, &AdapterSet::default());
        let place = cache.admit(&mut forward, prompt, &AdapterSet::default(), found, false).unwrap().unwrap();
        assert_eq!(place, Admission { seq: 0, cached: 0 });
        let row = |pos: usize| Row { token: prompt[pos], pos, seq: 0, output: false };
        let text: Vec<Row> = (0..TEXT.len()).map(row).collect();
        let rows: Vec<Row> = (TEXT.len()..TEXT.len() + n_rows).map(row).collect();
        forward.decode(&text, None, &AdapterSet::default()).unwrap();
        forward.decode(&rows, Some(ImagePass { image, rows: 0..n_rows }), &AdapterSet::default()).unwrap();
        cache.grew(&mut forward, 0, TEXT.len() + n_rows);
        (cache, forward)
    }

    #[test]
    fn no_image_is_shared_in_part() {
        let (prompt, image) = with_image();
        let (cache, _) = cache_with(&prompt, &image, 2);
        let text = Some(Match { seq: 0, len: TEXT.len() });
        // Its last token is computed again, and so the whole image is.
        assert_eq!(cache.find(&prompt, &AdapterSet::default()), Found { ready: text, coming: None });
        let goes_on: Vec<TokenId> = prompt.iter().copied().chain([4]).collect();
        let all = Some(Match { seq: 0, len: prompt.len() });
        assert_eq!(cache.find(&goes_on, &AdapterSet::default()), Found { ready: text, coming: all });
    }

    #[test]
    fn what_repeats_takes_the_same_cells_also_where_an_image_ends_it() {
        let (prompt, image) = with_image();
        let (mut cache, mut forward) = cache_with(&prompt, &image, 4);
        cache.retire(&mut forward, 0, &prompt).unwrap();
        let found = cache.find(&prompt, &AdapterSet::default());
        let again = cache.admit(&mut forward, &prompt, &AdapterSet::default(), found, true).unwrap();
        assert_eq!(again, Some(Admission { seq: 0, cached: TEXT.len() }));
    }

    #[test]
    fn a_state_is_kept_in_front_of_the_image_that_ends_a_prompt() {
        let (prompt, _) = with_image();
        let mut forward = simulation(true);
        let mut cache = Cache::new(forward.shape());
        cache.admit(&mut forward, &prompt, &AdapterSet::default(), Found::default(), false).unwrap().unwrap();
        assert_eq!(cache.next_save(0), Some(TEXT.len()));
    }
}
