//! Where the tokens of a sequence are for llama.cpp. Mostly that is their number; but some models read an image as a square that
//! takes up as many positions as it is wide or high, all of its rows at once.

/// The images of one sequence that take up other than one position a row.
#[derive(Clone, Debug, Default)]
pub(super) struct Positions(Vec<Image>);

#[derive(Clone, Copy, Debug)]
struct Image {
    /// Number of its first row.
    begin: usize,
    rows: usize,
    positions: usize,
}

impl Positions {
    /// The image that begins at `begin`, behind all others.
    pub fn add(&mut self, begin: usize, rows: usize, positions: usize) {
        // One that was begun before and not ended is computed anew.
        self.truncate(begin);
        self.0.push(Image { begin, rows, positions });
    }

    /// Position of token `index`; in an image, that of its first row.
    pub fn at(&self, index: usize) -> usize {
        let mut at = index;
        for image in self.0.iter().take_while(|image| image.begin < index) {
            if index < image.begin + image.rows {
                return at - (index - image.begin);
            }
            at = at - image.rows + image.positions;
        }
        at
    }

    /// Whether `len` tokens end in the middle of one.
    pub fn is_inside(&self, len: usize) -> bool {
        self.0.iter().any(|image| image.begin < len && len < image.begin + image.rows)
    }

    /// Forgets what is not wholly among the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.0.retain(|image| image.begin + image.rows <= len);
    }
}

#[cfg(test)]
mod tests {
    use super::Positions;

    #[test]
    fn images_take_up_fewer_positions_than_they_have_rows() {
        let mut positions = Positions::default();
        assert_eq!(positions.at(7), 7);
        positions.add(3, 12, 4);
        positions.add(17, 6, 3);
        assert_eq!([0, 3, 4, 14, 15, 16, 17, 22, 23, 30].map(|at| positions.at(at)), [0, 3, 3, 3, 7, 8, 9, 9, 12, 19]);
        assert_eq!([3, 4, 15, 17, 18, 23].map(|at| positions.is_inside(at)), [false, true, false, false, true, false]);
        positions.truncate(23);
        assert_eq!(positions.at(30), 19);
        // A pass that was stopped begins again.
        positions.add(17, 6, 3);
        assert_eq!(positions.at(23), 12);
        positions.truncate(22);
        assert_eq!(positions.at(30), 22, "the second image was not whole");
    }
}
