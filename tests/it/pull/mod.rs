//! Fetching models, from a server of our own that speaks the hub's and Ollama's protocols.

#[cfg(feature = "llama")]
mod command;
mod create;
mod faults;
mod kill;
mod own;
mod serve;
mod server;
mod sources;
#[cfg(target_os = "linux")]
mod ways;

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use shimmy::gguf::writer::tiny_llama;
use shimmy::library::pull::{Event, PullError, Pulled, Settings, Source, pull};

use server::Fake;

/// A model of about `megabytes` with weights that no two seeds share.
fn model(megabytes: u64, seed: u32) -> Vec<u8> {
    let mut writer = tiny_llama();
    writer.u32("general.seed", seed).random("ballast.weight", &[1 << 10, 256 * megabytes], 0.0);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    writer.write(&path).unwrap();
    std::fs::read(path).unwrap()
}

/// Quick to try again, and with parts of a size that a small file has several of.
fn settings(root: &Path, fake: &Fake) -> Settings {
    Settings {
        root: root.to_owned(),
        hub: fake.address.clone(),
        registry: fake.address.clone(),
        token: None,
        connections: 3,
        piece: 128 << 10,
        retries: 4,
        backoff: Duration::from_millis(5),
        stall: Duration::from_secs(20),
    }
}

fn fetch(source: &str, settings: &Settings) -> Result<(Pulled, Vec<Event>), PullError> {
    let source: Source = source.parse()?;
    let events = Mutex::new(Vec::new());
    let report = |event| events.lock().unwrap().push(event);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pulled = runtime.block_on(pull(&source, settings, &report))?;
    Ok((pulled, events.into_inner().unwrap()))
}

/// Files of the store, without its lock.
fn files(root: &Path, below: &str) -> Vec<String> {
    let walk = walkdir::WalkDir::new(root.join(below)).sort_by_file_name();
    let files = walk.into_iter().flatten().filter(|entry| entry.file_type().is_file());
    files.map(|entry| entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned()).collect()
}
