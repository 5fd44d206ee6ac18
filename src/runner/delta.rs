//! What a generation adds, step by step.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::chat::ToolCall;
use crate::engine::{Control, EngineError, Event, EventStream, FinishReason, Summary, TokenLogprob};

use super::error::RunnerError;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delta {
    /// More of the answer's text.
    Content(SmolStr),
    /// More of what the model thinks before it answers.
    Reasoning(SmolStr),
    /// More of a tool call.
    ToolCall(ToolCallDelta),
    /// Of the tokens that what follows is made of.
    Logprobs(Vec<TokenLogprob>),
    /// The end. Nothing follows.
    Done(Summary),
}

/// A tool call begins with its id and name; its arguments, JSON, come in pieces. One is complete when the next begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallDelta {
    /// Counts the calls of an answer from 0.
    pub index: usize,
    pub id: Option<String>,
    pub name: Option<String>,
    pub arguments: String,
}

/// Tells thoughts and tool calls from the text.
pub(super) trait OutputParser: Send + Debug {
    /// Takes more of the model's text.
    fn push(&mut self, text: &str, out: &mut VecDeque<Delta>) -> Result<(), RunnerError>;

    /// No more text comes.
    fn finish(&mut self, reason: FinishReason, out: &mut VecDeque<Delta>) -> Result<(), RunnerError>;

    /// One for another answer to the same prompt.
    fn again(&self) -> Result<Box<dyn OutputParser>, RunnerError>;
}

/// For so many answers to one prompt.
pub(super) fn parsers_for(
    parser: Option<Box<dyn OutputParser>>,
    answers: u32,
) -> Result<Vec<Option<Box<dyn OutputParser>>>, RunnerError> {
    let others = (1..answers).map(|_| parser.as_ref().map(|parser| parser.again()).transpose());
    let mut parsers = others.collect::<Result<Vec<_>, _>>()?;
    parsers.push(parser);
    Ok(parsers)
}

/// The stream of one generation: an `Iterator` for the command line, a `Stream` for the server. After an `Err`
/// nothing follows. Dropping it cancels the generation.
#[derive(Debug)]
pub struct DeltaStream {
    events: EventStream,
    parser: Option<Box<dyn OutputParser>>,
    /// Deltas of events that were taken already.
    ready: VecDeque<Delta>,
    /// What comes after them, and last.
    failure: Option<RunnerError>,
    failed: bool,
    thoughts: ThoughtCount,
}

/// Counts the tokens of thoughts.
#[derive(Debug, Default)]
struct ThoughtCount {
    /// Tokens that the parser has read and made nothing of yet.
    held: u32,
    thoughts: u32,
}

impl ThoughtCount {
    /// So many tokens more, and what the parser made of them and of those before. Tokens that show nothing count with what
    /// comes next, and so the mark that begins a thought does, and the one that ends it does not.
    fn add<'a>(&mut self, tokens: u32, made: impl Iterator<Item = &'a Delta>) {
        self.held += tokens;
        let is_thought = |delta: &Delta| match delta {
            Delta::Reasoning(_) => Some(true),
            Delta::Content(_) | Delta::ToolCall(_) => Some(false),
            Delta::Logprobs(_) | Delta::Done(_) => None,
        };
        let mut kinds = made.filter_map(is_thought);
        let Some(first) = kinds.next() else { return };
        let last = kinds.last().unwrap_or(first);
        // Where it ends something and begins another, the latest token is the other's.
        let of_last = if first == last { 0 } else { self.held.min(1) };
        self.thoughts += u32::from(first) * (self.held - of_last) + u32::from(last) * of_last;
        self.held = 0;
    }
}

impl DeltaStream {
    pub(super) fn new(events: EventStream, parser: Option<Box<dyn OutputParser>>) -> Self {
        let (ready, thoughts) = (VecDeque::new(), ThoughtCount::default());
        Self { events, parser, ready, failure: None, failed: false, thoughts }
    }

    /// Streams with their parsers, in this order.
    pub(super) fn several(events: Vec<EventStream>, parsers: Vec<Option<Box<dyn OutputParser>>>) -> Vec<Self> {
        events.into_iter().zip(parsers).map(|(events, parser)| Self::new(events, parser)).collect()
    }

    /// To stop or steer the generation from elsewhere.
    #[must_use]
    pub fn control(&self) -> Control {
        self.events.control()
    }

    /// How many tokens the prompt has. [`Delta::Done`] tells it too, but only at the end.
    #[must_use]
    pub fn prompt_tokens(&self) -> usize {
        self.events.prompt_tokens()
    }

    /// The next delta, in async code. The name tells it from `Iterator::next`, which blocks.
    pub async fn recv(&mut self) -> Option<Result<Delta, RunnerError>> {
        futures_util::StreamExt::next(self).await
    }

