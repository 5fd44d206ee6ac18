//! How many KV cells are in use. Sequences that were forked share cells, so lengths cannot just be added up.

/// A stretch of cells that one sequence computed. Others may hold the beginning of it.
#[derive(Debug, Default)]
struct Run {
    /// Position of its first cell.
    start: usize,
    /// Who holds it, with the position behind the last cell that is held.
    holders: Vec<(u32, usize)>,
    /// Who may make it longer. `None` once its author has left, or went back behind another holder's end.
    author: Option<u32>,
}

impl Run {
    fn end(&self) -> usize {
        self.holders.iter().map(|(_, end)| *end).max().unwrap_or(self.start)
    }

    fn holder(&mut self, seq: u32) -> Option<&mut (u32, usize)> {
        self.holders.iter_mut().find(|(holder, _)| *holder == seq)
    }
}

/// Counts the cells of a unified KV cache, exactly.
#[derive(Debug)]
pub(super) struct Cells {
    runs: Vec<Run>,
    unused: Vec<usize>,
    /// For each sequence the runs that make it up, in order of position.
    sequences: Vec<Vec<usize>>,
    used: usize,
}

impl Cells {
    pub fn new(n_seq_max: usize) -> Self {
        Self { runs: Vec::new(), unused: Vec::new(), sequences: vec![Vec::new(); n_seq_max], used: 0 }
    }

    /// Cells that hold something.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Positions that the sequence holds.
    pub fn len(&self, seq: u32) -> usize {
        let last = self.sequences[seq as usize].last();
        last.and_then(|run| self.runs[*run].holders.iter().find(|(holder, _)| *holder == seq))
            .map_or(0, |(_, end)| *end)
    }

    /// Cells that at least one of the sequences that `counts` picks holds.
    pub fn held_by(&self, counts: impl Fn(u32) -> bool) -> usize {
        let held = |run: &Run| {
            let end = run.holders.iter().filter(|(seq, _)| counts(*seq)).map(|(_, end)| *end).max();
            end.map_or(0, |end| end - run.start)
        };
        self.runs.iter().map(held).sum()
    }

    /// The sequence computed `n` more positions.
    pub fn append(&mut self, seq: u32, n: usize) {
        if n == 0 {
            return;
        }
        self.used += n;
        let last = self.sequences[seq as usize].last().copied();
        if let Some(run) = last.map(|run| &mut self.runs[run]).filter(|run| run.author == Some(seq))
            && let Some((_, end)) = run.holder(seq)
        {
            *end += n;
            return;
        }
        let start = self.len(seq);
        let run = Run { start, holders: vec![(seq, start + n)], author: Some(seq) };
        let index = match self.unused.pop() {
            Some(index) => {
                self.runs[index] = run;
                index
            }
            None => {
                self.runs.push(run);
                self.runs.len() - 1
            }
        };
        self.sequences[seq as usize].push(index);
    }

    /// `to`, which is empty, shares the first `len` positions of `from`.
    pub fn fork(&mut self, from: u32, to: u32, len: usize) {
        debug_assert!(self.sequences[to as usize].is_empty() && len <= self.len(from));
        for index in self.sequences[from as usize].clone() {
            let run = &mut self.runs[index];
            if run.start >= len {
                break;
            }
            let start = run.start;
            let end = run.holder(from).map_or(start, |(_, end)| *end).min(len);
            run.holders.push((to, end));
            self.sequences[to as usize].push(index);
        }
    }

    /// The sequence gives up its positions from `len` on.
    pub fn truncate(&mut self, seq: u32, len: usize) {
        while let Some(index) = self.sequences[seq as usize].last().copied() {
            let run = &mut self.runs[index];
            let before = run.end();
            if run.start >= len {
                run.holders.retain(|(holder, _)| *holder != seq);
                self.sequences[seq as usize].pop();
            } else if let Some((_, end)) = run.holder(seq) {
                *end = (*end).min(len);
            }
            let after = run.end();
            self.used -= before - after;
            let own = run.holder(seq).map(|(_, end)| *end);
            if run.author == Some(seq) && own.is_none_or(|own| own < after) {
                run.author = None;
            }
            if run.holders.is_empty() {
                self.unused.push(index);
            }
            if own.is_some() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cells;

    #[test]
    fn shared_cells_count_once() {
        let mut cells = Cells::new(4);
        cells.append(0, 10);
        cells.fork(0, 1, 6);
        assert_eq!((cells.used(), cells.len(1)), (10, 6));
        cells.append(1, 3);
        assert_eq!((cells.used(), cells.len(1)), (13, 9));
        assert_eq!((cells.held_by(|seq| seq == 0), cells.held_by(|seq| seq == 1)), (10, 9));
        cells.truncate(0, 0);
        assert_eq!(cells.used(), 9, "the first six stay with their second holder");
        cells.truncate(1, 0);
        assert_eq!(cells.used(), 0);
    }

    #[test]
    fn two_that_go_on_from_the_same_end_part_ways() {
        let mut cells = Cells::new(4);
        cells.append(0, 5);
        cells.fork(0, 1, 5);
        cells.append(0, 2);
        cells.append(1, 2);
        assert_eq!(cells.used(), 9);
        cells.truncate(0, 3);
        assert_eq!(cells.used(), 7, "positions 3 and 4 are still held by the fork");
        cells.append(0, 4);
        assert_eq!((cells.used(), cells.len(0)), (11, 7), "what is computed again takes cells of its own");
    }
}
