//! Text to tokens and back.

use std::sync::{Arc, OnceLock};

use super::error::{LlamaError, check};
use super::model::Model;

/// One entry of a vocabulary. Only a [`Vocab`] and the sampler make them, so it is never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(i32);

impl Token {
    /// A token id from outside; calls check it against the vocabulary. `None` beyond `i32::MAX`.
    #[must_use]
    pub fn new(id: u32) -> Option<Self> {
        i32::try_from(id).ok().map(Self)
    }

    #[must_use]
    pub fn index(self) -> u32 {
        self.0.unsigned_abs()
    }

    pub(super) fn raw(self) -> i32 {
        self.0
    }

    pub(super) fn from_raw(raw: i32) -> Option<Self> {
        (raw >= 0).then_some(Self(raw))
    }
}

/// A model's vocabulary.
#[derive(Clone, Debug)]
pub struct Vocab {
    model: Model,
    /// Found at the first call that needs them: it takes a look at each entry.
    end_tokens: Arc<OnceLock<Vec<Token>>>,
}

/// Tokens that mark what stands around a gap in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InfillTokens {
    pub before: Token,
    pub behind: Token,
    pub middle: Token,
    /// In front of a repository's name, and of each of its files.
    pub repository: Option<Token>,
    pub file: Option<Token>,
}

/// What stands around two texts that belong together, where the vocabulary wants something there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairMarks {
    pub begin: Option<Token>,
    /// Between them: what ends a text, and what separates two.
    pub between: [Option<Token>; 2],
    pub behind: Option<Token>,
}

/// Longest text for one call. Tokenising needs stack in proportion, see `tokenize`.
const MAX_TEXT: usize = 4 << 20;
/// Some pre-tokenizers recurse once a character and were seen to use about 320 bytes each time.
const STACK_PER_BYTE: usize = 640;
const STACK_BASE: usize = 1 << 20;
/// Texts up to this fit the 2 MiB stack that every Rust thread has.
const SMALL_TEXT: usize = 1500;

impl Vocab {
    pub(super) fn new(model: &Model) -> Result<Self, LlamaError> {
        let vocab = Self { model: model.clone(), end_tokens: Arc::default() };
        // SAFETY: a getter on a live vocabulary.
        let kind = unsafe { llama_sys::llama_vocab_type(vocab.raw()) };
        if kind == llama_sys::LLAMA_VOCAB_TYPE_NONE || vocab.n_tokens() == 0 {
            return Err(LlamaError::NoVocabulary);
        }
        Ok(vocab)
    }

    #[must_use]
    pub fn n_tokens(&self) -> u32 {
        self.model.n_tokens_vocab()
    }

