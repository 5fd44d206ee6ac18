//! Several answers to one request, and adapters while others are read, on the stub.

use std::path::Path;
use std::sync::mpsc::channel;
use std::thread::scope;

use super::StubRunner;
use crate::constrain::Constraint;
use crate::engine::EngineAdapter;
use crate::placement::Bytes;
use crate::runner::{
    Answer, Delta, DeltaStream, GenerateDefaults, GenerateSpec, Input, LoraUse, Runner, RunnerError, Sampling,
    StubSpeed,
};

fn stub(seed: Option<u32>) -> StubRunner {
    let sampling = Sampling { seed, ..Sampling::default() };
    StubRunner::new(StubSpeed::Paced, GenerateDefaults { sampling, ..GenerateDefaults::default() }).expect("it starts")
}

fn asked(text: &str, seed: Option<u32>) -> GenerateSpec {
    let mut spec = GenerateSpec::new("stub", Input::Raw(text.into()));
    spec.sampling.seed = seed;
    spec
}

/// The seeds that the answers were drawn with, in their order.
fn seeds(streams: Vec<DeltaStream>) -> Vec<u32> {
    let seed = |stream: DeltaStream| {
        let last = stream.last().expect("an end").expect("it does not fail");
        let Delta::Done(summary) = last else { panic!("{last:?}") };
        summary.seed
    };
    streams.into_iter().map(seed).collect()
}

#[test]
fn the_answers_to_a_prompt_have_seeds_that_follow_each_other() {
    let answers = |stub: &StubRunner, seed| {
        let specs = [asked("one", seed), asked("two", seed)];
        seeds(stub.generate_several(&specs, 3, &|| true).expect("they are queued"))
    };
    let configured = stub(Some(3));
    assert_eq!(answers(&configured, None), [3, 4, 5, 3, 4, 5]);
    assert_eq!(answers(&configured, Some(u32::MAX)), [u32::MAX, 0, 1, u32::MAX, 0, 1]);
    let mut drawn = answers(&stub(None), None);
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn.len(), 6, "none is drawn twice");
}

#[test]
fn a_request_is_queued_as_a_whole_or_not_at_all() {
    let stub = stub(None);
    let several = |n: u32| stub.generate_several(&[asked("stub:endless", None)], n, &|| true);
    let running = several(70).expect("there is room");
    assert!(matches!(several(11), Err(RunnerError::Overloaded(_))));
    let more = several(10).expect("none of those was kept");
    assert_eq!((running.len(), more.len()), (70, 10));
}

#[test]
fn more_than_the_queue_can_ever_hold_is_the_clients_mistake() {
    let stub = stub(None);
    let prompts = vec![asked("a", None); 3];
    let refused = stub.generate_several(&prompts, 27, &|| true).expect_err("16 run and 64 wait at most");
    let why = "81 answers are asked for and 80 is all that runs and waits at a time; ask for fewer, or raise --queue";
    assert_eq!(refused, RunnerError::BadRequest(why.into()));
    assert_eq!(stub.generate_several(&prompts, 26, &|| true).expect("there is room").len(), 78);
}

/// Loads an adapter whose file comes when `read` returns.
fn load(runner: &StubRunner, name: &str, read: impl FnOnce()) {
    let file = || {
        read();
        Ok::<_, ()>((EngineAdapter::new(name.to_owned()), Bytes::new()))
    };
    runner.adapters.load_into(&runner.engine, name, Path::new(name), false, file).expect("it has no file to fail");
}

fn says(runner: &StubRunner, adapter: &str) -> Result<String, RunnerError> {
    let lora = Some(vec![LoraUse { name: adapter.into(), scale: None }]);
    let spec = GenerateSpec { lora, ..GenerateSpec::new("stub", Input::Raw("one two".into())) };
    let mut answer = Answer::default();
    for delta in runner.generate(&spec)? {
        answer.add(delta?);
    }
    Ok(answer.text)
}

#[test]
fn streams_go_on_and_change_adapters_while_the_file_of_another_one_is_read() {
    let runner = StubRunner::new(StubSpeed::Fast, GenerateDefaults::default()).expect("an engine");
    for name in ["poet", "pirate"] {
        load(&runner, name, || ());
    }
    let (reads, begun) = channel();
    // Gone when the scope's body ends, however it does, so that nothing waits behind a failure.
    let (gate, closed) = channel::<()>();
    scope(|scope| {
        let gate = gate;
        let runner = &runner;
        scope.spawn(move || {
            load(runner, "slow", || {
                reads.send(()).expect("somebody waits for it");
                let _ = closed.recv();
            });
        });
        begun.recv().expect("it begins");
        for name in ["poet", "pirate", "poet"] {
            assert_eq!(says(runner, name), Ok(format!("[{name}@1] one two")));
        }
        assert!(matches!(says(runner, "slow"), Err(RunnerError::BadRequest(_))), "it is still being read");
        drop(gate);
    });
    assert_eq!(says(&runner, "slow").as_deref(), Ok("[slow@1] one two"));
}

/// As a model's, which looks for what costs least first.
#[test]
fn a_prompt_that_is_too_long_is_refused_before_its_form_is_looked_at() {
    let mut spec = asked(&"word ".repeat(9000), None);
    spec.constraint = Some(Constraint::Regex("[".into()));
    let refused = stub(None).generate_several(&[spec], 1, &|| true).map(drop);
    assert!(matches!(refused, Err(RunnerError::PromptTooLong { .. })), "{refused:?}");
}
