//! From the form that is asked for to the filter that keeps an answer to it.

use super::error::RunnerError;
use crate::constrain::{Compiler, Constraint, TokenFilter};

/// # Errors
/// What of the form cannot be kept to.
pub(super) fn filter(
    compiler: &Result<Compiler, String>,
    form: &Constraint,
) -> Result<Box<dyn TokenFilter>, RunnerError> {
    let compiler = compiler.as_ref().map_err(|why| RunnerError::Failed(why.clone()))?;
    let refuse = |why: String| RunnerError::BadRequest(format!("the form that is asked for cannot be kept to: {why}"));
    compiler.compile(form).map_err(refuse)
}
