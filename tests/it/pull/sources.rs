//! What each kind of source is fetched as.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;
use shimmy::library::LayerKind;
use shimmy::library::pull::{Digest, Event, Store, pull};

use super::server::{COMMIT, Fake};
use super::{fetch, files, model, settings};

#[test]
fn a_quantisation_of_the_hub_comes_with_its_projector() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    let (q4, q8, projector) = (model(1, 1), model(1, 2), model(1, 3));
    fake.repository(
        "Org/M-GGUF",
        &[("README.md", b"words"), ("M-Q8_0.gguf", &q8), ("M-Q4_K_M.gguf", &q4), ("mmproj-M-f16.gguf", &projector)],
    );
    let (pulled, events) = fetch("hf:Org/M-GGUF", &settings(dir.path(), &fake)).unwrap();
    assert_eq!(pulled.name.to_string(), "org/m-gguf:q4_k_m");
    assert_eq!(std::fs::read(&pulled.path).unwrap(), q4);
    let (_, manifest) = Store::new(dir.path().into()).find("hf.co/Org/M-GGUF:Q4_K_M").unwrap();
    assert_eq!(manifest.source(), Some(format!("hf:Org/M-GGUF@{COMMIT}:Q4_K_M").as_str()));
    assert_eq!(manifest.of_kind(LayerKind::Projector).next().unwrap().digest, Digest::of(&projector));
    assert_eq!(events.first(), Some(&Event::Manifest));
    assert_eq!(events.last(), Some(&Event::Writing));
    let whole = |event: &&Event| matches!(event, Event::Fetching { total, completed, .. } if total == completed);
    assert_eq!(events.iter().filter(whole).count(), 2);
    assert!(files(dir.path(), "partial").is_empty(), "nothing is left over");

    // Another quantisation brings what is missing, and nothing twice.
    let before = fake.asked().len();
    fetch("hf.co/Org/M-GGUF:q8_0", &settings(dir.path(), &fake)).unwrap();
    let paths: Vec<String> = fake.asked()[before..].iter().map(|asked| asked.path.clone()).collect();
    assert!(!paths.iter().any(|path| path.contains("mmproj")), "{paths:?}");
    let error = fetch("hf:Org/M-GGUF:Q5_K_M", &settings(dir.path(), &fake)).unwrap_err().to_string();
    assert!(error.contains("Q4_K_M, Q8_0"), "{error}");
}

#[test]
fn shards_come_all_and_lie_side_by_side() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    let parts = [model(1, 1), model(1, 2)];
    fake.repository(
        "Org/Big",
        &[("Q4_0/Big-00001-of-00002.gguf", &parts[0]), ("Q4_0/Big-00002-of-00002.gguf", &parts[1])],
    );
    let (pulled, _) = fetch("hf:Org/Big", &settings(dir.path(), &fake)).unwrap();
    assert_eq!(std::fs::read(&pulled.path).unwrap(), parts[0]);
    let second = pulled.path.with_file_name("model-00002-of-00002.gguf");
    assert_eq!(std::fs::read(second).unwrap(), parts[1]);
    assert!(pulled.path.ends_with("model-00001-of-00002.gguf"));
}

/// However long it takes to fetch the others.
#[test]
fn files_of_a_pull_that_runs_are_not_left_over() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    let parts = [model(1, 1), model(1, 2)];
    fake.repository("Org/Big", &[("Big-00001-of-00002.gguf", &parts[0]), ("Big-00002-of-00002.gguf", &parts[1])]);
    let (store, first) = (Store::new(dir.path().into()), Digest::of(&parts[0]));
    let kept = Mutex::new(None);
    let report = |event: Event| {
        if matches!(&event, Event::Fetching { what, .. } if what == "Big-00002-of-00002.gguf") {
            let freed = store.remove_orphans(Duration::ZERO).unwrap();
            *kept.lock().unwrap() = Some((freed, store.has(&first)));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(pull(&"hf:Org/Big".parse().unwrap(), &settings(dir.path(), &fake), &report)).unwrap();
    assert_eq!(*kept.lock().unwrap(), Some((0, true)));
    let orphan = store.add_blob(LayerKind::Model, b"left over").unwrap();
    assert_eq!(store.remove_orphans(Duration::ZERO).unwrap(), orphan.size, "it has ended");
}

#[test]
fn the_token_goes_to_the_hub_and_not_to_where_it_redirects() {
    let (hub, cdn, dir) = (Fake::start(), Fake::start(), tempfile::tempdir().unwrap());
    let bytes = model(1, 1);
    for fake in [&hub, &cdn] {
        fake.repository("Org/M", &[("M-Q4_0.gguf", &bytes)]);
    }
    hub.send_downloads_to(&cdn);
    let mut settings = settings(dir.path(), &hub);
    settings.token = Some("hf_secret".into());
    fetch("hf:Org/M", &settings).unwrap();
    assert!(hub.asked().iter().all(|asked| asked.headers["authorization"] == "Bearer hf_secret"));
    assert!(cdn.asked().len() >= 8, "a part each");
    assert!(cdn.asked().iter().all(|asked| !asked.headers.contains_key("authorization")));
    let asked_to_redirect = hub.asked().iter().filter(|asked| asked.path.contains("/resolve/")).count();
    assert!(asked_to_redirect <= 3, "parts go straight to where the file is; {asked_to_redirect} did not");
}

#[test]
fn a_gated_model_says_what_to_do() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    fake.page(
        "/api/models/Org/Gated/revision/main",
        401,
        json!({ "error": "Access to model Org/Gated is restricted." }),
    );
    let mut settings = settings(dir.path(), &fake);
    let error = fetch("hf:Org/Gated", &settings).unwrap_err().to_string();
    for word in ["Org/Gated", "restricted", "HF_TOKEN", "licence"] {
        assert!(error.contains(word), "{error}");
    }
    settings.token = Some("hf_secret".into());
    let error = fetch("hf:Org/Gated", &settings).unwrap_err().to_string();
    assert!(error.contains("may read it") && !error.contains("hf_secret"), "{error}");
    assert!(fetch("hf:Org/None", &settings).unwrap_err().to_string().contains("not found"));
}

