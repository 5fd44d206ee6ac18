//! Messages to prompt, by the model's own Jinja template or one of llama.cpp's built-in ones.

use std::ffi::{CString, c_char};
use std::ptr::NonNull;

use super::answer_parser::AnswerParser;
use super::callback;
use super::error::{LlamaError, check};
use super::model::{Model, checked_string, take_string};

/// A rendered prompt, to be tokenised with `add_special` and `parse_special`.
#[derive(Debug)]
pub struct RenderedPrompt {
    pub text: String,
    /// A JSON array of stop strings that the template asks for.
    pub stops: String,
    /// `None` where all of the answer is text.
    pub parser: Option<AnswerParser>,
}

/// What a template renders. JSON is in OpenAI's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatRequest<'a> {
    /// An array.
    pub messages: &'a str,
    /// An array.
    pub tools: Option<&'a str>,
    /// The same tools for the parser, with no more in their schemas than it needs: they become a grammar.
    pub outlines: Option<&'a str>,
    pub allow_calls: bool,
    pub parallel_calls: bool,
    /// For templates that can be told.
    pub thinking: bool,
    /// Make a parser where the answer can hold more than text.
    pub parse: bool,
    /// Open the assistant's turn.
    pub answer: bool,
    /// Variables of the template, with their values as JSON.
    pub variables: &'a [(String, String)],
}

impl<'a> ChatRequest<'a> {
    /// A plain conversation.
    #[must_use]
    pub fn new(messages: &'a str) -> Self {
        Self {
            messages,
            tools: None,
            outlines: None,
            allow_calls: false,
            parallel_calls: false,
            thinking: true,
            parse: false,
            answer: true,
            variables: &[],
        }
    }
}

/// A parsed Jinja template.
#[derive(Debug)]
pub struct ChatTemplate {
    raw: NonNull<llama_sys::shim_chat>,
    _model: Model,
}

// SAFETY: rendering reads the parsed template and touches nothing thread-bound.
unsafe impl Send for ChatTemplate {}
// SAFETY: rendering takes the template const; each call has an interpreter of its own.
unsafe impl Sync for ChatTemplate {}

impl Drop for ChatTemplate {
    fn drop(&mut self) {
        // SAFETY: owned by us and not used after this.
        unsafe { llama_sys::shim_chat_free(self.raw.as_ptr()) };
    }
}

impl ChatTemplate {
    /// Parses `source`, or the model's own template with `None`.
    ///
    /// # Errors
    /// What the Jinja parser says.
    pub fn new(model: &Model, source: Option<&str>) -> Result<Self, LlamaError> {
        let source = source.map(CString::new).transpose().map_err(|_| LlamaError::NulInText)?;
        let pointer = source.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        let mut raw = std::ptr::null_mut();
        // SAFETY: `pointer` is null or NUL-terminated; the model is kept below.
        let (status, log) =
            callback::capture_log(|| unsafe { llama_sys::shim_chat_init(model.raw(), pointer, &raw mut raw) });
        check("parsing the chat template", status, log.clone())?;
        let raw = NonNull::new(raw).ok_or(LlamaError::Native {
            call: "parsing the chat template",
            status: llama_sys::SHIM_REFUSED,
            message: "no template".into(),
            log,
        })?;
        Ok(Self { raw, _model: model.clone() })
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// What the template raised, e.g. that roles must alternate.
    pub fn render(&self, asked: &ChatRequest<'_>) -> Result<RenderedPrompt, LlamaError> {
        let to_c = |text: &str| CString::new(text).map_err(|_| LlamaError::NulInText);
        let messages = to_c(asked.messages)?;
        let tools = asked.tools.map(to_c).transpose()?;
        let outlines = asked.outlines.map(to_c).transpose()?;
        let names = asked.variables.iter().map(|(name, _)| to_c(name)).collect::<Result<Vec<_>, _>>()?;
        let values = asked.variables.iter().map(|(_, value)| to_c(value)).collect::<Result<Vec<_>, _>>()?;
        let name_pointers: Vec<*const c_char> = names.iter().map(|text| text.as_ptr()).collect();
        let value_pointers: Vec<*const c_char> = values.iter().map(|text| text.as_ptr()).collect();
        let request = llama_sys::shim_chat_request {
            messages: messages.as_ptr(),
            tools: tools.as_ref().map_or(std::ptr::null(), |text| text.as_ptr()),
            outlines: outlines.as_ref().map_or(std::ptr::null(), |text| text.as_ptr()),
            allow_calls: asked.allow_calls,
            parallel_calls: asked.parallel_calls,
            thinking: asked.thinking,
            parse: asked.parse,
            answer: asked.answer,
            names: name_pointers.as_ptr(),
            values: value_pointers.as_ptr(),
            n_variables: names.len(),
        };
        let (mut text, mut stops, mut parser) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: all text is NUL-terminated and outlives the call; what is written is owned below.
        let status = unsafe {
            llama_sys::shim_chat_render(
                self.raw.as_ptr(),
                &raw const request,
                &raw mut text,
                &raw mut stops,
                &raw mut parser,
            )
        };
        let parser = NonNull::new(parser).map(AnswerParser::from_raw);
        let stops = take_string(stops).unwrap_or_default();
        Ok(RenderedPrompt { text: checked_string("rendering the chat template", status, text)?, stops, parser })
    }

    /// Whether the template knows what tools are.
    ///
    /// # Errors
    /// Out of memory.
    pub fn knows_tools(&self) -> Result<bool, LlamaError> {
        let mut knows = false;
        // SAFETY: a live template; writes one flag.
        let status = unsafe { llama_sys::shim_chat_knows_tools(self.raw.as_ptr(), &raw mut knows) };
        check("looking at the chat template", status, String::new())?;
        Ok(knows)
    }
}

/// Renders with one of llama.cpp's templates by name, e.g. `chatml`. `messages` are (role, content).
///
/// # Errors
/// An unknown name.
pub fn render_builtin(name: &str, messages: &[(&str, &str)]) -> Result<RenderedPrompt, LlamaError> {
    let to_c = |text: &str| CString::new(text).map_err(|_| LlamaError::NulInText);
    let name = to_c(name)?;
    let roles = messages.iter().map(|(role, _)| to_c(role)).collect::<Result<Vec<_>, _>>()?;
    let contents = messages.iter().map(|(_, content)| to_c(content)).collect::<Result<Vec<_>, _>>()?;
    let role_pointers: Vec<*const c_char> = roles.iter().map(|text| text.as_ptr()).collect();
    let content_pointers: Vec<*const c_char> = contents.iter().map(|text| text.as_ptr()).collect();
    let mut text = std::ptr::null_mut();
    // SAFETY: both arrays hold `messages.len()` NUL-terminated strings that outlive the call.
    let status = unsafe {
        llama_sys::shim_chat_render_builtin(
            name.as_ptr(),
            role_pointers.as_ptr(),
            content_pointers.as_ptr(),
            messages.len(),
            true,
            &raw mut text,
        )
    };
    let text = checked_string("rendering a built-in chat template", status, text)?;
    Ok(RenderedPrompt { text, stops: "[]".into(), parser: None })
}

/// The names that [`render_builtin`] knows, as a JSON array.
///
/// # Errors
/// Out of memory.
pub fn builtin_template_names() -> Result<String, LlamaError> {
    let mut names = std::ptr::null_mut();
    // SAFETY: writes one string that is freed by `checked_string`.
    let status = unsafe { llama_sys::shim_chat_builtin_names(&raw mut names) };
    checked_string("listing chat templates", status, names)
}
