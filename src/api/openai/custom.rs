//! Custom tools: those that take one text. Templates are told of a function with one argument, and calls of it are told as what
//! that argument holds.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::api::{BadRequest, forms};
use crate::chat::{ChatOptions, Message, Role, Tool, ToolChoice};
use crate::constrain::Constraint;
use crate::runner::ToolCallDelta;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.CustomTool")]
pub(super) struct Custom {
    pub name: String,
    #[serde(default)]
    pub description: String,
    pub format: Option<Format>,
}

/// What a custom tool's text looks like.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.CustomFormat")]
pub(super) struct Format {
    r#type: String,
    grammar: Option<Grammar>,
    // Responses have both beside the type.
    syntax: Option<String>,
    definition: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.CustomGrammar")]
struct Grammar {
    syntax: String,
    definition: String,
}

impl Format {
    /// # Errors
    /// A form that is unknown, not complete or too large.
    fn form(self) -> Result<Option<Constraint>, String> {
        let Self { r#type, grammar, syntax, definition } = self;
        let (syntax, definition) = match (r#type.as_str(), grammar, syntax.zip(definition)) {
            ("text", ..) => return Ok(None),
            ("grammar", Some(Grammar { syntax, definition }), _) | ("grammar", None, Some((syntax, definition))) => {
                (syntax, definition)
            }
            ("grammar", None, None) => return Err("format: `syntax` or `definition` is missing".into()),
            (other, ..) => return Err(format!("format.type is {other:?}; it can be text or grammar")),
        };
        let form = match syntax.as_str() {
            "lark" => Constraint::Lark(definition),
            "regex" => Constraint::Regex(definition),
            other => return Err(format!("the format's syntax is {other:?}; it can be lark or regex")),
        };
        forms::check_size("the format's definition", &form).map_err(|BadRequest(why)| why)?;
        Ok(Some(form))
    }
}

impl Custom {
    /// The function that stands for it, and what its text must look like.
    ///
    /// # Errors
    /// What is wrong with its format.
    pub fn into_tool(self) -> Result<(Tool, Option<Constraint>), String> {
        let form = self.format.map_or(Ok(None), Format::form)?;
        let mut input = json!({ "type": "string" });
        if let Some(Constraint::Regex(regex)) = &form {
            input["pattern"] = format!("^(?:{regex})$").into();
        }
        let parameters = json!({
            "type": "object", "properties": { "input": input }, "required": ["input"], "additionalProperties": false,
        });
        Ok((Tool { name: self.name, description: self.description, parameters }, form))
    }
}

/// The custom tools of a request.
#[derive(Clone, Debug, Default)]
pub struct Customs {
    names: Vec<String>,
    /// The one that must be called whose text no JSON can be kept to: all of the answer is that text.
    raw: Option<(Tool, Constraint)>,
}

impl Customs {
    /// # Errors
    /// A form that nothing would hold the model to.
    pub(super) fn new(
        custom: Vec<(usize, Option<Constraint>)>,
        tools: &[Tool],
        choice: &ToolChoice,
    ) -> Result<Self, BadRequest> {
        let mut customs = Self::default();
        for (index, form) in custom {
            let tool = &tools[index];
            customs.names.push(tool.name.clone());
            let refuse = |why: &str| {
                Err(BadRequest(format!(
                    "tools: the {why} of the custom tool {0:?} can be kept to only in a call that must happen; let `tool_choice` \
                     name {0:?}, or give it the format text",
                    tool.name
                )))
            };
            match (form, choice) {
                (None, _) | (_, ToolChoice::None) => {}
                (_, ToolChoice::Named(name)) if *name != tool.name => {}
                (Some(_), ToolChoice::Auto) => return refuse("grammar"),
                // The schema of its argument has it.
                (Some(Constraint::Regex(_)), _) => {}
                (Some(_), ToolChoice::Required) if tools.len() > 1 => return refuse("Lark grammar"),
                (Some(form), _) => customs.raw = Some((tool.clone(), form)),
            }
        }
        Ok(customs)
    }

    /// Has the answer be the text of a call, where it must be.
    pub(super) fn force(&self, messages: &mut Vec<Message>, chat: &mut ChatOptions, form: &mut Option<Constraint>) {
        let Some((Tool { name, description, .. }, grammar)) = &self.raw else { return };
        let told = format!(
            "Your answer is what the tool {name:?} is given: that text as it is, and nothing else. {description}"
        );
        match messages.first_mut().filter(|first| first.role == Role::System) {
            Some(system) => system.content = format!("{}\n\n{}", system.content, told.trim_end()),
            None => messages.insert(0, Message::new(Role::System, told.trim_end())),
        }
        chat.tool_choice = ToolChoice::None;
        *form = Some(grammar.clone());
    }

