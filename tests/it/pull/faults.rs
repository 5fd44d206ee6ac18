//! Servers and networks as they are on a bad day.

use std::time::{Duration, Instant};

use serde_json::json;
use shimmy::library::pull::{Digest, Event, PullError, Settings};

use super::server::{Fake, Fault};
use super::{fetch, files, model, settings};

const PATH: &str = "/x/tiny.gguf";

/// A file at an address, with its digest and without.
fn served() -> (Fake, tempfile::TempDir, Vec<u8>, [String; 2]) {
    let (fake, dir, bytes) = (Fake::start(), tempfile::tempdir().unwrap(), model(1, 1));
    fake.file(PATH, &bytes);
    let url = format!("{}{PATH}", fake.address);
    let with_digest = format!("{url}#sha256={}", Digest::of(&bytes).hex());
    (fake, dir, bytes, [url, with_digest])
}

fn range(asked: &super::server::Asked) -> Option<String> {
    Some(asked.headers.get("range")?.to_str().unwrap().to_owned())
}

#[test]
fn what_breaks_off_goes_on_from_there() {
    for fault in [
        Fault::Cut(70_000),
        Fault::Stall(70_000),
        Fault::Cut(0),
        Fault::Status(503, vec![]),
        Fault::Status(500, vec![]),
        Fault::Status(408, vec![]),
    ] {
        for kind in 0..2 {
            let (fake, dir, bytes, urls) = served();
            fake.fault(fault.clone());
            let impatient = Settings { stall: Duration::from_secs(1), retries: 9, ..settings(dir.path(), &fake) };
            let (pulled, events) = fetch(&urls[kind], &impatient).unwrap();
            assert_eq!(std::fs::read(pulled.path).unwrap(), bytes, "{fault:?}");
            assert!(events.iter().any(|event| matches!(event, Event::Retrying { .. })), "{fault:?}");
        }
    }
}

#[test]
fn a_server_that_is_busy_is_left_alone_for_as_long_as_it_says() {
    let (fake, dir, _, urls) = served();
    fake.fault(Fault::Status(429, vec![("retry-after", "1".into())]));
    let start = Instant::now();
    let (_, events) = fetch(&urls[0], &settings(dir.path(), &fake)).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    let second = Duration::from_secs(1);
    assert!(
        events.iter().any(|event| matches!(event, Event::Retrying { after, .. } if *after == second)),
        "{events:?}"
    );
    // Nobody waits for an hour.
    fake.always(Some(Fault::Status(429, vec![("retry-after", "3600".into())])));
    std::fs::remove_dir_all(dir.path().join("blobs")).unwrap();
    assert!(fetch(&urls[0], &settings(dir.path(), &fake)).unwrap_err().to_string().contains("429"));
}

#[test]
fn a_server_that_stays_away_is_given_up_and_what_came_stays() {
    let (fake, dir, bytes, urls) = served();
    fake.fault(Fault::Slow(Duration::ZERO));
    fake.always(Some(Fault::Status(500, vec![])));
    let one_by_one = Settings { connections: 1, ..settings(dir.path(), &fake) };
    let error = fetch(&urls[1], &one_by_one).unwrap_err();
    assert!(matches!(&error, PullError::Server { .. }) && error.to_string().contains("goes on"), "{error}");
    assert!(files(dir.path(), "manifests").is_empty() && files(dir.path(), "blobs").is_empty());
    fake.always(None);
    let before = fake.asked().len();
    let (pulled, _) = fetch(&urls[1], &one_by_one).unwrap();
    assert_eq!(std::fs::read(pulled.path).unwrap(), bytes);
    assert_eq!(range(&fake.asked()[before]).unwrap(), "bytes=131072-262143", "the first part was there");
}

#[test]
fn a_server_without_ranges_gives_all_of_it() {
    let (fake, dir, bytes, urls) = served();
    fake.always(Some(Fault::WholeFile));
    let (pulled, _) = fetch(&urls[0], &settings(dir.path(), &fake)).unwrap();
    assert_eq!(std::fs::read(pulled.path).unwrap(), bytes);
    assert_eq!(fake.asked().len(), 1);
}

