//! A prompt for what is missing in a text: what stands before and behind it, between the marks that the model was
//! trained on.

use super::TokenId;
use super::error::RunnerError;
use super::spec::{GenerateSpec, Infill};

/// Tokens that mark the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub before: TokenId,
    pub behind: TokenId,
    /// Where the answer begins.
    pub middle: TokenId,
    /// In front of a repository's name, and of each of its files.
    pub repository: Option<TokenId>,
    pub file: Option<TokenId>,
}

/// Whoever can tokenise.
pub(super) type Tokenise<'a> = &'a dyn Fn(&str) -> Result<Vec<TokenId>, RunnerError>;

/// Of the context, kept for an answer whose length is open.
const OPEN_ANSWER: usize = 4;

/// The prompt. `begin` is what stands at the front of any. Of the other files, the last ones that fit a context of
/// `context` tokens are told.
pub(super) fn tokens(
    spec: &GenerateSpec,
    infill: &Infill,
    marks: Option<Marks>,
    begin: Option<TokenId>,
    context: usize,
    tokenise: Tokenise<'_>,
) -> Result<Vec<TokenId>, RunnerError> {
    let marks = marks.ok_or_else(|| {
        let why = "this model does not support insert: its vocabulary has no tokens that mark what stands before and behind a gap";
        RunnerError::BadRequest(why.into())
    })?;
    let mut gap = vec![marks.before];
    gap.extend(tokenise(&infill.before)?);
    gap.extend(tokenise(&infill.line)?);
    gap.push(marks.behind);
    gap.extend(tokenise(&infill.behind)?);
    gap.push(marks.middle);
    let answer = spec.max_tokens.map_or(context / OPEN_ANSWER, |most| most as usize);
    let room = context.saturating_sub(gap.len()).saturating_sub(answer).saturating_sub(begin.iter().len());
    let mut prompt: Vec<TokenId> = begin.into_iter().collect();
    prompt.extend(files(infill, marks, room, tokenise)?);
    prompt.extend(gap);
    Ok(prompt)
}

/// The other files, in llama.cpp's words where names are missing.
fn files(infill: &Infill, marks: Marks, room: usize, tokenise: Tokenise<'_>) -> Result<Vec<TokenId>, RunnerError> {
    if infill.files.is_empty() {
        return Ok(Vec::new());
    }
    let mut head = Vec::new();
    if let Some(repository) = marks.repository {
        head.push(repository);
        head.extend(tokenise("myproject\n")?);
    }
    let mut tail = Vec::new();
    if let Some(file) = marks.file {
        tail.push(file);
        tail.extend(tokenise("filename\n")?);
    }
    let mut told = Vec::new();
    let mut left = room.saturating_sub(head.len() + tail.len());
    for file in infill.files.iter().rev() {
        let mut tokens = Vec::new();
        match marks.file {
            Some(mark) => {
                tokens.push(mark);
                tokens.extend(tokenise(&format!("{}\n", file.name))?);
            }
            None => tokens.extend(tokenise(&format!("\n\n--- {} ---\n\n", file.name))?),
        }
        tokens.extend(tokenise(&file.text)?);
        let Some(after) = left.checked_sub(tokens.len()) else { break };
        left = after;
        told.push(tokens);
    }
    if told.is_empty() {
        return Ok(Vec::new());
    }
    Ok(head.into_iter().chain(told.into_iter().rev().flatten()).chain(tail).collect())
}

#[cfg(test)]
mod tests {
    use super::{Marks, tokens};
    use crate::runner::{GenerateSpec, Infill, InfillFile, Input, RunnerError, TokenId};

    const MARKS: Marks = Marks { before: 1, behind: 2, middle: 3, repository: Some(4), file: Some(5) };

    /// A token for each byte, beyond those of the marks.
    fn bytes(text: &str) -> Result<Vec<TokenId>, RunnerError> {
        Ok(text.bytes().map(|byte| TokenId::from(byte) + 100).collect())
    }

    /// With the marks written as `<1>`.
    fn shown(infill: &Infill, marks: Option<Marks>, context: usize) -> Result<String, RunnerError> {
        let mut spec = GenerateSpec::new("m", Input::Raw(String::new()));
        spec.max_tokens = Some(10);
        let tokens = tokens(&spec, infill, marks, Some(0), context, &bytes)?;
        let one = |token: TokenId| match token.checked_sub(100).and_then(|byte| u8::try_from(byte).ok()) {
            Some(byte) => char::from(byte).to_string(),
            None => format!("<{token}>"),
        };
        Ok(tokens.into_iter().map(one).collect())
    }

    fn file(name: &str, text: &str) -> InfillFile {
        InfillFile { name: name.into(), text: text.into() }
    }

    #[test]
    fn the_gap_is_between_its_marks() {
        let infill = Infill { before: "a".into(), line: "b".into(), behind: "c".into(), files: Vec::new() };
        assert_eq!(shown(&infill, Some(MARKS), 100), Ok("<0><1>ab<2>c<3>".into()));
        let refused = shown(&infill, None, 100).expect_err("no marks");
        assert!(refused.to_string().contains("does not support insert"), "{refused}");
    }

    #[test]
    fn other_files_stand_in_front_as_far_as_they_fit() {
        let files = vec![file("old", "1111111111"), file("new", "22")];
        let infill = Infill { before: "a".into(), files, ..Infill::default() };
        let all = "<0><4>myproject\n<5>old\n1111111111<5>new\n22<5>filename\n<1>a<2><3>";
        let marks = Some(MARKS);
        assert_eq!(shown(&infill, marks, 200), Ok(all.into()));
        let fits = 10 + 1 + 11 + 15 + 7 + 10 + 4;
        assert_eq!(shown(&infill, marks, fits), Ok(all.into()), "just");
        let last = "<0><4>myproject\n<5>new\n22<5>filename\n<1>a<2><3>";
        assert_eq!(shown(&infill, marks, fits - 1), Ok(last.into()));
        assert_eq!(shown(&infill, marks, 20), Ok("<0><1>a<2><3>".into()));
        let unmarked = Some(Marks { repository: None, file: None, ..MARKS });
        let told = "<0>\n\n--- old ---\n\n1111111111\n\n--- new ---\n\n22<1>a<2><3>";
        assert_eq!(shown(&infill, unmarked, 200), Ok(told.into()));
    }
}
