//! Prompts with images in them.

use std::sync::Arc;

use super::error::RunnerError;
use super::prompt::Prompts;
use super::sees_nothing;
use super::sight::{Cut, Seen, Sight};
use crate::chat::{Image, MOST_IMAGES, Message, Part};
use crate::engine::{EngineError, ImageRows, TokenId};

impl Prompts {
    /// The images of a conversation, and what looks at them.
    pub(super) fn images<'a>(
        &'a self,
        messages: &'a [Message],
    ) -> Result<impl Iterator<Item = (&'a Sight, &'a Image)>, RunnerError> {
        let n: usize = messages.iter().map(|message| message.images.len()).sum();
        let sight = match &self.sight {
            Err(why) if n > 0 => return Err(sees_nothing(why)),
            sight => sight.as_ref().ok(),
        };
        if n > MOST_IMAGES {
            return Err(RunnerError::BadRequest(format!("there are {n} images; at most {MOST_IMAGES} are taken")));
        }
        let images = messages.iter().flat_map(|message| &message.images);
        Ok(images.filter_map(move |image| Some((sight?, image))))
    }

    /// The images of a conversation, cut. None is computed before all are known to fit.
    pub(super) fn cut<'a>(&'a self, messages: &'a [Message]) -> Result<Vec<(&'a Sight, Cut)>, RunnerError> {
        let (mut cuts, mut tokens) = (Vec::new(), 0);
        for (number, (sight, image)) in self.images(messages)?.enumerate() {
            let cut = sight.cut(&image.file).map_err(|error| match error {
                RunnerError::BadRequest(why) => RunnerError::BadRequest(format!("image {}: {why}", number + 1)),
                error => error,
            })?;
            tokens += cut.len();
            if tokens >= self.context {
                return Err(RunnerError::PromptTooLong { prompt_tokens: tokens, context_tokens: self.context });
            }
            if sight.is_whole() && cut.longest() > self.pass {
                return Err(EngineError::ImageTooLarge { rows: cut.longest(), most: self.pass }.into());
            }
            cuts.push((sight, cut));
        }
        Ok(cuts)
    }

    /// What stands for each image of a conversation.
    pub(super) fn look(&self, messages: &[Message]) -> Result<Vec<Arc<[Seen]>>, RunnerError> {
        self.cut(messages)?.into_iter().map(|(sight, cut)| sight.compute(cut)).collect()
    }

    /// A rendered prompt without images as tokens.
    pub(super) fn tokenize_parts(&self, prompt: &str) -> Result<Vec<TokenId>, RunnerError> {
        self.put_together::<Vec<Seen>>(prompt, &[]).map(|(tokens, _)| tokens)
    }

    /// A rendered prompt as tokens, with images where it has their marks. The template leaves BOS to the tokeniser.
    pub(super) fn put_together<S: AsRef<[Seen]>>(
        &self,
        prompt: &str,
        looks: &[S],
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
                    for part in seen.as_ref() {
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