#[test]
fn the_listing_has_pages() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = model(1, 1);
    fake.repository("Org/M", &[("M-Q4_0.gguf", &bytes)]);
    let tree = format!("/api/models/Org/M/tree/{COMMIT}");
    fake.link(&tree, "/next-page");
    let entry = json!([{ "type": "file", "path": "M-Q4_K_M.gguf", "size": bytes.len(),
                         "lfs": { "oid": Digest::of(&bytes).hex(), "size": bytes.len() } }]);
    fake.page("/next-page", 200, entry);
    fake.file(&format!("/Org/M/resolve/{COMMIT}/M-Q4_K_M.gguf"), &bytes);
    let (pulled, _) = fetch("hf:Org/M", &settings(dir.path(), &fake)).unwrap();
    assert_eq!(pulled.name.tag, "Q4_K_M", "it is on the second page");
    // The token would go along.
    let other = Fake::start();
    fake.link(&tree, &format!("{}/next-page", other.address));
    fetch("hf:Org/M", &settings(dir.path(), &fake)).unwrap();
    assert!(other.asked().is_empty());
}

#[test]
fn all_layers_of_ollamas_models_are_kept_as_they_came() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = model(1, 1);
    let manifest = fake.ollama(
        "library/tiny",
        "latest",
        &[
            ("model", &bytes),
            ("template", b"{{ .Prompt }}"),
            ("system", b"Be brief."),
            ("params", br#"{"stop":["x"]}"#),
            ("license", b"free"),
        ],
    );
    let (pulled, events) = fetch("tiny", &settings(dir.path(), &fake)).unwrap();
    assert_eq!(pulled.name.to_string(), "tiny:latest");
    let kept = std::fs::read(dir.path().join("manifests/registry.ollama.ai/library/tiny/latest")).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&kept).unwrap(), manifest);
    assert_eq!(files(dir.path(), "blobs").len(), 6);
    let digest = Digest::of(&bytes);
    assert!(events.iter().any(|event| matches!(event, Event::Fetching { what, .. } if what == digest.short())));
    // A second pull asks for the manifest only.
    let before = fake.asked().len();
    fetch("ollama:tiny", &settings(dir.path(), &fake)).unwrap();
    assert_eq!(fake.asked().len(), before + 1);
    let error = fetch("ollama:nothing:8b", &settings(dir.path(), &fake)).unwrap_err().to_string();
    assert!(error.contains("nothing:8b") && error.contains("there is none"), "{error}");
}

#[test]
fn a_file_at_an_address_is_checked_against_the_digest_behind_it() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = model(1, 1);
    fake.file("/x/Tiny.Q4_1.gguf", &bytes);
    let url = format!("{}/x/Tiny.Q4_1.gguf", fake.address);
    let (pulled, _) = fetch(&url, &settings(dir.path(), &fake)).unwrap();
    assert_eq!(pulled.name.to_string(), "tiny:q4_1");
    assert_eq!(std::fs::read(&pulled.path).unwrap(), bytes);
    let right = format!("{url}#sha256={}", Digest::of(&bytes).hex());
    fetch(&right, &settings(dir.path(), &fake)).unwrap();
    let wrong = format!("{url}#sha256={}", Digest::of(b"other").hex());
    let error = fetch(&wrong, &settings(dir.path(), &fake)).unwrap_err().to_string();
    assert!(error.contains(&Digest::of(&bytes).to_string()), "{error}");
    assert_eq!(files(dir.path(), "blobs").len(), 2, "a model and its configuration");
}

#[test]
fn files_of_one_name_at_two_addresses_are_two_models() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    let store = Store::new(dir.path().into());
    let bytes = [model(1, 1), model(1, 2)];
    let urls = ["x", "y"].map(|folder| format!("/{folder}/tiny.gguf"));
    let fetched = |n: usize| {
        fake.file(&urls[n], &bytes[n]);
        let (pulled, _) =
            fetch(&format!("{}{}?signed=1", fake.address, urls[n]), &settings(dir.path(), &fake)).unwrap();
        assert_eq!(std::fs::read(pulled.path).unwrap(), bytes[n]);
        pulled.name
    };
    let (first, second) = (fetched(0), fetched(1));
    assert_eq!((first.to_string().as_str(), &second.to_string()[..12]), ("tiny:latest", "tiny:latest-"));
    assert_eq!((fetched(0), fetched(1), store.list().len()), (first.clone(), second.clone(), 2), "as before");
    // It keeps its name when the other is gone.
    store.remove(&first.full()).unwrap();
    assert_eq!((fetched(1), store.list().len()), (second, 1));
}