    /// The tool whose text all of the answer is.
    pub(super) fn raw(&self) -> Option<&str> {
        self.raw.as_ref().map(|(tool, _)| tool.name.as_str())
    }

    /// For a call of this tool, where it is one of them.
    pub(super) fn reader(&self, name: &str) -> Option<InputReader> {
        let state = if self.raw() == Some(name) { State::Plain } else { State::Before };
        self.names.iter().any(|known| known == name).then(|| InputReader { state, ..InputReader::default() })
    }

    /// The text of a whole call of this tool, where it is one of them.
    pub(super) fn input(&self, name: &str, arguments: &str) -> Option<String> {
        let mut reader = self.reader(name)?;
        let text = reader.more(arguments);
        Some(text + &reader.end())
    }
}

/// A call that begins with these arguments. Nine letters and digits are an id that all templates take.
pub(super) fn begin(name: &str, arguments: &str) -> ToolCallDelta {
    let id = std::iter::repeat_with(fastrand::alphanumeric).take(9).collect();
    ToolCallDelta { index: 0, id: Some(id), name: Some(name.into()), arguments: arguments.into() }
}

/// Reads the text that is the one argument of a call, out of JSON that comes in pieces.
#[derive(Clone, Debug, Default)]
pub(super) struct InputReader {
    /// What cannot be read yet.
    held: String,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Before,
    Within,
    Ended,
    /// It is no such JSON, and is told as it is: nothing is to be lost.
    Plain,
}

impl InputReader {
    /// Takes more of the arguments, and gives what they add to the text.
    pub fn more(&mut self, json: &str) -> String {
        self.held.push_str(json);
        if self.state == State::Before {
            self.open();
        }
        match self.state {
            State::Before => String::new(),
            State::Within => self.within(),
            State::Ended => {
                self.held.clear();
                String::new()
            }
            State::Plain => std::mem::take(&mut self.held),
        }
    }

    /// Nothing more comes: gives what was held back for a beginning that is not there.
    pub fn end(&mut self) -> String {
        if self.state == State::Before { std::mem::take(&mut self.held) } else { String::new() }
    }

    fn open(&mut self) {
        let mut rest = self.held.as_str();
        for part in ["{", "\"input\"", ":", "\""] {
            rest = rest.trim_start();
            match rest.strip_prefix(part) {
                Some(more) => rest = more,
                None if part.starts_with(rest) => return,
                None => {
                    self.state = State::Plain;
                    return;
                }
            }
        }
        self.held = rest.into();
        self.state = State::Within;
    }

