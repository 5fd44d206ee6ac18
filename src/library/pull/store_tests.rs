//! What the store keeps, shares and lets go.

use std::path::Path;
use std::time::Duration;

use super::{Store, StoreError};
use crate::library::LayerKind;
use crate::library::pull::manifest::{Manifest, config_layer};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::new(dir.path().join("models"));
    (dir, store)
}

/// A model of `shards` files and a licence that all share.
fn add(store: &Store, name: &str, shards: &[&str]) -> Manifest {
    let mut layers: Vec<_> =
        shards.iter().map(|text| store.add_blob(LayerKind::Model, text.as_bytes()).expect("written")).collect();
    layers.push(store.add_blob(LayerKind::License, b"free").expect("written"));
    let config = config_layer(b"{}");
    store.add_bytes(&config.digest, b"{}").expect("written");
    let manifest = Manifest::new(config, layers, Some("a test"));
    store.write(&name.parse().expect("a name"), &manifest).expect("written");
    manifest
}

fn files(dir: &Path) -> usize {
    walkdir::WalkDir::new(dir).into_iter().flatten().filter(|entry| entry.file_type().is_file()).count()
}

#[test]
fn a_copy_shares_its_blobs_and_outlives_the_first() {
    let (_dir, store) = store();
    let manifest = add(&store, "first", &["weights"]);
    store.copy("FIRST:latest", &"me/second:1".parse().expect("a name")).expect("copied");
    assert_eq!(files(&store.root().join("blobs")), 3);
    let gone = store.remove("first").expect("removed");
    assert_eq!((gone.name.as_str(), gone.freed_bytes), ("first:latest", 0));
    let (_, second) = store.find("me/second:1").expect("still there");
    assert_eq!(second, manifest);
    assert!(store.model_file(&second).expect("a file").is_file());
    assert_eq!(store.remove("me/second:1").expect("removed").freed_bytes, manifest.size());
    assert_eq!((store.list().len(), files(&store.root().join("blobs"))), (0, 0));
    assert!(!store.root().join("manifests/registry.ollama.ai").exists(), "no empty directory stays");
}

#[test]
fn shards_lie_side_by_side_under_their_names() {
    let (_dir, store) = store();
    let manifest = add(&store, "big", &["one", "two", "three"]);
    let first = store.model_file(&manifest).expect("a file");
    assert!(first.ends_with("model-00001-of-00003.gguf"));
    for (number, text) in [(1, "one"), (2, "two"), (3, "three")] {
        let part = first.with_file_name(format!("model-{number:05}-of-00003.gguf"));
        assert_eq!(std::fs::read_to_string(part).expect("there"), text);
    }
    add(&store, "other", &["two"]);
    store.remove("big").expect("removed");
    assert!(!first.parent().expect("a directory").exists());
    assert_eq!(std::fs::read_to_string(store.blob(&manifest.layers[1].digest)).expect("shared"), "two");
    assert!(!store.has(&manifest.layers[0].digest));
}

#[test]
fn models_that_share_their_first_shard_have_their_own_others() {
    let (_dir, store) = store();
    let models = [add(&store, "a", &["one", "two"]), add(&store, "b", &["one", "new"])];
    let second = |manifest: &Manifest| {
        let first = store.model_file(manifest).expect("a file");
        std::fs::read_to_string(first.with_file_name("model-00002-of-00002.gguf")).expect("there")
    };
    assert_eq!((second(&models[0]), second(&models[1])), ("two".into(), "new".into()));
    store.remove("a").expect("removed");
    assert_eq!(second(&models[1]), "new");
}

#[test]
fn a_model_whose_blob_is_missing_is_not_written() {
    let (_dir, store) = store();
    let manifest = add(&store, "a", &["weights"]);
    std::fs::remove_file(store.blob(&manifest.layers[0].digest)).expect("removed");
    let error = store.write(&"b".parse().expect("a name"), &manifest).expect_err("not whole");
    assert!(matches!(error, StoreError::NoSuchBlob(digest) if digest == manifest.layers[0].digest));
    assert_eq!(store.list().len(), 1);
}

#[test]
fn names_differ_by_more_than_case() {
    let (_dir, store) = store();
    add(&store, "Mine", &["one"]);
    let second = add(&store, "mine", &["two"]);
    assert_eq!(store.list().len(), 1);
    assert_eq!(store.find("MINE").expect("there").1, second);
    assert_eq!(files(&store.root().join("blobs")), 3, "what it was before is gone");
    assert!(store.get(&"mine:latest".parse().expect("a name")).is_some());
}

#[test]
fn blobs_that_nobody_names_go_and_new_ones_may_still_be_named() {
    let (_dir, store) = store();
    let manifest = add(&store, "a", &["weights"]);
    let orphan = store.add_blob(LayerKind::Model, b"left over").expect("written");
    assert_eq!(store.remove_orphans(Duration::from_secs(3600)).expect("read"), 0);
    assert_eq!(store.remove_orphans(Duration::ZERO).expect("removed"), orphan.size);
    assert!(manifest.blobs().all(|layer| store.has(&layer.digest)) && !store.has(&orphan.digest));
    std::fs::write(store.root().join("manifests/registry.ollama.ai/library/a/damaged"), "{").expect("written");
    assert!(store.remove_orphans(Duration::ZERO).is_err(), "it may name any of them");
}

#[test]
fn nothing_is_removed_that_a_manifest_may_name_which_cannot_be_read() {
    let (_dir, store) = store();
    let manifest = add(&store, "a", &["weights"]);
    store.copy("a", &"b".parse().expect("a name")).expect("copied");
    std::fs::write(store.root().join("manifests/registry.ollama.ai/library/b/latest"), "{").expect("written");
    assert_eq!(store.remove("a").expect("its name goes").freed_bytes, 0);
    assert!(manifest.blobs().all(|layer| store.has(&layer.digest)));
    add(&store, "c", &["one"]);
    let old = add(&store, "d", &["two"]);
    add(&store, "d", &["three"]);
    assert!(old.blobs().all(|layer| store.has(&layer.digest)), "what d was before");
}

#[test]
fn names_that_can_mean_two_are_not_guessed_at() {
    let (_dir, store) = store();
    add(&store, "me/a:1", &["one"]);
    add(&store, "hf.co/me/a:1", &["two"]);
    let error = store.remove("me/a:1").expect_err("which one?").to_string();
    assert!(error.contains("hf.co/me/a:1 or registry.ollama.ai/me/a:1"), "{error}");
    store.remove("hf.co/me/a:1").expect("this one");
    assert_eq!(store.find("me/a:1").expect("the other").0.host, "registry.ollama.ai");
    assert!(matches!(store.remove("nothing"), Err(StoreError::NoSuchModel { .. })));
}
