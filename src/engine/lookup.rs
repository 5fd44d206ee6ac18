//! Guessing the next tokens without a second model: what followed the last few tokens when they came before.
//!
//! Summaries, edits and code repeat their prompt; there whole phrases are guessed right. The model verifies each
//! guess, so the text is the one that it would have written anyway.

use super::forward::TokenId;

/// Fewest and most tokens that must repeat before what followed them is worth a guess.
const KEYS: std::ops::RangeInclusive<usize> = 2..=4;
/// How far back to look.
const WINDOW: usize = 8192;

/// Appends to `guesses` up to `most` tokens that may follow `tokens`. The latest occurrence of the longest key wins.
pub fn guess(tokens: &[TokenId], most: usize, guesses: &mut Vec<TokenId>) {
    if most == 0 {
        return;
    }
    let tokens = &tokens[tokens.len().saturating_sub(WINDOW)..];
    for key_len in KEYS.rev() {
        let Some(start) = tokens.len().checked_sub(key_len) else { continue };
        let (before, key) = (&tokens[..tokens.len() - 1], &tokens[start..]);
        if let Some(at) = before.windows(key_len).rposition(|window| window == key) {
            let follow = &tokens[at + key_len..];
            guesses.extend_from_slice(&follow[..follow.len().min(most)]);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::guess;

    fn guesses(tokens: &[u32], most: usize) -> Vec<u32> {
        let mut all = Vec::new();
        guess(tokens, most, &mut all);
        all
    }

    #[test]
    fn what_followed_before_is_guessed_again() {
        assert_eq!(guesses(&[1, 2, 3, 4, 5, 9, 2, 3], 3), [4, 5, 9]);
        assert_eq!(guesses(&[1, 2, 3, 4, 1, 2, 3, 7, 1, 2, 3], 2), [7, 1], "the latest wins");
        assert_eq!(guesses(&[8, 1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], 1), [4], "the longest key wins");
    }

    #[test]
    fn nothing_repeats_nothing_is_guessed() {
        assert!(guesses(&[1, 2, 3, 4], 8).is_empty());
        assert!(guesses(&[1], 8).is_empty());
        assert!(guesses(&[1, 2, 1, 2], 0).is_empty());
        assert_eq!(guesses(&[7, 7, 7], 8), [7], "a key may overlap what it repeats");
    }
}