    fn within(&mut self) -> String {
        let (held, mut text) = (std::mem::take(&mut self.held), String::new());
        let mut rest = held.as_str();
        while let Some(at) = rest.find(['"', '\\']) {
            text.push_str(&rest[..at]);
            rest = &rest[at..];
            if rest.starts_with('"') {
                self.state = State::Ended;
                return text;
            }
            let Some(len) = escape(rest) else {
                self.held = rest.into();
                return text;
            };
            let (escaped, more) = rest.split_at(len);
            // What is no escape stays as it is.
            let read = serde_json::from_str(&format!("\"{escaped}\""));
            text.push_str(&read.unwrap_or_else(|_| escaped.to_owned()));
            rest = more;
        }
        text.push_str(rest);
        text
    }
}

/// Bytes of the escape that the text begins with, once it is there.
fn escape(text: &str) -> Option<usize> {
    let second = text[1..].chars().next()?;
    if second != 'u' {
        return Some(1 + second.len_utf8());
    }
    let code = |text: &str| text.get(2..6).and_then(|hex| u16::from_str_radix(hex, 16).ok());
    match code(text) {
        None if text.len() < 6 => None,
        None => Some(2),
        // Half of a character, whose other half may follow.
        Some(0xD800..0xDC00) => {
            let other = &text[6..];
            match code(other) {
                Some(0xDC00..0xE000) if other.starts_with("\\u") => Some(12),
                None if other.len() < 6 && (other.starts_with("\\u") || "\\u".starts_with(other)) => None,
                _ => Some(6),
            }
        }
        Some(_) => Some(6),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Custom, Customs, InputReader};
    use crate::chat::ToolChoice;
    use crate::constrain::{Compiler, Constraint, Words};

    #[test]
    fn an_input_is_read_out_of_json_however_it_is_cut() {
        let text = "a\"\\\n\té🌧 \u{1}/{}";
        let written = json!({ "input": text }).to_string();
        let escaped = "{ \"input\" :\n\"\\u0061\\\"\\\\\\n\\t\\u00e9\\ud83c\\udf27 \\u0001\\/{}\" }";
        for json in [written.as_str(), escaped] {
            for size in 1..=json.len() {
                let mut reader = InputReader::default();
                let characters: Vec<char> = json.chars().collect();
                let mut pieces = characters.chunks(size).map(|piece| reader.more(&piece.iter().collect::<String>()));
                assert_eq!(pieces.by_ref().collect::<String>(), text, "{json} by {size}");
                assert_eq!(reader.end(), "");
            }
        }
    }

    #[test]
    fn what_is_no_such_json_is_told_as_it_is() {
        let customs = Customs { names: vec!["c".into()], raw: None };
        let input = |arguments: &str| customs.input("c", arguments).expect("it is one");
        for other in ["{\"code\": \"x\"}", "{\"input\": 5}", "x", "{\"inp", "{", ""] {
            assert_eq!(input(other), other);
        }
        assert_eq!(input("{\"input\": \"a\\qb\\u12\u{e9}4 \\ud83cx\\ud83c\", 7}"), "a\\qb\\u12é4 \\ud83cx\\ud83c");
        assert_eq!(input("{\"input\": \"cut o"), "cut o");
        assert_eq!(customs.input("f", "{}"), None, "a function");
    }

    fn custom(format: serde_json::Value) -> Result<(super::Tool, Option<Constraint>), String> {
        let custom: Custom = serde_json::from_value(json!({ "name": "c", "format": format })).expect("a tool");
        custom.into_tool()
    }

    #[test]
    fn an_expression_is_kept_to_by_the_text_and_not_by_its_json() {
        let (tool, _) =
            custom(json!({ "type": "grammar", "syntax": "regex", "definition": "a\"b|[\\n\\\\]+" })).expect("known");
        let compiler = Compiler::new(Words::bytes()).expect("a vocabulary");
        let allowed = |text: &str| {
            let mut filter = compiler.compile(&Constraint::JsonSchema(tool.parameters.clone())).expect("it compiles");
            let json = format!("{{\"input\": {}}}", json!(text));
            json.bytes().all(|byte| filter.allows(byte.into()) == Ok(true) && filter.accept(byte.into()).is_ok())
        };
        assert!(allowed("a\"b") && allowed("\n\\\n"));
        assert!(!allowed("ab") && !allowed("xa\"b") && !allowed("a\"bx") && !allowed(""));
    }

    #[test]
    fn a_form_is_kept_to_or_refused() {
        let lark = custom(json!({ "type": "grammar", "grammar": { "syntax": "lark", "definition": "start: \"a\"" } }));
        let regex = custom(json!({ "type": "grammar", "syntax": "regex", "definition": "a" }));
        let (text, other) = (custom(json!({ "type": "text" })).expect("known").0, ToolChoice::Named("other".into()));
        let named = ToolChoice::Named("c".into());
        let both = [text.clone(), super::Tool { name: "f".into(), ..text }];
        let with = |form: &Option<Constraint>, tools, choice| {
            Customs::new(vec![(0, form.clone())], &both[..tools], choice).map(|customs| customs.raw().is_some())
        };
        let (lark, regex) = (lark.expect("known").1, regex.expect("known").1);
        for (form, tools, choice, expected) in [
            (&None, 2, &ToolChoice::Auto, Some(false)),
            (&regex, 2, &ToolChoice::Required, Some(false)),
            (&regex, 1, &named, Some(false)),
            (&regex, 1, &ToolChoice::Auto, None),
            (&lark, 2, &named, Some(true)),
            (&lark, 1, &ToolChoice::Required, Some(true)),
            (&lark, 2, &ToolChoice::Required, None),
            (&lark, 1, &ToolChoice::Auto, None),
            (&lark, 1, &ToolChoice::None, Some(false)),
            (&lark, 2, &other, Some(false)),
        ] {
            assert_eq!(with(form, tools, choice).ok(), expected, "{form:?} of {tools} with {choice:?}");
        }
        let why = with(&lark, 2, &ToolChoice::Required).expect_err("refused").0;
        assert!(why.starts_with("tools: the Lark grammar of the custom tool \"c\" can be kept to only"), "{why}");
        for (format, why) in [
            (json!({ "type": "xml" }), "format.type is \"xml\""),
            (json!({ "type": "grammar" }), "format: `syntax` or `definition` is missing"),
            (json!({ "type": "grammar", "syntax": "peg", "definition": "a" }), "the format's syntax is \"peg\""),
            (
                json!({ "type": "grammar", "syntax": "regex", "definition": "a".repeat(70_000) }),
                "the format's definition has 70000",
            ),
        ] {
            assert!(custom(format.clone()).expect_err("wrong").starts_with(why), "{format}");
        }
    }
}
