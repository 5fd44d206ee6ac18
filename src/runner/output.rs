//! From a model's text to deltas: by the template's form, or by the form that was forced on it.

use std::collections::VecDeque;

use serde_json::Value;

use super::delta::{Delta, OutputParser, ToolCallDelta};
use super::error::RunnerError;
use crate::chat::Tool;
use crate::engine::FinishReason;
use crate::llama::{Answer, AnswerParser};

/// Nine letters and digits, which is what all templates take when the call comes back.
fn call_id() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(9).collect()
}

fn begin(index: usize, name: &str) -> Delta {
    let (id, name) = (Some(call_id()), Some(name.to_owned()));
    Delta::ToolCall(ToolCallDelta { index, id, name, arguments: String::new() })
}

fn arguments(index: usize, more: &str) -> Delta {
    Delta::ToolCall(ToolCallDelta { index, arguments: more.to_owned(), ..ToolCallDelta::default() })
}

/// Reads what llama.cpp's parser makes of the text so far, and tells what is new.
#[derive(Debug)]
pub(super) struct TemplateParser {
    parser: AnswerParser,
    /// For an answer that only seemed to hold calls.
    without_calls: Option<AnswerParser>,
    may_call: bool,
    raw: String,
    told: Told,
    /// Brackets that are open, at least: llama.cpp's parser goes one call deeper for each.
    depth: usize,
}

/// Beyond this an answer is no call that somebody could use.
const MOST_NESTED: usize = 200;

/// What was told already.
#[derive(Debug, Default)]
struct Told {
    reasoning: String,
    content: String,
    /// Where in the raw text the latest piece ends.
    end: usize,
    /// Bytes of the arguments of each call that has begun.
    calls: Vec<usize>,
}

impl TemplateParser {
    pub fn new(parser: AnswerParser, without_calls: Option<AnswerParser>, may_call: bool) -> Self {
        Self { parser, without_calls, may_call, raw: String::new(), told: Told::default(), depth: 0 }
    }

    fn another(&self) -> Result<Self, RunnerError> {
        let again = |parser: &AnswerParser| parser.again().map_err(|e| RunnerError::Failed(e.to_string()));
        Ok(Self::new(again(&self.parser)?, self.without_calls.as_ref().map(again).transpose()?, self.may_call))
    }

    /// What began like a call and was none is text. Without calls, all behind the thoughts is.
    fn tell_text(&mut self, out: &mut VecDeque<Delta>) {
        if let Some(Ok(answer)) = self.without_calls.as_mut().map(|parser| parser.parse(&self.raw, false)) {
            self.told.tell(&self.raw, &answer, true, out);
            return;
        }
        let rest = &self.raw[self.told.end..];
        out.extend((!rest.is_empty()).then(|| Delta::Content(rest.into())));
    }
}

impl Told {
    fn tell(&mut self, raw: &str, answer: &Answer<'_>, last: bool, out: &mut VecDeque<Delta>) {
        // White space around a thought belongs neither to it nor to the answer.
        let content = if answer.reasoning.is_empty() { answer.content } else { answer.content.trim_start() };
        if let Some(more) = new_part(&mut self.reasoning, answer.reasoning.trim_start()) {
            self.end = end_of(raw, self.end, more);
            out.push_back(Delta::Reasoning(more.into()));
        }
        if let Some(more) = new_part(&mut self.content, content) {
            self.end = end_of(raw, self.end, more);
            out.push_back(Delta::Content(more.into()));
        }
        for (index, (name, text)) in answer.calls.iter().enumerate() {
            // A name can still grow while nothing follows it, and llama.cpp opens the arguments before it has seen any.
            let complete = last || text.len() > 1 || index + 1 < answer.calls.len();
            if name.is_empty() || !complete {
                break;
            }
            if self.calls.len() == index {
                self.calls.push(0);
                out.push_back(begin(index, name));
            }
            let told = &mut self.calls[index];
            if let Some(more) = text.get(*told..).filter(|more| !more.is_empty()) {
                *told = text.len();
                out.push_back(arguments(index, more));
            }
        }
    }
}

/// Where the next `piece` after `from` ends.
fn end_of(raw: &str, from: usize, piece: &str) -> usize {
    raw[from..].find(piece).map_or(from, |at| from + at + piece.len())
}

/// What `text` has more than `told`, which is told with it.
fn new_part<'a>(told: &mut String, text: &'a str) -> Option<&'a str> {
    let more = text.strip_prefix(told.as_str()).filter(|more| !more.is_empty())?;
    told.push_str(more);
    Some(more)
}

impl OutputParser for TemplateParser {
    fn push(&mut self, text: &str, out: &mut VecDeque<Delta>) -> Result<(), RunnerError> {
        self.raw.push_str(text);
        let (open, close) = (text.matches(['[', '{']).count(), text.matches([']', '}']).count());
        self.depth = (self.depth + open).saturating_sub(close);
        if self.depth > MOST_NESTED {
            return Err(RunnerError::Failed(format!("the model nests more than {MOST_NESTED} brackets in its answer")));
        }
        // What makes no sense yet may do so when more of it is there.
        if let Ok(answer) = self.parser.parse(text, true) {
            self.told.tell(&self.raw, &answer, false, out);
        }
        Ok(())
    }

