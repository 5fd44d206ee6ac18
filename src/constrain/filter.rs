//! Where a constrained text stands, and what may come next.

use std::fmt::{self, Debug};
use std::sync::Arc;

use llguidance::Matcher;
use llguidance::toktrie::SimpleVob;

/// Follows one text token by token.
pub trait TokenFilter: Send + Debug {
    /// Whether this token may come next.
    ///
    /// # Errors
    /// A grammar that became too complex. The filter is of no more use then.
    fn allows(&mut self, token: u32) -> Result<bool, String>;

    /// All tokens that may come next, as bits: token n is bit n % 32 of word n / 32.
    ///
    /// # Errors
    /// As [`TokenFilter::allows`].
    fn allowed(&mut self) -> Result<&[u32], String>;

    /// Moves on by a token that is allowed.
    ///
    /// # Errors
    /// One that is not; the filter is of no more use then.
    fn accept(&mut self, token: u32) -> Result<(), String>;
}

/// A [`TokenFilter`] of llguidance.
pub(super) struct Guide {
    matcher: Matcher,
    /// Tokens that end a text.
    ends: Arc<[u32]>,
    mask: SimpleVob,
}

impl Guide {
    pub fn new(matcher: Matcher, ends: Arc<[u32]>) -> Self {
        Self { matcher, ends, mask: SimpleVob::default() }
    }
}

impl Debug for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guide").field("stopped", &self.matcher.is_stopped()).finish_non_exhaustive()
    }
}

impl TokenFilter for Guide {
    fn allows(&mut self, token: u32) -> Result<bool, String> {
        if self.ends.contains(&token) {
            return self.matcher.is_accepting().map_err(text);
        }
        if self.matcher.is_stopped() {
            return Ok(false);
        }
        Ok(self.matcher.validate_tokens(&[token]).map_err(text)? == 1)
    }

    fn allowed(&mut self) -> Result<&[u32], String> {
        self.mask = self.matcher.compute_mask_or_eos().map_err(text)?;
        Ok(self.mask.as_slice())
    }

    fn accept(&mut self, token: u32) -> Result<(), String> {
        if self.matcher.is_stopped() && self.ends.contains(&token) {
            return Ok(());
        }
        self.matcher.consume_token(token).map_err(text)
    }
}

/// Its first line: a backtrace may follow.
fn text(error: impl fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