#[test]
fn a_server_that_forgets_about_ranges_midway_does_no_harm() {
    let (fake, dir, bytes, urls) = served();
    fake.fault(Fault::Slow(Duration::ZERO));
    fake.always(Some(Fault::WholeFile));
    let (pulled, _) = fetch(&urls[1], &settings(dir.path(), &fake)).unwrap();
    assert_eq!(std::fs::read(pulled.path).unwrap(), bytes);
}

#[test]
fn a_file_without_a_word_on_which_it_is_comes_in_one_piece() {
    let (fake, dir, bytes, urls) = served();
    fake.without_validators();
    let (pulled, _) = fetch(&urls[0], &settings(dir.path(), &fake)).unwrap();
    assert_eq!(std::fs::read(pulled.path).unwrap(), bytes);
    assert!(range(fake.asked().last().unwrap()).is_none());
    // A digest will tell.
    let dir = tempfile::tempdir().unwrap();
    fetch(&urls[1], &settings(dir.path(), &fake)).unwrap();
    assert!(fake.asked().len() > 8);
}

#[test]
fn a_file_that_changes_is_fetched_from_its_beginning() {
    let other = model(1, 2);
    // While it is being fetched,
    let (fake, dir, _, urls) = served();
    fake.fault(Fault::Slow(Duration::ZERO));
    fake.fault(Fault::Replace(other.clone()));
    let (pulled, _) = fetch(&urls[0], &settings(dir.path(), &fake)).unwrap();
    assert_eq!(std::fs::read(pulled.path).unwrap(), other);
    // and between two pulls.
    let (fake, dir, _, urls) = served();
    fake.fault(Fault::Slow(Duration::ZERO));
    fake.always(Some(Fault::Status(500, vec![])));
    let one_by_one = Settings { connections: 1, ..settings(dir.path(), &fake) };
    fetch(&urls[0], &one_by_one).unwrap_err();
    fake.file(PATH, &other);
    fake.always(None);
    let (pulled, _) = fetch(&urls[0], &one_by_one).unwrap();
    assert_eq!(std::fs::read(pulled.path).unwrap(), other);
    let asked = fake.asked();
    let resumed = asked.iter().find(|asked| range(asked).is_some_and(|range| range.starts_with("bytes=131072-")));
    assert!(resumed.unwrap().headers.contains_key("if-range"), "the server is told which file we have");
}

#[test]
fn a_wrong_digest_is_thrown_away_and_the_next_pull_begins_anew() {
    let (fake, dir, bytes, urls) = served();
    fake.always(Some(Fault::Corrupt));
    let error = fetch(&urls[1], &settings(dir.path(), &fake)).unwrap_err();
    assert!(matches!(error, PullError::WrongDigest { .. }), "{error}");
    assert!(files(dir.path(), "blobs").is_empty() && files(dir.path(), "manifests").is_empty());
    fake.always(None);
    let (pulled, _) = fetch(&urls[1], &settings(dir.path(), &fake)).unwrap();
    assert_eq!(std::fs::read(pulled.path).unwrap(), bytes);
}

#[test]
fn what_is_no_model_never_becomes_one() {
    let (fake, dir, bytes, urls) = served();
    fake.file(PATH, b"<html>not found</html>");
    let error = fetch(&urls[0], &settings(dir.path(), &fake)).unwrap_err().to_string();
    assert!(error.contains("tiny.gguf is not a model: not a GGUF file") && !error.contains("partial"), "{error}");
    fake.file(PATH, &bytes[..2000]);
    let error = fetch(&urls[0], &settings(dir.path(), &fake)).unwrap_err().to_string();
    assert!(error.contains("truncated"), "{error}");
    assert!(files(dir.path(), "blobs").is_empty() && files(dir.path(), "manifests").is_empty());
}

#[test]
fn nothing_is_unpacked() {
    let (fake, dir, _, urls) = served();
    fake.always(Some(Fault::Packed));
    let error = fetch(&urls[0], &settings(dir.path(), &fake)).unwrap_err().to_string();
    assert!(error.contains("packed (gzip)"), "{error}");
    assert!(fake.asked().iter().all(|asked| !asked.headers.contains_key("accept-encoding")));
}