    /// The next delta if it is there already.
    pub fn try_recv(&mut self) -> Option<Result<Delta, RunnerError>> {
        loop {
            if let Some(delta) = self.take_ready() {
                return Some(delta);
            }
            if self.failed {
                return None;
            }
            let event = self.events.try_next()?;
            self.take_in(event);
        }
    }

    fn take_ready(&mut self) -> Option<Result<Delta, RunnerError>> {
        self.ready.pop_front().map(Ok).or_else(|| self.failure.take().map(Err))
    }

    fn take_in(&mut self, event: Result<Event, EngineError>) {
        if let Err(failure) = self.unfold(event) {
            self.failed = true;
            self.failure = Some(failure);
            self.events.control().cancel();
        }
    }

    fn unfold(&mut self, event: Result<Event, EngineError>) -> Result<(), RunnerError> {
        match event? {
            Event::Token { text, tokens, logprobs } => {
                if !logprobs.is_empty() {
                    self.ready.push_back(Delta::Logprobs(logprobs));
                }
                let before = self.ready.len();
                match &mut self.parser {
                    Some(parser) => {
                        parser.push(&text, &mut self.ready)?;
                        self.thoughts.add(tokens, self.ready.range(before..));
                    }
                    None => self.ready.push_back(Delta::Content(text)),
                }
            }
            Event::Done(mut summary) => {
                let before = self.ready.len();
                if let Some(parser) = &mut self.parser {
                    parser.finish(summary.reason, &mut self.ready)?;
                    self.thoughts.add(0, self.ready.range(before..));
                }
                summary.usage.reasoning_tokens = self.thoughts.thoughts;
                self.ready.push_back(Delta::Done(summary));
            }
            Event::Error(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl Iterator for DeltaStream {
    type Item = Result<Delta, RunnerError>;

    /// Blocks until the next delta. Not for use inside an async task.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(delta) = self.take_ready() {
                return Some(delta);
            }
            if self.failed {
                return None;
            }
            let event = Iterator::next(&mut self.events)?;
            self.take_in(event);
        }
    }
}

impl Stream for DeltaStream {
    type Item = Result<Delta, RunnerError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(delta) = self.take_ready() {
                return Poll::Ready(Some(delta));
            }
            if self.failed {
                return Poll::Ready(None);
            }
            match Pin::new(&mut self.events).poll_next(cx) {
                Poll::Ready(Some(event)) => self.take_in(event),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub text: String,
    pub reasoning: String,
    pub tool_calls: Vec<ToolCall>,
    pub logprobs: Vec<TokenLogprob>,
}

impl Answer {
    /// Takes one step in; the last one returns what it brought.
    pub fn add(&mut self, delta: Delta) -> Option<Summary> {
        match delta {
            Delta::Content(more) => self.text.push_str(&more),
            Delta::Reasoning(more) => self.reasoning.push_str(&more),
            Delta::ToolCall(more) => {
                if self.tool_calls.len() <= more.index {
                    self.tool_calls.resize_with(more.index + 1, ToolCall::default);
                }
                let call = &mut self.tool_calls[more.index];
                call.id.push_str(more.id.as_deref().unwrap_or_default());
                call.name.push_str(more.name.as_deref().unwrap_or_default());
                call.arguments.push_str(&more.arguments);
            }
            Delta::Logprobs(more) => self.logprobs.extend(more),
            Delta::Done(summary) => return Some(summary),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Delta, ThoughtCount, ToolCallDelta};

    #[test]
    fn tokens_count_with_what_they_become() {
        let (thought, text) = (Delta::Reasoning("a".into()), Delta::Content("b".into()));
        let call = Delta::ToolCall(ToolCallDelta::default());
        let count = |steps: &[(u32, &[&Delta])]| {
            let mut count = ThoughtCount::default();
            steps.iter().for_each(|(tokens, made)| count.add(*tokens, made.iter().copied()));
            count.thoughts
        };
        assert_eq!(count(&[(1, &[]), (1, &[&thought]), (1, &[&thought]), (1, &[]), (1, &[&text])]), 3, "marks");
        assert_eq!(count(&[(1, &[&text]), (2, &[]), (0, &[&call])]), 0, "held back to the end");
        assert_eq!(count(&[(1, &[]), (0, &[&thought])]), 1, "the rest of a token");
        assert_eq!(count(&[(1, &[]), (1, &[]), (1, &[&thought, &text])]), 2, "a thought's end and a text's beginning");
        assert_eq!(count(&[(1, &[&text]), (1, &[&text, &thought]), (1, &[&thought])]), 2, "a later thought");
    }
}
