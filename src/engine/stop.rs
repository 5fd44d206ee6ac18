//! Stop strings: found across token boundaries, and never leaked in part.

/// Watches a text that arrives in pieces.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// Text that could still turn out to begin a stop string.
    held: String,
}

impl StopMatcher {
    /// Empty stop strings are ignored: they would match everything.
    #[must_use]
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        Self { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(), held: String::new() }
    }

    /// Takes the next piece. Appends to `out` what is safe to show; returns the stop string once one is complete.
    /// Of several that are, the one that begins first counts, and of those the longest.
    pub fn push(&mut self, piece: &str, out: &mut String) -> Option<String> {
        if self.stops.is_empty() {
            out.push_str(piece);
            return None;
        }
        self.held.push_str(piece);
        let first = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|at| (at, usize::MAX - stop.len(), stop)))
            .min();
        if let Some((at, _, stop)) = first {
            out.push_str(&self.held[..at]);
            let stop = stop.clone();
            self.held.clear();
            return Some(stop);
        }
        let safe = self.held.len() - self.longest_partial();
        out.push_str(&self.held[..safe]);
        self.held.drain(..safe);
        None
    }

    /// The end: nothing more comes, so what was held back is plain text.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }

    /// Length of the longest end of `held` that begins a stop string.
    fn longest_partial(&self) -> usize {
        let longest = self.stops.iter().map(|stop| stop.len() - 1).max().unwrap_or(0).min(self.held.len());
        let tail_start = self.held.len() - longest;
        self.held
            .char_indices()
            .map(|(at, _)| at)
            .filter(|at| *at >= tail_start)
            .find(|at| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..])))
            .map_or(0, |at| self.held.len() - at)
    }
}

#[cfg(test)]
mod tests {
    use super::StopMatcher;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let mut matcher = StopMatcher::new(stops.iter().map(|s| (*s).to_owned()));
        let mut out = String::new();
        for piece in pieces {
            if let Some(stop) = matcher.push(piece, &mut out) {
                return (out, Some(stop));
            }
        }
        matcher.finish(&mut out);
        (out, None)
    }

    #[test]
    fn a_stop_string_across_pieces_never_leaks() {
        assert_eq!(run(&["</end>"], &["Hello <", "/en", "d> more"]), ("Hello ".into(), Some("</end>".into())));
    }

    #[test]
    fn a_false_start_is_given_back() {
        assert_eq!(run(&["</end>"], &["a </e", "m> b"]), ("a </em> b".into(), None));
        assert_eq!(run(&["</end>"], &["a </e"]), ("a </e".into(), None));
    }

    #[test]
    fn the_first_in_the_text_wins_then_the_longest() {
        assert_eq!(run(&["b", "abc"], &["xabcx"]), ("x".into(), Some("abc".into())));
        assert_eq!(run(&["ab", "abc"], &["xabcx"]), ("x".into(), Some("abc".into())));
    }

    #[test]
    fn multibyte_text_is_cut_between_characters() {
        assert_eq!(run(&["…ende"], &["naïve …", "en…", "ende!"]), ("naïve …en".into(), Some("…ende".into())));
    }

    /// Whatever the cut, the result is that of the whole text at once.
    #[test]
    fn every_way_to_cut_gives_the_same() {
        let text = "one ##two# ###three";
        for stop in ["###", "##t", "#", "zzz"] {
            let whole = run(&[stop], &[text]);
            for i in 0..text.len() {
                for j in i..text.len() {
                    assert_eq!(
                        run(&[stop], &[&text[..i], &text[i..j], &text[j..]]),
                        whole,
                        "stop {stop:?} cut at {i}, {j}"
                    );
                }
            }
        }
    }
}