#[test]
fn names_that_a_server_sends_do_not_lead_out_of_the_store() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    let root = dir.path().join("deep/store");
    let bytes = model(1, 1);
    let mut manifest = fake.ollama("library/evil", "latest", &[("model", &bytes)]);
    for digest in ["sha256:../../../../evil", "../evil", "sha256:", &format!("sha512-{}", Digest::of(&bytes).hex())] {
        manifest["layers"][0]["digest"] = json!(digest);
        fake.page("/v2/library/evil/manifests/latest", 200, manifest.clone());
        let error = fetch("evil", &settings(&root, &fake)).unwrap_err().to_string();
        assert!(error.contains("not a SHA-256 digest"), "{error}");
    }
    fake.repository("Org/Evil", &[("../../../../evil-Q4_0.gguf", &bytes), ("a/../../x-Q8_0.gguf", &bytes)]);
    for wanted in ["Q4_0", "Q8_0"] {
        let _ = fetch(&format!("hf:Org/Evil:{wanted}"), &settings(&root, &fake));
    }
    let outside: Vec<String> =
        files(dir.path(), "").into_iter().filter(|file| !file.starts_with("deep/store/")).collect();
    assert!(outside.is_empty(), "{outside:?}");
}

#[test]
fn sizes_that_do_not_fit_are_refused_before_anything_is_fetched() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = model(1, 1);
    let mut manifest = fake.ollama("library/huge", "latest", &[("model", &bytes)]);
    manifest["layers"][0]["size"] = json!(1u64 << 60);
    fake.page("/v2/library/huge/manifests/latest", 200, manifest.clone());
    let before = fake.asked().len();
    let error = fetch("huge", &settings(dir.path(), &fake)).unwrap_err();
    assert!(matches!(error, PullError::NoSpace { .. }), "{error}");
    assert_eq!(fake.asked().len(), before + 1, "only the manifest");
    manifest["layers"][0]["size"] = json!(bytes.len() + 1);
    fake.page("/v2/library/huge/manifests/latest", 200, manifest);
    assert!(fetch("huge", &settings(dir.path(), &fake)).unwrap_err().to_string().contains("announced"));
    // A page of the API that does not end.
    fake.page("/api/models/Org/M/revision/main", 200, json!({ "sha": "x".repeat(9 << 20) }));
    assert!(fetch("hf:Org/M", &settings(dir.path(), &fake)).unwrap_err().to_string().contains("longer than"));
}

/// A device on which there is never room takes the file's place.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_to_be_full() {
    let (fake, dir, bytes, urls) = served();
    std::fs::create_dir_all(dir.path().join("partial")).unwrap();
    let partial = dir.path().join("partial").join(Digest::of(&bytes).file_name());
    std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
    let error = fetch(&urls[1], &settings(dir.path(), &fake)).unwrap_err();
    assert!(matches!(error, PullError::NoSpace { .. }), "{error}");
    std::fs::remove_file(&partial).unwrap();
    let (pulled, _) = fetch(&urls[1], &settings(dir.path(), &fake)).unwrap();
    assert_eq!(std::fs::read(pulled.path).unwrap(), bytes);
}

#[test]
fn what_an_attempt_without_a_note_left_does_not_stay_at_the_end() {
    let (fake, dir, bytes, urls) = served();
    std::fs::create_dir_all(dir.path().join("partial")).unwrap();
    let partial = dir.path().join("partial").join(format!("url-{}", Digest::of(urls[0].as_bytes()).hex()));
    std::fs::write(&partial, vec![7; bytes.len() + 1000]).unwrap();
    let (pulled, _) = fetch(&urls[0], &settings(dir.path(), &fake)).unwrap();
    assert!(std::fs::read(pulled.path).unwrap() == bytes, "the same bytes");
    assert!(!partial.exists());
}

#[test]
fn two_who_want_the_same_share_one_download() {
    let (fake, dir, bytes, urls) = served();
    fake.always(Some(Fault::Slow(Duration::from_millis(5))));
    let (url, settings) = (&urls[1], &settings(dir.path(), &fake));
    let fetched = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(move || fetch(url, settings).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for (pulled, _) in &fetched {
        assert_eq!(std::fs::read(&pulled.path).unwrap(), bytes);
    }
    assert_eq!(fake.asked().len(), bytes.len().div_ceil(128 << 10), "each part once");
    let waited = |events: &Vec<Event>| events.iter().any(|event| matches!(event, Event::Waiting { .. }));
    assert_eq!(fetched.iter().filter(|(_, events)| waited(events)).count(), 2);
}
