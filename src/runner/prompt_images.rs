//! Prompts with images in them.

use std::sync::Arc;

use super::error::RunnerError;
use super::prompt::Prompts;
use super::sight::{Cut, Seen, Sight};
use super::{Waits, sees_nothing};
use crate::chat::{Image, MOST_IMAGES, Message, Part};
use crate::engine::{EngineError, ImageRows, TokenId};

impl Prompts {
    /// What stands for each image of a conversation, by `how`: [`Sight::compute`] or [`Sight::outline`]. None is computed before all
    /// are known to fit, and none where nobody `waits`.
    pub(super) fn look(
        &self,
        messages: &[Message],
        waits: Waits<'_>,
        how: impl Fn(&Sight, Cut) -> Result<Arc<[Seen]>, RunnerError>,
    ) -> Result<Vec<Arc<[Seen]>>, RunnerError> {
        let images: Vec<&Image> = messages.iter().flat_map(|message| &message.images).collect();
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let sight = self.sight.as_ref().map_err(|why| sees_nothing(why))?;
        if images.len() > MOST_IMAGES {
            let n = images.len();
            return Err(RunnerError::BadRequest(format!("there are {n} images; at most {MOST_IMAGES} are taken")));
        }
        let (mut cuts, mut tokens) = (Vec::new(), 0);
        for (number, image) in images.into_iter().enumerate() {
            let cut = sight.cut(&image.file, waits).map_err(|error| match error {
                RunnerError::BadRequest(why) => RunnerError::BadRequest(format!("image {}: {why}", number + 1)),
                error => error,
            })?;
            tokens += cut.n_tokens();
            if tokens >= self.context {
                return Err(RunnerError::PromptTooLong { prompt_tokens: tokens, context_tokens: self.context });
            }
            if sight.is_whole() && cut.longest() > self.pass {
                return Err(EngineError::ImageTooLarge { rows: cut.longest(), most: self.pass }.into());
            }
            cuts.push(cut);
        }
        cuts.into_iter().map(|cut| how(sight, cut)).collect()
    }

    /// A rendered prompt without images as tokens.
    pub(super) fn tokenize_parts(&self, prompt: &str) -> Result<Vec<TokenId>, RunnerError> {
        self.put_together(prompt, &[]).map(|(tokens, _)| tokens)
    }

    /// A rendered prompt as tokens, with images where it has their marks. The template leaves BOS to the tokeniser.
    pub(super) fn put_together(
        &self,
        prompt: &str,
        looks: &[Arc<[Seen]>],
    ) -> Result<(Vec<TokenId>, Vec<Arc<ImageRows>>), RunnerError> {
        let mut tokens = self.begun(Vec::new());
        let (mut images, mut shown) = (Vec::new(), vec![false; looks.len()]);
        for part in self.shield().parts(prompt) {
            match part {
                Part::Template(text) => tokens.extend(self.tokenize(text, false, true)?),
                Part::Shielded(text) => {
                    // A name that any text is read as is one only as a whole.
                    let torn = self.tokenize(text, false, false)?.len() == 1;
                    let first = text.chars().next().filter(|_| torn).map_or(text.len(), char::len_utf8);
                    let (head, tail) = text.split_at(first);
                    tokens.extend(self.tokenize(head, false, false)?);
                    if !tail.is_empty() {
                        tokens.extend(self.tokenize(tail, false, false)?);
                    }
                }
                Part::Image(number) => {
                    let Some(seen) = looks.get(number) else { continue };
                    shown[number] = true;
                    for part in seen.iter() {
                        match part {
                            Seen::Tokens(around) => tokens.extend(around),
                            Seen::Rows(rows) => {
                                tokens.extend(rows.tokens());
                                images.push(Arc::clone(rows));
                            }
                        }
                    }
                }
            }
        }
        match shown.iter().position(|shown| !shown) {
            None => Ok((tokens, images)),
            Some(number) => {
                let why = format!("the model's chat template leaves image {} out of the prompt", number + 1);
                Err(RunnerError::BadRequest(why))
            }
        }
    }
}
