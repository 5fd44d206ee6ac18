//! How text that was held back is told.

use std::sync::Arc;
use std::time::Duration;

use super::adapters::AdapterSet;
use super::forward::TokenId;
use super::handle::{EngineConfig, EngineHandle, Job};
use super::simulation::{Machine, Rule};
use super::{Event, FinishReason};

/// Says these pieces, one after the other.
struct Script(Vec<&'static str>);

impl Rule for Script {
    fn next(&self, tokens: &[TokenId], prompt: usize, _: &AdapterSet) -> Result<TokenId, String> {
        let said = tokens.len() - prompt;
        Ok(if said < self.0.len() { u32::try_from(said).map_err(|e| e.to_string())? + 1 } else { 0 })
    }

    fn piece(&self, token: TokenId) -> Option<Arc<str>> {
        (token > 0).then(|| self.0[token as usize - 1].into())
    }
}

/// Each piece of text with the tokens that begin with it, and how many probabilities came along.
fn told(script: &[&'static str], stop: &str) -> (Vec<(String, u32)>, usize, FinishReason) {
    let rule = Arc::new(Script(script.to_vec()));
    let machine =
        Machine { n_cells: 64, n_ctx_seq: 64, n_batch: 32, n_seq_max: 2, recurrent: false, pace: Duration::ZERO };
    let config = EngineConfig { label: "test".into(), queue: 1, ..EngineConfig::default() };
    let engine = EngineHandle::start_simulation(rule, machine, config).expect("it starts");
    let job = Job { prompt: vec![1], stop: vec![stop.into()], logprobs: Some(0), ..Job::default() };
    let (mut pieces, mut probabilities) = (Vec::new(), 0);
    for event in engine.submit(job).expect("it is queued") {
        match event.expect("it runs") {
            Event::Token { text, tokens, logprobs } => {
                assert_eq!(logprobs.len(), tokens as usize, "{text:?}");
                probabilities += logprobs.len();
                pieces.push((text.to_string(), tokens));
            }
            Event::Done(summary) => return (pieces, probabilities, summary.reason),
            Event::Error(error) => panic!("{error}"),
        }
    }
    panic!("no end")
}

#[test]
fn text_that_was_held_back_is_told_token_by_token() {
    let pieces = |told: &[(&str, u32)]| told.iter().map(|(text, n)| ((*text).to_owned(), *n)).collect::<Vec<_>>();
    let (found, probabilities, reason) = told(&["a ", "</", "e", "m> b", "é"], "</end>");
    assert_eq!(found, pieces(&[("a ", 1), ("</", 1), ("e", 1), ("m> b", 1), ("é", 1)]));
    assert_eq!((probabilities, reason), (5, FinishReason::Eos));
    let (found, ..) = told(&["x<", "y", "<"], "</end>");
    assert_eq!(found, pieces(&[("x", 1), ("<", 0), ("y", 1), ("<", 1)]), "the rest of a token");
    let (found, _, reason) = told(&["a", "", "b</", "end>"], "</end>");
    assert_eq!((found, reason), (pieces(&[("a", 1), ("b", 2)]), FinishReason::Stop), "a token that shows nothing");
}
