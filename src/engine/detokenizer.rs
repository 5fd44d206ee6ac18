//! Bytes of tokens to text: a character that spans tokens waits until it is whole.

/// Holds the bytes of a character that is not complete yet.
#[derive(Debug, Default)]
pub struct Detokenizer {
    pending: Vec<u8>,
}

impl Detokenizer {
    /// Where the bytes of the next token go.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Moves all whole characters to `text`. Bytes that can never become one turn into U+FFFD.
    pub fn take(&mut self, text: &mut String) {
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(whole) => {
                    text.push_str(whole);
                    self.pending.clear();
                    return;
                }
                Err(error) => {
                    let (whole, rest) = self.pending.split_at(error.valid_up_to());
                    // Infallible by the meaning of valid_up_to; lossy only to avoid an unwrap.
                    text.push_str(&String::from_utf8_lossy(whole));
                    let Some(bad) = error.error_len() else {
                        let keep = rest.to_vec();
                        self.pending = keep;
                        return;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    let keep = rest[bad..].to_vec();
                    self.pending = keep;
                }
            }
        }
    }

    /// The end: what is left of an unfinished character becomes one U+FFFD.
    pub fn finish(&mut self, text: &mut String) {
        self.take(text);
        if !self.pending.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            self.pending.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Detokenizer;

    fn run(chunks: &[&[u8]]) -> (Vec<String>, String) {
        let mut detokenizer = Detokenizer::default();
        let mut steps = Vec::new();
        for chunk in chunks {
            detokenizer.buffer().extend_from_slice(chunk);
            let mut text = String::new();
            detokenizer.take(&mut text);
            steps.push(text);
        }
        let mut end = String::new();
        detokenizer.finish(&mut end);
        (steps, end)
    }

    #[test]
    fn a_character_that_spans_tokens_appears_once_it_is_whole() {
        let bytes = "a🦀b".as_bytes();
        let (steps, end) = run(&[&bytes[..2], &bytes[2..4], &bytes[4..]]);
        assert_eq!(steps, ["a", "", "🦀b"]);
        assert_eq!(end, "");
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        assert_eq!(run(&[b"x\xff\xfey"]).0, ["x\u{fffd}\u{fffd}y"]);
        assert_eq!(run(&[b"x\xf0\x9f"]), (vec!["x".to_owned()], "\u{fffd}".to_owned()));
    }
}
