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
    // The names say nothing of the order.
    let recipe = |numbers: &[usize]| {
        let files = numbers.iter().zip(0..).map(|(n, at)| (format!("{at}.gguf"), sent(&store, &parts[n - 1])));
        Recipe { files: files.collect(), ..Recipe::default() }
    };
    for (numbers, given) in [
        (&[1, 3][..], "given: 1 of 3, 3 of 3"),
        (&[1, 2, 2], "given: 1 of 3, 2 of 3, 2 of 3"),
        (&[1, 2, 3, 3], "given: 1 of 3, 2 of 3, 3 of 3, 3 of 3"),
        (&[2], "given: 2 of 3"),
    ] {
        let error = made(&store, "big", &recipe(numbers)).expect_err("not whole").to_string();
        assert!(error.ends_with(given), "{error}");
    }
    made(&store, "big", &recipe(&[3, 1, 2])).expect("made");
    let big = found(&store, "big:latest");
    assert_eq!(big.shards.as_ref().map(|shards| shards.present), Some(3));
    let parameters = crate::gguf::Header::parse(&tiny_llama().to_bytes()).expect("a header").parameter_count();
    assert_eq!(big.facts.parameters, parameters);
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

/// Under its own digest, so that it came as it was sent. A look at the disk would pass it over.
#[test]
fn a_file_that_is_cut_short_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    let cut = |writer: &Writer| {
        let bytes = writer.to_bytes();
        store.add_blob(LayerKind::Model, &bytes[..bytes.len() - 64]).expect("written").digest
    };
    let parts = tiny_llama().split(2);
    let mut projector = Writer::new();
    projector.string("general.architecture", "clip").random("mm.0.weight", &[32, 32], 0.0);
    for (cut, whole) in
        [(cut(&tiny_llama()), None), (cut(&parts[1]), Some(&parts[0])), (cut(&projector), Some(&tiny_llama()))]
    {
        let whole = whole.map(|writer| ("whole.gguf".to_owned(), sent(&store, writer)));
        let files = whole.into_iter().chain([("cut.gguf".to_owned(), cut)]).collect();
        let error = made(&store, "m", &Recipe { files, ..Recipe::default() }).expect_err("cut").to_string();
        assert!(error.contains("cut.gguf is not a GGUF file that can be used: truncated"), "{error}");
    }
}