    fn finish(&mut self, reason: FinishReason, out: &mut VecDeque<Delta>) -> Result<(), RunnerError> {
        let ended = matches!(reason, FinishReason::Eos | FinishReason::Stop);
        match self.parser.parse("", !ended) {
            Ok(answer) if ended && self.may_call && answer.calls.is_empty() && !answer.complete => self.tell_text(out),
            // A failure in the middle comes as an answer without anything in it, whatever it held before.
            Ok(answer) if !answer.is_empty() || self.told.end == 0 => {
                self.told.tell(&self.raw, &answer, true, out);
                let empty = self.told.calls.iter().enumerate().filter(|(_, told)| ended && **told == 0);
                out.extend(empty.map(|(index, _)| arguments(index, "{}")));
            }
            Ok(_) | Err(_) => {
                tracing::debug!("an answer does not have the form that its template describes");
                if self.told.calls.is_empty() {
                    self.tell_text(out);
                }
            }
        }
        Ok(())
    }

    fn again(&self) -> Result<Box<dyn OutputParser>, RunnerError> {
        Ok(Box::new(self.another()?))
    }
}

/// The text is one call, after what tells which.
#[derive(Debug)]
pub(super) struct CallParser {
    /// Names of the tools, with the text that stands before their arguments.
    calls: Vec<(String, String)>,
    /// Text that does not yet tell which it is.
    undecided: String,
    decided: bool,
}

impl CallParser {
    pub fn new(calls: Vec<(String, String)>) -> Self {
        Self { calls, undecided: String::new(), decided: false }
    }
}

impl OutputParser for CallParser {
    fn push(&mut self, text: &str, out: &mut VecDeque<Delta>) -> Result<(), RunnerError> {
        if self.decided {
            out.push_back(arguments(0, text));
            return Ok(());
        }
        self.undecided.push_str(text);
        let found =
            self.calls.iter().find_map(|(name, before)| Some((name, self.undecided.strip_prefix(before.as_str())?)));
        if let Some((name, more)) = found {
            self.decided = true;
            out.push_back(begin(0, name));
            out.extend((!more.is_empty()).then(|| arguments(0, more)));
        }
        Ok(())
    }

    fn finish(&mut self, _reason: FinishReason, _out: &mut VecDeque<Delta>) -> Result<(), RunnerError> {
        Ok(())
    }

    fn again(&self) -> Result<Box<dyn OutputParser>, RunnerError> {
        Ok(Box::new(Self::new(self.calls.clone())))
    }
}

/// The text is a call if it is a JSON object that names a tool, see [`crate::chat::forced::with_tools_told`].
#[derive(Debug)]
pub(super) struct PlainCallParser {
    tools: Vec<String>,
    /// Text that may be a call.
    held: String,
    is_text: bool,
}

impl PlainCallParser {
    pub fn new(tools: &[Tool]) -> Self {
        let tools = tools.iter().map(|tool| tool.name.clone()).collect();
        Self { tools, held: String::new(), is_text: false }
    }

    fn another(&self) -> Self {
        Self { tools: self.tools.clone(), held: String::new(), is_text: false }
    }

    /// The text is no call.
    fn give_up(&mut self, out: &mut VecDeque<Delta>) {
        self.is_text = true;
        let held = std::mem::take(&mut self.held);
        out.extend((!held.is_empty()).then(|| Delta::Content(held.into())));
    }

    fn call(&self) -> Option<(String, String)> {
        let value: Value = serde_json::from_str(self.held.trim()).ok()?;
        let name = value["name"].as_str().filter(|name| self.tools.iter().any(|tool| tool == name))?;
        value["arguments"].is_object().then(|| (name.to_owned(), value["arguments"].to_string()))
    }
}

/// For tools that the template does not tell: it knows the thoughts and perhaps calls of its own form, and the rest of the
/// answer may be a plain call.
#[derive(Debug)]
pub(super) struct EitherCallParser {
    template: TemplateParser,
    plain: PlainCallParser,
    /// What the template's parser found.
    found: VecDeque<Delta>,
}

impl EitherCallParser {
    pub fn new(template: TemplateParser, plain: PlainCallParser) -> Self {
        Self { template, plain, found: VecDeque::new() }
    }

    fn pass_on(&mut self, out: &mut VecDeque<Delta>) -> Result<(), RunnerError> {
        for delta in self.found.drain(..) {
            match delta {
                Delta::Content(text) => self.plain.push(&text, out)?,
                Delta::ToolCall(_) => {
                    self.plain.give_up(out);
                    out.push_back(delta);
                }
                other => out.push_back(other),
            }
        }
        Ok(())
    }
}

impl OutputParser for EitherCallParser {
    fn push(&mut self, text: &str, out: &mut VecDeque<Delta>) -> Result<(), RunnerError> {
        self.template.push(text, &mut self.found)?;
        self.pass_on(out)
    }

    fn finish(&mut self, reason: FinishReason, out: &mut VecDeque<Delta>) -> Result<(), RunnerError> {
        self.template.finish(reason, &mut self.found)?;
        self.pass_on(out)?;
        self.plain.finish(reason, out)
    }

    fn again(&self) -> Result<Box<dyn OutputParser>, RunnerError> {
        Ok(Box::new(Self::new(self.template.another()?, self.plain.another())))
    }
}

impl OutputParser for PlainCallParser {
    fn push(&mut self, text: &str, out: &mut VecDeque<Delta>) -> Result<(), RunnerError> {
        if self.is_text {
            out.push_back(Delta::Content(text.into()));
            return Ok(());
        }
        self.held.push_str(text);
        let begun = self.held.trim_start();
        if !begun.is_empty() && !begun.starts_with('{') {
            self.give_up(out);
        }
        Ok(())
    }

    fn finish(&mut self, _reason: FinishReason, out: &mut VecDeque<Delta>) -> Result<(), RunnerError> {
        match self.call() {
            Some((name, text)) => out.extend([begin(0, &name), arguments(0, &text)]),
            None => self.give_up(out),
        }
        Ok(())
    }

    fn again(&self) -> Result<Box<dyn OutputParser>, RunnerError> {
        Ok(Box::new(self.another()))
    }
}
