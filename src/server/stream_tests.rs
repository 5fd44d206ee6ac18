//! What is sent while there is nothing to say.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep};

use super::{Choices, Deltas, Next, QUIET, frames};
use crate::api::{Encoder, anthropic, ollama, openai, shimmy};
use crate::engine::{FinishReason, Summary, Timings, Usage};
use crate::runner::{Delta, RunnerError, ToolCallDelta};

type Item = Result<Delta, RunnerError>;

/// What the test says, when it says it.
struct Said(UnboundedReceiver<Item>);

impl Stream for Said {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        self.0.poll_recv(cx)
    }
}

impl Deltas for Said {
    fn try_recv(&mut self) -> Option<Item> {
        self.0.try_recv().ok()
    }
}

fn body(
    encoder: impl Encoder + 'static,
    first: Next,
) -> (UnboundedSender<Item>, Pin<Box<dyn Stream<Item = String> + Send>>) {
    let (say, said) = unbounded_channel();
    let frames = frames(Choices::from(vec![Said(said)]), first, encoder, QUIET, ());
    (say, Box::pin(frames.map(|bytes| String::from_utf8(bytes.to_vec()).expect("text"))))
}

fn done() -> Item {
    let usage = Usage::default();
    Ok(Delta::Done(Summary { reason: FinishReason::Eos, stop: None, seed: 1, usage, timings: Timings::default() }))
}

/// One whose clock stands still while there is something to do, and else goes on to the next timer at once.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

/// Not long enough for a ping; twice it is.
const PAUSE: Duration = Duration::from_secs(QUIET.as_secs() * 2 / 3);

#[test]
fn a_silent_stream_pings_until_something_is_said() {
    runtime().block_on(async {
        let (say, mut body) = body(shimmy::SseEncoder::default(), Next::Nothing);
        for _ in 0..3 {
            assert_eq!(body.next().await.as_deref(), Some(": ping\n\n"));
        }
        say.send(Ok(Delta::Content("a".into()))).expect("it listens");
        let said = body.next().await.expect("a frame");
        assert_eq!(said, "data: a\n\n", "what is there goes first");
        assert_eq!(body.next().await.as_deref(), Some(": ping\n\n"), "in the middle, too");
        say.send(done()).expect("it listens");
        drop(say);
        assert_eq!(body.next().await.as_deref(), Some("data: [DONE]\n\n"));
        assert_eq!(body.next().await, None);
    });
}

#[test]
fn a_stream_that_talks_does_not_ping() {
    runtime().block_on(async {
        let first = Next::Step(Some((0, Ok(Delta::Content("a".into())))));
        let (say, body) = body(shimmy::SseEncoder::default(), first);
        let talk = async move {
            for item in [Ok(Delta::Content("b".into())), Ok(Delta::Content("c".into())), done()] {
                sleep(PAUSE).await;
                say.send(item).expect("it listens");
            }
        };
        let (said, ()) = tokio::join!(body.collect::<String>(), talk);
        assert_eq!(said, "data: a\n\ndata: b\n\ndata: c\n\ndata: [DONE]\n\n");
    });
}

/// Ollama's calls come whole: until one is, nothing is sent.
#[test]
fn deltas_that_show_nothing_do_not_put_the_ping_off() {
    runtime().block_on(async {
        let call = || Delta::ToolCall(ToolCallDelta { name: Some("f".into()), ..ToolCallDelta::default() });
        let first = Next::Step(Some((0, Ok(call()))));
        let (say, mut body) = body(ollama::ChatEncoder::new("m".into(), 0.0), first);
        let (start, talk) = (Instant::now(), async {
            sleep(PAUSE).await;
            say.send(Ok(call())).expect("it listens");
        });
        let (ping, ()) = tokio::join!(body.next(), talk);
        assert!(start.elapsed() < 2 * PAUSE, "{:?}", start.elapsed());
        let ping = ping.expect("a line");
        let ping: serde_json::Value = serde_json::from_str(&ping).expect("JSON");
        assert_eq!((&ping["message"]["content"], &ping["done"]), (&"".into(), &false.into()));
        say.send(done()).expect("it listens");
        drop(say);
        let rest: String = body.collect().await;
        assert!(rest.contains("\"tool_calls\"") && rest.contains("\"done\":true"), "{rest}");
    });
}

#[test]
fn each_dialect_has_a_ping_that_its_clients_pass_over() {
    let ping = |encoder: &mut dyn Encoder| {
        let mut out = Vec::new();
        encoder.ping(&mut out);
        String::from_utf8(out).expect("text")
    };
    let mut messages = anthropic::MessagesEncoder::new(anthropic::Head::new("m".into(), Vec::new()), 3);
    let first = ping(&mut messages);
    assert!(first.starts_with("event: message_start\n"), "{first}");
    assert!(first.ends_with("event: ping\ndata: {\"type\":\"ping\"}\n\n"), "{first}");
    assert_eq!(ping(&mut messages), "event: ping\ndata: {\"type\":\"ping\"}\n\n");
    let head = openai::Head::chat("m".into(), String::new());
    assert_eq!(ping(&mut openai::ChatEncoder::new(head, false, 1)), ": ping\n\n");
    let line = ping(&mut ollama::NdjsonEncoder::new("m".into(), 0.0));
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&line["response"], &line["done"]), (&"".into(), &false.into()));
}
