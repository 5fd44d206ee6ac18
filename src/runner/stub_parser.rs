//! The stub's thoughts and tool calls, from marks in its text.

use std::collections::VecDeque;

use super::delta::{Delta, OutputParser, ToolCallDelta};
use super::error::RunnerError;
use crate::chat::{ChatOptions, ToolChoice};
use crate::engine::FinishReason;

/// Text between `<think>` and `</think>`, words of their own, is thought. After the word `stub:call` comes the name of
/// a tool, and then its arguments; where a tool must be called, all text is the arguments of it.
#[derive(Clone, Debug)]
struct StubParser {
    tools: bool,
    state: State,
    calls: usize,
    /// A tool that must be called.
    forced: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    Thought,
    Name,
    Arguments,
}

pub(super) fn parser_for(chat: &ChatOptions) -> Option<Box<dyn OutputParser>> {
    if !chat.parse {
        return None;
    }
    let forced = match &chat.tool_choice {
        ToolChoice::Named(name) => Some(name.clone()),
        _ if chat.must_call() => chat.tools.first().map(|tool| tool.name.clone()),
        _ => None,
    };
    let tools = !chat.tools.is_empty() && chat.tool_choice != ToolChoice::None;
    Some(Box::new(StubParser { tools, state: State::Text, calls: 0, forced }))
}

impl StubParser {
    fn begin_call(&mut self, name: &str, out: &mut VecDeque<Delta>) {
        out.push_back(Delta::ToolCall(ToolCallDelta {
            index: self.calls,
            id: Some(format!("call_stub{}", self.calls)),
            name: Some(name.to_owned()),
            arguments: String::new(),
        }));
        self.calls += 1;
        self.state = State::Arguments;
    }
}

impl OutputParser for StubParser {
    fn push(&mut self, text: &str, out: &mut VecDeque<Delta>) -> Result<(), RunnerError> {
        match (self.state, text.trim()) {
            (State::Text, "<think>") => self.state = State::Thought,
            (State::Thought, "</think>") => self.state = State::Text,
            (State::Thought, _) => out.push_back(Delta::Reasoning(text.into())),
            (State::Text | State::Arguments, "stub:call") if self.tools => self.state = State::Name,
            (State::Name, name) => self.begin_call(name, out),
            (State::Text, _) => {
                if let Some(name) = self.forced.take() {
                    self.begin_call(&name, out);
                    return self.push(text, out);
                }
                out.push_back(Delta::Content(text.into()));
            }
            (State::Arguments, _) => out.push_back(Delta::ToolCall(ToolCallDelta {
                index: self.calls - 1,
                arguments: text.to_owned(),
                ..ToolCallDelta::default()
            })),
        }
        Ok(())
    }

    fn finish(&mut self, _reason: FinishReason, _out: &mut VecDeque<Delta>) -> Result<(), RunnerError> {
        Ok(())
    }

    fn again(&self) -> Result<Box<dyn OutputParser>, RunnerError> {
        Ok(Box::new(self.clone()))
    }
}