    /// Text to tokens. `add_special` puts BOS (and EOS) where the model wants them; `parse_special` reads
    /// `<|im_end|>` and its like as the single tokens they name.
    ///
    /// # Errors
    /// [`LlamaError::TextTooLong`], or what llama.cpp threw.
    pub fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<Token>, LlamaError> {
        if text.len() > MAX_TEXT {
            return Err(LlamaError::TextTooLong { bytes: text.len(), max: MAX_TEXT });
        }
        if text.len() <= SMALL_TEXT {
            return self.tokenize_here(text, add_special, parse_special);
        }
        // A long run of one character class can recurse once per character, so the stack grows with the text.
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("tokenize".into())
                .stack_size(STACK_BASE + text.len() * STACK_PER_BYTE)
                .spawn_scoped(scope, || self.tokenize_here(text, add_special, parse_special))
                .map_err(|e| native("tokenize", format!("no thread for {} bytes of text: {e}", text.len())))?
                .join()
                .map_err(|_| native("tokenize", "the tokeniser's thread panicked".into()))?
        })
    }

    fn tokenize_here(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<Token>, LlamaError> {
        let len = i32::try_from(text.len()).unwrap_or(i32::MAX);
        // One token a byte and two for BOS and EOS is more than any vocabulary needs; the loop is for surprises.
        let mut tokens = vec![0; text.len() + 2];
        loop {
            let mut count = 0;
            let capacity = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
            // SAFETY: text and token buffer are given with their lengths; the vocabulary is live.
            let status = unsafe {
                llama_sys::shim_tokenize(
                    self.raw(),
                    text.as_ptr().cast(),
                    len,
                    tokens.as_mut_ptr(),
                    capacity,
                    add_special,
                    parse_special,
                    &raw mut count,
                )
            };
            let count = usize::try_from(count).unwrap_or(0);
            if status.unsigned_abs() == llama_sys::SHIM_TOO_SMALL && count > tokens.len() {
                tokens.resize(count, 0);
                continue;
            }
            check("tokenize", status, String::new())?;
            tokens.truncate(count);
            return Ok(tokens.into_iter().filter_map(Token::from_raw).collect());
        }
    }

    /// Names of the tokens that mean something beside their text: control tokens, which only parsing special tokens
    /// reads, and what looks like one and is read from any text, as llama.cpp has it with `<|start|>`.
    #[must_use]
    pub fn control_names(&self) -> Vec<Vec<u8>> {
        let name = |token| self.control_name(token).or_else(|| self.mark_name(token));
        (0..self.n_tokens()).filter_map(Token::new).filter_map(name).collect()
    }

    fn mark_name(&self, token: Token) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        self.append_piece(token, false, &mut name).ok()?;
        let looks = name.len() > 4
            && (name.starts_with(b"<|") && name.ends_with(b">") || name.starts_with(b"<") && name.ends_with(b"|>"));
        let text = String::from_utf8(name).ok().filter(|_| looks)?;
        (self.tokenize(&text, false, false).ok()? == [token]).then(|| text.into_bytes())
    }

    /// The name of a token that is no text.
    #[must_use]
    pub fn control_name(&self, token: Token) -> Option<Vec<u8>> {
        let (mut text, mut name) = (Vec::new(), Vec::new());
        let both = self.append_piece(token, false, &mut text).and(self.append_piece(token, true, &mut name));
        (both.is_ok() && text.is_empty() && !name.is_empty()).then_some(name)
    }

    /// Appends the token's bytes to `out`. They need not be whole UTF-8: a character can span tokens.
    /// Control tokens give nothing unless `special` is set.
    ///
    /// # Errors
    /// [`LlamaError::TokenRange`], or what llama.cpp threw.
    pub fn append_piece(&self, token: Token, special: bool, out: &mut Vec<u8>) -> Result<(), LlamaError> {
        self.check_range(token)?;
        let start = out.len();
        let mut room = 64;
        loop {
            out.resize(start + room, 0);
            let mut len = 0;
            // SAFETY: the buffer has `room` bytes from `start`; the token is inside the vocabulary.
            let status = unsafe {
                llama_sys::shim_token_to_piece(
                    self.raw(),
                    token.raw(),
                    out[start..].as_mut_ptr().cast(),
                    i32::try_from(room).unwrap_or(i32::MAX),
                    special,
                    &raw mut len,
                )
            };
            let len = usize::try_from(len).unwrap_or(0);
            if status.unsigned_abs() == llama_sys::SHIM_TOO_SMALL && len > room {
                room = len;
                continue;
            }
            out.truncate(start + if status == 0 { len } else { 0 });
            return check("token_to_piece", status, String::new());
        }
    }

    /// Whether the token ends a generation: EOS, end of turn and their like.
    ///
    /// # Errors
    /// [`LlamaError::TokenRange`].
    pub fn is_end_of_generation(&self, token: Token) -> Result<bool, LlamaError> {
        self.check_range(token)?;
        // SAFETY: the token is inside the vocabulary.
        Ok(unsafe { llama_sys::llama_vocab_is_eog(self.raw(), token.raw()) })
    }

    /// All tokens that end a generation.
    #[must_use]
    pub fn end_tokens(&self) -> &[Token] {
        self.end_tokens.get_or_init(|| {
            let all = (0..self.n_tokens()).filter_map(Token::new);
            all.filter(|token| self.is_end_of_generation(*token).unwrap_or(false)).collect()
        })
    }

    /// Tokens that the file says must never be written, e.g. those that stand for an image.
    #[must_use]
    pub fn suppressed_tokens(&self) -> Vec<Token> {
        let mut count = 0;
        // SAFETY: returns NULL or a list that lives as long as the model, and its length.
        let list = unsafe { llama_sys::llama_vocab_get_suppress_tokens(self.raw(), &raw mut count) };
        let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0 && !list.is_null()) else {
            return Vec::new();
        };
        // SAFETY: see above.
        let list = unsafe { std::slice::from_raw_parts(list, count) };
        list.iter()
            .filter_map(|token| Token::from_raw(*token))
            .filter(|token| self.check_range(*token).is_ok())
            .collect()
    }

    /// What stands at the front of any text, where the vocabulary wants something there.
    #[must_use]
    pub fn begin(&self) -> Option<Token> {
        // SAFETY: a getter on a live vocabulary.
        let wanted = unsafe { llama_sys::llama_vocab_get_add_bos(self.raw()) };
        self.bos().filter(|_| wanted)
    }

    #[must_use]
    pub fn pair_marks(&self) -> PairMarks {
        let raw = self.raw();
        // SAFETY: getters on a live vocabulary.
        let (wants_end, wants_separator, separator) = unsafe {
            (
                llama_sys::llama_vocab_get_add_eos(raw),
                llama_sys::llama_vocab_get_add_sep(raw),
                Token::from_raw(llama_sys::llama_vocab_sep(raw)),
            )
        };
        let end = self.eos().or(separator).filter(|_| wants_end);
        let separator = separator.filter(|_| wants_separator);
        // BERT's vocabularies have no other end of a text than the separator.
        let behind = end.or(separator.filter(|_| self.eos().is_none()));
        PairMarks { begin: self.begin(), between: [end, separator], behind }
    }

    /// `None` for a model that was not made to fill gaps.
    #[must_use]
    pub fn infill_tokens(&self) -> Option<InfillTokens> {
        let raw = self.raw();
        // SAFETY: getters on a live vocabulary.
        let found = unsafe {
            [
                llama_sys::llama_vocab_fim_pre(raw),
                llama_sys::llama_vocab_fim_suf(raw),
                llama_sys::llama_vocab_fim_mid(raw),
                llama_sys::llama_vocab_fim_rep(raw),
                llama_sys::llama_vocab_fim_sep(raw),
            ]
        };
        let [before, behind, middle, repository, file] = found.map(Token::from_raw);
        Some(InfillTokens { before: before?, behind: behind?, middle: middle?, repository, file })
    }

    /// Beginning of sequence, where the vocabulary has one.
    #[must_use]
    pub fn bos(&self) -> Option<Token> {
        // SAFETY: a getter on a live vocabulary.
        Token::from_raw(unsafe { llama_sys::llama_vocab_bos(self.raw()) })
    }

    /// End of sequence, where the vocabulary has one.
    #[must_use]
    pub fn eos(&self) -> Option<Token> {
        // SAFETY: a getter on a live vocabulary.
        Token::from_raw(unsafe { llama_sys::llama_vocab_eos(self.raw()) })
    }

    fn check_range(&self, token: Token) -> Result<(), LlamaError> {
        if token.index() < self.n_tokens() {
            Ok(())
        } else {
            Err(LlamaError::TokenRange { token, n_tokens: self.n_tokens() })
        }
    }

    pub(super) fn raw(&self) -> *const llama_sys::llama_vocab {
        // SAFETY: the vocabulary is part of the model, of which we hold a clone.
        unsafe { llama_sys::llama_model_get_vocab(self.model.raw()) }
    }
}

fn native(call: &'static str, message: String) -> LlamaError {
    LlamaError::Native { call, status: llama_sys::SHIM_EXCEPTION, message, log: String::new() }
}
