//! What becomes of recipes, as a look at the disk finds it.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::{LayerKind, Made, Recipe, make};
use crate::gguf::writer::{Writer, tiny_llama, tiny_lora};
use crate::library::pull::{Digest, PullError, Store};
use crate::library::{Found, examine, own_models};

fn store(dir: &Path) -> Store {
    Store::new(dir.join("models"))
}

fn sent(store: &Store, writer: &Writer) -> Digest {
    store.add_blob(LayerKind::Model, &writer.to_bytes()).expect("written").digest
}

fn made(store: &Store, name: &str, recipe: &Recipe) -> Result<Vec<Made>, PullError> {
    let mut told = Vec::new();
    make(store, &name.parse().expect("a name"), recipe, &mut |step| told.push(step)).map(|()| told)
}

fn found(store: &Store, name: &str) -> Arc<Found> {
    let all = own_models(store.root());
    let names: Vec<_> = all.iter().map(|model| model.name.clone()).collect();
    Arc::new(all.into_iter().find(|model| model.name == name).unwrap_or_else(|| panic!("{name} in {names:?}")))
}

#[test]
fn a_model_is_made_of_files_and_then_of_that_model() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    let (weights, lora) = (sent(&store, &tiny_llama()), sent(&store, &tiny_lora()));
    let first = Recipe {
        files: [("m.gguf".to_owned(), weights.clone())].into(),
        system: Some("Be brief.".into()),
        parameters: json!({ "temperature": 0.5, "num_ctx": 64 }).as_object().expect("a map").clone(),
        licenses: vec!["free".into()],
        ..Recipe::default()
    };
    let told = made(&store, "first", &first).expect("made");
    assert_eq!((told.first(), told.last()), (Some(&Made::Using(weights)), Some(&Made::Writing)));
    let base = found(&store, "first:latest");
    let second = Recipe {
        base: Some(Arc::clone(&base)),
        adapters: [("l.gguf".to_owned(), lora.clone())].into(),
        system: Some("Rhyme.".into()),
        parameters: json!({ "temperature": 1 }).as_object().expect("a map").clone(),
        messages: vec![json!({ "role": "user", "content": "Hi" })],
        ..Recipe::default()
    };
    made(&store, "me/second:1", &second).expect("made");
    let model = found(&store, "me/second:1");
    let layers = model.ollama.as_ref().expect("layers");
    assert_eq!((&model.path, layers.system.as_deref()), (&base.path, Some("Rhyme.")));
    assert_eq!(json!(layers.parameters), json!({ "temperature": 1, "num_ctx": 64 }));
    assert_eq!((layers.messages.len(), layers.licenses.as_slice()), (1, &["free".to_owned()][..]));
    assert_eq!(layers.adapters, [store.blob(&lora)]);
    assert_eq!(base.ollama.as_ref().expect("layers").system.as_deref(), Some("Be brief."), "it stays as it was");
}

#[test]
fn a_file_that_lies_elsewhere_becomes_ours_and_outlives_its_first_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    let file = dir.path().join("mine.gguf");
    tiny_llama().write(&file).expect("written");
    let base = Arc::new(examine(&file).expect("a model"));
    let told = made(&store, "mine", &Recipe { base: Some(base), ..Recipe::default() }).expect("made");
    assert!(matches!(told[0], Made::Reading(_)), "{told:?}");
    std::fs::remove_file(&file).expect("removed");
    let model = found(&store, "mine:latest");
    assert_eq!(std::fs::read(&model.path).expect("there"), tiny_llama().to_bytes());
}

#[test]
fn shards_that_were_sent_are_one_model() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    let parts = tiny_llama().split(3);
    let named = |n: usize| (format!("m-{n:05}-of-00003.gguf"), sent(&store, &parts[n - 1]));
    let recipe = |numbers: &[usize]| Recipe { files: numbers.iter().map(|n| named(*n)).collect(), ..Recipe::default() };
    let error = made(&store, "big", &recipe(&[1, 3])).expect_err("one is missing").to_string();
    assert!(error.contains("3 file(s), and 2 were given"), "{error}");
    made(&store, "big", &recipe(&[3, 1, 2])).expect("made");
    assert_eq!(found(&store, "big:latest").shards.as_ref().map(|shards| shards.present), Some(3));
}

#[test]
fn what_does_not_fit_is_told_and_leaves_no_model() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    let (weights, lora) = (sent(&store, &tiny_llama()), sent(&store, &tiny_lora()));
    let text = store.add_blob(LayerKind::Model, b"words").expect("written").digest;
    let file = |digest: &Digest| [("x.gguf".to_owned(), digest.clone())].into();
    let absent = Digest::of(b"never sent");
    for (recipe, word) in [
        (Recipe::default(), "no weights"),
        (Recipe { files: file(&absent), ..Recipe::default() }, "is not in the store"),
        (Recipe { files: file(&lora), ..Recipe::default() }, "x.gguf is a LoRA adapter; give it in `adapters`"),
        (Recipe { files: file(&text), ..Recipe::default() }, "x.gguf is not a GGUF file"),
        (Recipe { files: file(&weights), adapters: file(&weights), ..Recipe::default() }, "not a LoRA adapter"),
        (Recipe { files: file(&weights), system: Some("x".repeat(2 << 20)), ..Recipe::default() }, "too long"),
    ] {
        let error = made(&store, "m", &recipe).expect_err(word).to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(store.list().is_empty());
}
