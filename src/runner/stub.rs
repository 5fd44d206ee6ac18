//! A runner without a model: its answer follows from the prompt by rules. The API's contract tests run on it.
//!
//! The answer repeats the prompt's last message, word by word. A few prompts ask for more:
//! `stub:fail` fails before the first token, `stub:break` after the second, `stub:endless` never ends by itself.

use std::time::Duration;

use crate::engine::{EngineError, Event, EventSender, FinishReason, StopMatcher, Summary, Timings, Usage, channel};
use crate::placement::PlacementReport;

use super::delta::DeltaStream;
use super::error::RunnerError;
use super::spec::{GenerateSpec, Input};
use super::{Measure, Runner, RunnerInfo};

/// Words, in place of tokens, that a prompt may have.
const CONTEXT: usize = 512;
/// Between two words, so that a test can act while one runs.
const PACE: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub struct StubRunner {
    info: RunnerInfo,
}

impl StubRunner {
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            info: RunnerInfo {
                description: "stub".into(),
                size_bytes: 0,
                parameters: 0,
                context_tokens: CONTEXT,
                threads: 1,
                template: "none".into(),
                adapters: Vec::new(),
                placement: PlacementReport {
                    backend: "cpu".into(),
                    devices: Vec::new(),
                    gpu_layers: 0,
                    total_layers: 0,
                },
                load_ms: 0.0,
            },
        }
    }
}

impl Runner for StubRunner {
    fn generate(&self, spec: &GenerateSpec) -> Result<DeltaStream, RunnerError> {
        let (prompt, last) = match &spec.input {
            Input::Raw(text) => (text.clone(), text.clone()),
            Input::Messages(messages) => (
                messages.iter().map(|m| m.content.as_str()).collect::<Vec<_>>().join(" "),
                messages.last().map(|m| m.content.clone()).unwrap_or_default(),
            ),
        };
        spec.sampling.validate().map_err(RunnerError::BadRequest)?;
        let prompt_tokens = prompt.split_whitespace().count();
        if prompt_tokens == 0 {
            return Err(EngineError::EmptyPrompt.into());
        }
        if prompt_tokens >= CONTEXT {
            return Err(RunnerError::PromptTooLong { prompt_tokens, context_tokens: CONTEXT });
        }
        let endless = last.trim() == "stub:endless";
        let room = if endless { u32::MAX } else { u32::try_from(CONTEXT - prompt_tokens).unwrap_or(u32::MAX) };
        let limit = spec.max_tokens.unwrap_or(u32::MAX).min(room);
        let (events, stream) = channel(CONTEXT + 3);
        let answer = Answer {
            text: last,
            limit,
            stop: StopMatcher::new(spec.stop.iter().cloned()),
            seed: spec.sampling.seed.unwrap_or(0),
            prompt_tokens: u32::try_from(prompt_tokens).unwrap_or(u32::MAX),
        };
        std::thread::spawn(move || answer.send(&events));
        Ok(DeltaStream::new(stream))
    }

    fn info(&self) -> &RunnerInfo {
        &self.info
    }

    fn measure(&self, _: Measure) -> Result<f64, RunnerError> {
        Err(RunnerError::BadRequest("the stub has no speed to measure".into()))
    }
}

struct Answer {
    text: String,
    limit: u32,
    stop: StopMatcher,
    seed: u32,
    prompt_tokens: u32,
}

impl Answer {
    fn send(mut self, events: &EventSender) {
        let script = self.text.trim().to_owned();
        if script == "stub:fail" {
            let _ = events.send(Event::Error(EngineError::Failed("the stub was told to fail".into())));
            return;
        }
        let endless = script == "stub:endless";
        let words: Vec<String> = if endless { vec!["word ".into()] } else { pieces(&self.text) };
        let mut sent = 0;
        for word in words.iter().cycle().take(if endless { usize::MAX } else { words.len() }) {
            if sent == self.limit {
                return self.finish(events, sent, FinishReason::Length, None);
            }
            if events.is_cancelled() {
                return self.finish(events, sent, FinishReason::Cancelled, None);
            }
            if script == "stub:break" && sent == 2 {
                let _ = events.send(Event::Error(EngineError::Failed("the stub was told to break".into())));
                return;
            }
            sent += 1;
            let mut text = String::new();
            let hit = self.stop.push(word, &mut text);
            if !text.is_empty() {
                let _ = events.send(Event::Token { text });
            }
            if hit.is_some() {
                return self.finish(events, sent, FinishReason::Stop, hit);
            }
            std::thread::sleep(PACE);
        }
        self.finish(events, sent, FinishReason::Eos, None);
    }

    fn finish(&mut self, events: &EventSender, sent: u32, reason: FinishReason, stop: Option<String>) {
        let mut text = String::new();
        if reason != FinishReason::Stop {
            self.stop.finish(&mut text);
        }
        if !text.is_empty() {
            let _ = events.send(Event::Token { text });
        }
        let usage = Usage { prompt_tokens: self.prompt_tokens, completion_tokens: sent, cached_tokens: 0 };
        let _ = events.send(Event::Done(Summary { reason, stop, seed: self.seed, usage, timings: Timings::default() }));
    }
}

/// Words, each with the space before it, as tokenisers cut. `stub:break` becomes three.
fn pieces(text: &str) -> Vec<String> {
    if text.trim() == "stub:break" {
        return ["one", " two", " three"].map(str::to_owned).to_vec();
    }
    let mut pieces: Vec<String> = Vec::new();
    for c in text.chars() {
        let starts = c == ' ' || c == '\n';
        match pieces.last_mut() {
            Some(last) if !starts => last.push(c),
            _ => pieces.push(c.to_string()),
        }
    }
    pieces
}
