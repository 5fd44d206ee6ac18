//! Which bytes of a file are there, and which are to be fetched next.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Sorted, apart from each other, none of them empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub(super) struct Ranges(Vec<Range<u64>>);

impl Ranges {
    pub fn insert(&mut self, new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        let from = self.0.partition_point(|range| range.end < new.start);
        let to = self.0.partition_point(|range| range.start <= new.end);
        let start = self.0[from..to].first().map_or(new.start, |first| first.start.min(new.start));
        let end = self.0[from..to].last().map_or(new.end, |last| last.end.max(new.end));
        self.0.splice(from..to, std::iter::once(start..end));
    }

    /// How many bytes are there.
    pub fn covered(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    /// Where the last of them ends.
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |range| range.end)
    }

    /// What is not there of the first `size` bytes.
    pub fn missing(&self, size: u64) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = 0;
        for range in &self.0 {
            let end = range.start.min(size);
            if at < end {
                gaps.push(at..end);
            }
            at = at.max(range.end);
        }
        if at < size {
            gaps.push(at..size);
        }
        gaps
    }

    /// The first piece of what is not there; empty at the end of a file that is whole.
    pub fn first_missing(&self, size: u64, piece: u64) -> Range<u64> {
        let gap = self.missing(size).into_iter().next().unwrap_or(size..size);
        gap.start..gap.end.min(gap.start.saturating_add(piece.max(1)))
    }

    /// [`Ranges::missing`] in pieces of at most `piece` bytes, in order.
    pub fn pieces(&self, size: u64, piece: u64) -> Vec<Range<u64>> {
        let piece = piece.max(1);
        let cut = |gap: Range<u64>| {
            let count = (gap.end - gap.start).div_ceil(piece);
            (0..count).map(move |n| {
                let start = gap.start + n * piece;
                start..gap.end.min(start.saturating_add(piece))
            })
        };
        self.missing(size).into_iter().flat_map(cut).collect()
    }
}

impl From<Ranges> for Vec<(u64, u64)> {
    fn from(ranges: Ranges) -> Self {
        ranges.0.into_iter().map(|range| (range.start, range.end)).collect()
    }
}

impl TryFrom<Vec<(u64, u64)>> for Ranges {
    type Error = String;

    fn try_from(pairs: Vec<(u64, u64)>) -> Result<Self, String> {
        let mut ranges = Self::default();
        for (start, end) in pairs {
            if start > end {
                return Err(format!("a range from {start} to {end}"));
            }
            ranges.insert(start..end);
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Ranges;

    const SIZE: u64 = 64;

    proptest! {
        /// Against a list of flags, one a byte.
        #[test]
        fn ranges_know_each_byte(inserted in prop::collection::vec((0..SIZE, 0..20u64), 0..12), piece in 1..70u64) {
            let mut ranges = Ranges::default();
            let mut flags = [false; SIZE as usize];
            for (start, length) in inserted {
                let end = (start + length).min(SIZE);
                ranges.insert(start..end);
                (start..end).for_each(|at| flags[at as usize] = true);
            }
            prop_assert_eq!(ranges.covered(), flags.iter().filter(|flag| **flag).count() as u64);
            prop_assert_eq!(ranges.end(), flags.iter().rposition(|flag| *flag).map_or(0, |at| at as u64 + 1));
            let missing: Vec<u64> = ranges.missing(SIZE).into_iter().flatten().collect();
            let expected: Vec<u64> = (0..SIZE).filter(|at| !flags[*at as usize]).collect();
            prop_assert_eq!(&missing, &expected);
            let pieces = ranges.pieces(SIZE, piece);
            prop_assert!(pieces.iter().all(|range| range.end - range.start <= piece && range.start < range.end));
            prop_assert_eq!(pieces.first().cloned().unwrap_or(SIZE..SIZE), ranges.first_missing(SIZE, piece));
            prop_assert_eq!(pieces.into_iter().flatten().collect::<Vec<_>>(), expected);
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].end < pair[1].start), "they would be one: {ranges:?}");
            let written = serde_json::to_string(&ranges).expect("plain numbers");
            prop_assert_eq!(serde_json::from_str::<Ranges>(&written).expect("as written"), ranges);
        }
    }

    #[test]
    fn a_file_of_unlikely_size_is_cut_without_overflow() {
        assert_eq!(Ranges::default().pieces(u64::MAX, u64::MAX - 1).len(), 2);
        assert!(serde_json::from_str::<Ranges>("[[5,4]]").is_err());
    }
}
