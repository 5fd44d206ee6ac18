//! What a model says of the next token.

use super::error::LlamaError;
use super::vocab::Token;

/// One row of logits: a float for each entry of the vocabulary. Borrowed from the context.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a>(pub(super) &'a [f32]);

impl Logits<'_> {
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        self.0
    }

    /// The natural logarithm of a token's probability among all tokens, and those of the `n` most likely ones.
    ///
    /// # Errors
    /// [`LlamaError::NanLogits`].
    pub fn probabilities(&self, token: Token, n: usize) -> Result<(f32, Vec<(Token, f32)>), LlamaError> {
        let all = super::select::log_sum(self.0);
        let own = self.0.get(token.index() as usize).copied().ok_or(LlamaError::NanLogits)?;
        let mut top = Vec::new();
        if n > 0 {
            super::select::select_top(self.0, n, &mut top)?;
        }
        let top = top.into_iter().filter_map(|(logit, id)| Some((Token::from_raw(id)?, logit - all)));
        Ok((own - all, top.collect()))
    }
}
