//! Tells thoughts and tool calls from the text of an answer, by the form that the template gives them.

use std::ptr::NonNull;

use super::error::{LlamaError, check};
use super::model::checked_string;

/// What an answer holds so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer<'a> {
    pub reasoning: &'a str,
    pub content: &'a str,
    /// Name and arguments, which are JSON or the beginning of it.
    pub calls: Vec<(&'a str, &'a str)>,
    /// Nothing is missing at its end, and all text was understood. Only known where no more follows.
    pub complete: bool,
}

impl Answer<'_> {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reasoning.is_empty() && self.content.is_empty() && self.calls.is_empty()
    }
}

/// Reads one answer.
#[derive(Debug)]
pub struct AnswerParser(NonNull<llama_sys::shim_chat_parser>);

// SAFETY: a parser is memory of its own that nothing else points at; `&mut` keeps its use exclusive.
unsafe impl Send for AnswerParser {}

impl Drop for AnswerParser {
    fn drop(&mut self) {
        // SAFETY: owned by us and not used after this.
        unsafe { llama_sys::shim_chat_parser_free(self.0.as_ptr()) };
    }
}

impl AnswerParser {
    pub(super) fn from_raw(raw: NonNull<llama_sys::shim_chat_parser>) -> Self {
        Self(raw)
    }

    /// What tells the parts of an answer apart, as a JSON array. Control tokens in it must be part of the text.
    ///
    /// # Errors
    /// Out of memory.
    pub fn marks(&self) -> Result<String, LlamaError> {
        let mut marks = std::ptr::null_mut();
        // SAFETY: a live parser; writes one string that is freed by `checked_string`.
        let status = unsafe { llama_sys::shim_chat_marks(self.0.as_ptr(), &raw mut marks) };
        checked_string("looking at the chat template", status, marks)
    }

    /// One for another answer, which has read nothing yet.
    ///
    /// # Errors
    /// Out of memory.
    pub fn again(&self) -> Result<Self, LlamaError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: a live parser, which is only read; writes one that we own.
        let status = unsafe { llama_sys::shim_chat_parser_again(self.0.as_ptr(), &raw mut raw) };
        check("copying the answer's parser", status, String::new())?;
        NonNull::new(raw).map(Self).ok_or(LlamaError::Native {
            call: "copying the answer's parser",
            status: llama_sys::SHIM_REFUSED,
            message: "no parser".into(),
            log: String::new(),
        })
    }

    /// Takes more of the answer's text. `partial` says that still more will follow.
    ///
    /// # Errors
    /// Text that does not have the template's form, where none will follow.
    pub fn parse(&mut self, more: &str, partial: bool) -> Result<Answer<'_>, LlamaError> {
        let mut found = llama_sys::shim_chat_answer::default();
        // SAFETY: the text is given with its length and copied.
        let status = unsafe {
            llama_sys::shim_chat_parse(self.0.as_ptr(), more.as_ptr().cast(), more.len(), partial, &raw mut found)
        };
        check("reading the answer", status, String::new())?;
        let mut calls = Vec::with_capacity(found.n_calls);
        for index in 0..found.n_calls {
            let mut call = llama_sys::shim_chat_call::default();
            // SAFETY: a live parser and an index below its number of calls.
            let status = unsafe { llama_sys::shim_chat_call(self.0.as_ptr(), index, &raw mut call) };
            check("reading a tool call", status, String::new())?;
            calls.push((self.text(call.name), self.text(call.arguments)));
        }
        let (reasoning, content) = (self.text(found.reasoning), self.text(found.content));
        Ok(Answer { reasoning, content, calls, complete: found.complete })
    }

    /// What of it is whole characters.
    fn text(&self, text: llama_sys::shim_text) -> &str {
        if text.data.is_null() {
            return "";
        }
        // SAFETY: llama.cpp's strings live in the parser until its next use, which needs `&mut`.
        let bytes = unsafe { std::slice::from_raw_parts(text.data.cast::<u8>(), text.len) };
        match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
        }
    }
}
