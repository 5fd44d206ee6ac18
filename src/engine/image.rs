//! Images in a prompt. A row of one stands where a token would, and has a number that no token has, so that prompts with images
//! are lists of numbers as all others are: what is equal is shared, and what differs is not.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::forward::TokenId;

/// Vocabularies are much smaller.
const IMAGE: TokenId = 1 << 31;
/// Not the first row of its image.
const GOES_ON: TokenId = 1 << 30;

/// Whether a prompt has a row of an image there, and no token.
#[must_use]
pub fn is_image(id: TokenId) -> bool {
    id & IMAGE != 0
}

/// Whether an image began before `at`, and goes on there.
pub(super) fn is_inside(tokens: &[TokenId], at: usize) -> bool {
    tokens.get(at).is_some_and(|id| is_image(*id) && id & GOES_ON != 0)
}

/// The latest place up to `at` where no image is cut.
pub(super) fn uncut(tokens: &[TokenId], mut at: usize) -> usize {
    while is_inside(tokens, at) {
        at -= 1;
    }
    at
}

/// How many tokens from `at` on are rows of one image, or none.
pub(super) fn stretch(tokens: &[TokenId], at: usize) -> usize {
    let begins = |id: &TokenId| is_image(*id) && id & GOES_ON == 0;
    match tokens.get(at) {
        Some(id) if is_image(*id) => 1 + tokens[at + 1..].iter().take_while(|id| is_image(**id) && !begins(id)).count(),
        _ => tokens[at.min(tokens.len())..].iter().take_while(|id| !is_image(**id)).count(),
    }
}

/// A stretch of an image as the model reads it.
#[derive(Debug)]
pub struct ImageRows {
    number: u32,
    /// How many there are.
    pub n: usize,
    /// Positions that they take up in a text.
    pub n_positions: usize,
    /// Where each of them is, counted from the first one's position. Empty where they follow each other as tokens do.
    pub places: Vec<[u32; 4]>,
    /// An embedding for each, one behind the other.
    pub vectors: Vec<f32>,
    /// Rows see those behind them, so that all are computed in one pass.
    pub whole: bool,
}

impl ImageRows {
    /// Each is another image than all before, also where it looks the same.
    #[must_use]
    pub fn new(n: usize, n_positions: usize, places: Vec<[u32; 4]>, vectors: Vec<f32>, whole: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // After a thousand million images their numbers begin anew.
        let number = NEXT.fetch_add(1, Ordering::Relaxed) & !(IMAGE | GOES_ON);
        Self { number, n, n_positions, places, vectors, whole }
    }

    /// What stands for it in a prompt.
    pub fn tokens(&self) -> impl Iterator<Item = TokenId> {
        let id = IMAGE | self.number;
        (0..self.n).map(move |row| if row == 0 { id } else { id | GOES_ON })
    }

    /// The embeddings of some rows.
    #[cfg(any(test, feature = "llama"))]
    pub(super) fn vectors_of(&self, rows: Range<usize>) -> &[f32] {
        let width = self.vectors.len() / self.n.max(1);
        &self.vectors[rows.start * width..rows.end * width]
    }
}

/// The images of a prompt, with where each begins.
#[derive(Debug, Default)]
pub(super) struct Images(Vec<(usize, Arc<ImageRows>)>);

/// Rows of one image, of one pass.
#[derive(Clone, Debug)]
pub(super) struct ImagePass<'a> {
    pub image: &'a ImageRows,
    /// Of its rows.
    pub rows: Range<usize>,
}

impl Images {
    /// # Errors
    /// A prompt that has others than these.
    pub fn of(prompt: &[TokenId], images: Vec<Arc<ImageRows>>) -> Result<Self, String> {
        let (mut at, mut found) = (0, Vec::with_capacity(images.len()));
        let mut given = images.into_iter();
        while at < prompt.len() {
            let n = stretch(prompt, at);
            if is_image(prompt[at]) {
                let image = given.next().ok_or("the prompt has more images than were given")?;
                if !image.tokens().eq(prompt[at..at + n].iter().copied()) {
                    return Err("the prompt has other images than those that were given".into());
                }
                found.push((at, image));
            }
            at += n;
        }
        match given.next() {
            None => Ok(Self(found)),
            Some(_) => Err("the prompt has fewer images than were given".into()),
        }
    }

    /// The image that has a row there, and which of its rows that is.
    pub fn at(&self, place: usize) -> Option<(&ImageRows, usize)> {
        let (begin, image) = self.0.iter().rev().find(|(begin, _)| *begin <= place)?;
        (place - begin < image.n).then_some((image, place - begin))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{ImageRows, Images, is_image, is_inside, stretch, uncut};

    fn image(n: usize) -> Arc<ImageRows> {
        let vectors = (0..n).flat_map(|row| [row as f32, 0.5]).collect();
        Arc::new(ImageRows::new(n, n, Vec::new(), vectors, false))
    }

    #[test]
    fn a_prompt_with_images_is_a_list_of_numbers() {
        let (a, b) = (image(3), image(2));
        let prompt: Vec<u32> = [7].into_iter().chain(a.tokens()).chain(b.tokens()).chain([8, 9]).collect();
        assert_eq!(prompt.iter().filter(|id| is_image(**id)).count(), 5);
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(|at| stretch(&prompt, at)), [1, 3, 2, 1, 2, 1, 2]);
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 8].map(|at| uncut(&prompt, at)), [0, 1, 1, 1, 4, 4, 6, 8]);
        assert!(!is_inside(&prompt, 1) && is_inside(&prompt, 2) && !is_inside(&prompt, 4));
        assert_eq!(a.vectors_of(1..3), [1.0, 0.5, 2.0, 0.5]);

        let images = Images::of(&prompt, vec![a.clone(), b.clone()]).expect("its images");
        let rows = |at| images.at(at).map(|(image, row)| (image.n, row));
        assert_eq!([0, 1, 3, 4, 5, 6].map(rows), [None, Some((3, 0)), Some((3, 2)), Some((2, 0)), Some((2, 1)), None]);
        for wrong in [vec![a.clone()], vec![b.clone(), a.clone()], vec![a.clone(), b, a]] {
            Images::of(&prompt, wrong).expect_err("others");
        }
        Images::of(&prompt[..3], vec![image(3)]).expect_err("cut off");
    }

    #[test]
    fn no_two_images_are_the_same() {
        assert!(image(2).tokens().ne(image(2).tokens()));
    }
}
