//! Which template renders a model's prompts.

use std::path::Path;

use serde_json::{Value, json};

use crate::llama::{
    AnswerParser, ChatRequest, ChatTemplate, LlamaError, Model, builtin_template_names, render_builtin,
};

use super::message::Message;
use super::options::{ChatOptions, Tool, ToolChoice, is_template_text};

/// A rendered prompt.
#[derive(Debug)]
pub struct Rendered {
    pub text: String,
    /// Strings that the template wants to stop at.
    pub stops: Vec<String>,
    /// Where the answer can hold more than text.
    pub parser: Option<AnswerParser>,
    /// The same without calls, where the answer can hold some.
    pub without_calls: Option<AnswerParser>,
}

/// How a model's messages become text.
#[derive(Debug)]
pub enum TemplateChoice {
    /// Jinja: the model's own, or a file that the user named.
    Jinja(ChatTemplate),
    /// One of llama.cpp's, by name.
    Builtin(String),
    /// A base model: the messages' text as it is, one after the other.
    Plain,
}

/// What follows the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The assistant's turn is opened.
    Answer,
    /// Nothing.
    Nothing,
}

impl TemplateChoice {
    /// `asked` is `--template`: a built-in name, a file with a Jinja template, or the template itself. With `None`
    /// the model's own is used; a model without one gets [`TemplateChoice::Plain`].
    ///
    /// # Errors
    /// A name that nothing matches, a file that cannot be read, a template that does not parse.
    pub fn new(model: &Model, asked: Option<&str>) -> Result<Self, String> {
        let parse = |source: Option<&str>| ChatTemplate::new(model, source).map_err(|e| e.to_string());
        let Some(asked) = asked else {
            return if model.chat_template().is_some() { parse(None).map(Self::Jinja) } else { Ok(Self::Plain) };
        };
        if is_template_text(asked) {
            return parse(Some(asked)).map(Self::Jinja);
        }
        if is_builtin(asked).map_err(|why| format!("--template {why}"))? {
            return Ok(Self::Builtin(asked.to_owned()));
        }
        let source = std::fs::read_to_string(asked).map_err(|e| format!("--template {asked}: {e}"))?;
        parse(Some(&source)).map(Self::Jinja)
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// What the template raised.
    pub fn render(&self, messages: &[Message], options: &ChatOptions, ending: Ending) -> Result<Rendered, LlamaError> {
        let mut without_calls = None;
        let rendered = match self {
            Self::Jinja(template) => {
                // Plain data: serialising it cannot fail.
                let json = serde_json::to_string(messages).unwrap_or_default();
                let tools = (!options.tools.is_empty()).then(|| tools_json(&options.tools));
                let outlines = (options.parse && tools.is_some()).then(|| outlines_json(&options.tools));
                let variables: Vec<_> =
                    options.template_args.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
                let request = ChatRequest {
                    tools: tools.as_deref(),
                    outlines: outlines.as_deref(),
                    allow_calls: options.tool_choice != ToolChoice::None,
                    parallel_calls: options.parallel_tool_calls,
                    thinking: options.thinking.unwrap_or(true),
                    parse: options.parse,
                    answer: ending == Ending::Answer,
                    variables: &variables,
                    ..ChatRequest::new(&json)
                };
                if options.parse && options.may_call() {
                    without_calls = template.render(&ChatRequest { allow_calls: false, ..request.clone() })?.parser;
                }
                template.render(&request)?
            }
            Self::Builtin(name) => {
                let pairs: Vec<_> = messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
                render_builtin(name, &pairs)?
            }
            Self::Plain => {
                let texts: Vec<_> = messages.iter().map(|m| m.content.as_str()).collect();
                return Ok(Rendered { text: texts.join("\n\n"), stops: Vec::new(), parser: None, without_calls: None });
            }
        };
        let stops = serde_json::from_str(&rendered.stops).unwrap_or_default();
        Ok(Rendered { text: rendered.text, stops, parser: rendered.parser, without_calls })
    }

    /// Whether it tells the model about tools.
    #[must_use]
    pub fn knows_tools(&self) -> bool {
        match self {
            Self::Jinja(template) => template.knows_tools().unwrap_or(false),
            Self::Builtin(_) | Self::Plain => false,
        }
    }

    /// For reports: `jinja`, `chatml`, `none`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Jinja(_) => "jinja",
            Self::Builtin(name) => name,
            Self::Plain => "none",
        }
    }
}

/// In OpenAI's form.
#[must_use]
pub fn tools_json(tools: &[Tool]) -> String {
    let tool = |tool: &Tool| {
        json!({ "type": "function", "function": {
            "name": tool.name, "description": tool.description, "parameters": tool.parameters } })
    };
    Value::Array(tools.iter().map(tool).collect()).to_string()
}

/// Tools as a parser needs them: names, and the types of their parameters.
fn outlines_json(tools: &[Tool]) -> String {
    /// More of them are read without their types.
    const MOST_PARAMETERS: usize = 128;
    let outline = |tool: &Tool| {
        let properties = tool.parameters["properties"].as_object().filter(|all| all.len() <= MOST_PARAMETERS);
        let one = |(name, schema): (&String, &Value)| {
            let kind = schema.get("type").filter(|kind| kind.is_string());
            (name.clone(), kind.map_or_else(|| json!({}), |kind| json!({ "type": kind })))
        };
        let properties: serde_json::Map<_, _> = properties.into_iter().flatten().map(one).collect();
        let parameters = json!({ "type": "object", "properties": properties });
        Tool { name: tool.name.clone(), description: String::new(), parameters }
    };
    tools_json(&tools.iter().map(outline).collect::<Vec<_>>())
}

/// Whether a template that is named is one of llama.cpp's, or a file.
///
/// # Errors
/// Where it is neither: in words, with those that are known.
pub fn is_builtin(asked: &str) -> Result<bool, String> {
    let names = builtin_template_names().map_err(|e| e.to_string())?;
    let names: Vec<String> = serde_json::from_str(&names).unwrap_or_default();
    if names.iter().any(|name| name == asked) {
        return Ok(true);
    }
    if Path::new(asked).is_file() {
        return Ok(false);
    }
    Err(format!("{asked}: neither a file nor a known name; known are {}", names.join(", ")))
}
