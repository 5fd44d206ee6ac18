//! Names of adapters, without models that could load them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{AdapterChange, AdapterError, AdapterSpec};
use crate::registry::testing::registry_of;
use crate::registry::{Registry, RegistryError};
use crate::runner::{GenerateSpec, Input, LoraUse};

fn registry() -> Registry {
    registry_of(&["stub", "stub-fast"])
}

fn known(path: &str) -> AdapterSpec {
    AdapterSpec { path: path.into(), scale: 0.5, default: false }
}

#[test]
fn a_name_is_a_models_or_a_models_with_adapters() {
    let registry = registry();
    registry.add_alias("c4+r", "stub");
    let split = |name: &'static str| registry.split_name(name).expect("short enough");
    let names = |list: &[&str]| Some(list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(split("stub"), ("stub", None));
    assert_eq!(split("c4+r"), ("c4+r", None));
    assert_eq!(split("c4+r+Poet:latest"), ("c4+r", names(&["poet"])));
    assert_eq!(split("stub+a+b"), ("stub", names(&["a", "b"])));
    assert_eq!(split("nothing+a"), ("nothing+a", None));
}

#[test]
fn the_disk_is_asked_once_for_a_name_and_not_at_all_for_a_long_one() {
    let registry = registry();
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    registry.on_unknown(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    for (name, base) in
        [("nothing".to_owned() + &"+a".repeat(64), None), ("stub".to_owned() + &"+a".repeat(64), Some("stub"))]
    {
        looks.store(0, Ordering::Relaxed);
        let (found, adapters) = registry.split_name(&name).expect("short enough");
        assert_eq!((found, adapters.map(|names| names.len())), (base.unwrap_or(&name), base.map(|_| 64)));
        assert_eq!(looks.load(Ordering::Relaxed), 1);
    }
    looks.store(0, Ordering::Relaxed);
    for (name, bytes, pluses) in [("stub".to_owned() + &"+a".repeat(65), 134, 65), ("x".repeat(4097), 4097, 0)] {
        assert_eq!(registry.split_name(&name), Err(RegistryError::LongName { bytes, pluses }));
    }
    assert_eq!(looks.load(Ordering::Relaxed), 0);
}

#[test]
fn what_a_request_names_is_found_or_listed() {
    let registry = registry();
    registry.adapters.insert("stub", "poet".into(), known("/nowhere.gguf"));
    let lease = registry.acquire("stub").expect("the stub");
    let settle = |named: Option<&[String]>, lora: Option<Vec<LoraUse>>| {
        let input = Input::Raw("a".into());
        let mut spec = GenerateSpec { lora, ..GenerateSpec::new("stub+x", input) };
        registry.settle_adapters(&lease, named, &mut spec).map(|()| spec.lora).map_err(|e| e.to_string())
    };
    let used = |name: &str| vec![LoraUse { name: name.into(), scale: None }];
    assert_eq!(settle(None, None), Ok(Some(Vec::new())), "none is used by default");
    assert_eq!(
        settle(None, Some(used("x"))).expect_err("unknown"),
        "there is no adapter \"x\" for stub (there are: poet)"
    );
    let by_name = settle(Some(&["x".into()]), None).expect_err("unknown");
    assert_eq!(by_name, "model not found: \"stub+x\"; did you mean \"stub\"? (known: stub, stub+poet)");
    assert!(settle(Some(&["poet".into()]), Some(used("poet"))).expect_err("twice").contains("in one of the two"));
    assert!(settle(None, Some(used("POET"))).expect_err("no file").starts_with("stub+poet could not be loaded: "));
}

#[test]
fn what_cannot_be_changed_is_said() {
    let registry = registry();
    for model in ["stub", "stub-fast"] {
        registry.adapters.insert(model, "poet".into(), known("/nowhere.gguf"));
    }
    let change = |change| registry.load_adapter("stub", change).map_err(|error| error.to_string());
    let named = |name: &str| AdapterChange { name: Some(name.into()), ..AdapterChange::default() };
    assert!(change(AdapterChange::default()).expect_err("nothing is named").contains("`path`"));
    assert!(change(named("a+b")).expect_err("a separator").contains("is no name for an adapter"));
    assert!(change(named("x")).expect_err("unknown").contains("(there are: poet)"));
    let infinite = AdapterChange { scale: Some(f32::INFINITY), ..named("poet") };
    assert_eq!(change(infinite).expect_err("no scale"), "scale is inf; it must be a finite number");
    let scaled = change(AdapterChange { scale: Some(2.0), ..named("Poet") }).expect("only the scale changes");
    assert_eq!((scaled.scale, scaled.default, scaled.loaded), (2.0, false, false));

    let error = registry.unload_adapter("poet", None).expect_err("two have it");
    assert!(matches!(&error, AdapterError::Refused(why) if why.contains("stub, stub-fast")), "{error}");
    assert_eq!(registry.unload_adapter("poet", Some("stub-fast")).as_deref(), Ok("stub-fast"));
    assert_eq!(registry.unload_adapter("Poet", None).as_deref(), Ok("stub"));
    let gone = registry.unload_adapter("poet", None).expect_err("gone");
    assert_eq!(gone.to_string(), "there is no adapter \"poet\" (there are none)");
}

#[test]
fn what_was_found_is_named_by_its_file_and_loaded_when_it_is() {
    let registry = registry();
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        crate::gguf::writer::tiny_lora().write(&path).expect("written");
        path
    };
    let (poet, one, other) = (write("My Poet.gguf"), write("one/twin.gguf"), write("other/twin.gguf"));
    let found = vec![poet.clone(), one.clone(), other.clone(), poet.clone()];
    registry.set_found_adapters(&BTreeMap::from([("stub".to_owned(), found)]));
    let lease = registry.acquire("stub").expect("the stub");
    let settle = |named: Option<&str>, lora: Option<&str>| {
        let used = |name: &str| vec![LoraUse { name: name.into(), scale: None }];
        let mut spec = GenerateSpec { lora: lora.map(used), ..GenerateSpec::new("stub+x", Input::Raw("a".into())) };
        let named = named.map(|name| vec![name.to_owned()]);
        registry.settle_adapters(&lease, named.as_deref(), &mut spec).map(|()| spec.lora).map_err(|e| e.to_string())
    };
    let status = |name: &str| -> Vec<(String, bool)> {
        let all = registry.adapters(Some("stub")).expect("known");
        all.into_iter().filter(|adapter| adapter.name == name).map(|adapter| (adapter.path, adapter.loaded)).collect()
    };
    let shown = |path: &std::path::Path, loaded: bool| (path.display().to_string(), loaded);
    assert_eq!(settle(None, None), Ok(Some(Vec::new())), "what was only found is used by nobody who does not name it");
    assert_eq!(status("my-poet"), [shown(&poet, false)]);
    let used = Ok(Some(vec![LoraUse { name: "my-poet".into(), scale: Some(1.0) }]));
    assert_eq!(settle(None, Some("my-poet")), used);
    assert_eq!(settle(Some("my-poet"), None), used);
    assert_eq!(status("my-poet"), [shown(&poet, true)]);
    assert_eq!(registry.adapters(Some("stub-fast")), Ok(Vec::new()), "it is another model's");

    let several = settle(Some("twin"), None).expect_err("two have this name");
    assert!(several.contains(one.to_str().expect("UTF-8")) && several.contains("under a name of its own"), "{several}");
    assert_eq!(status("twin"), [shown(&one, false), shown(&other, false)]);
    let change = |change| registry.load_adapter("stub", change).map_err(|error| error.to_string());
    let twin = AdapterChange { name: Some("twin".into()), ..AdapterChange::default() };
    assert!(
        change(AdapterChange { scale: Some(2.0), ..twin.clone() }).expect_err("which").contains("several adapters")
    );
    change(AdapterChange { path: Some(other.clone()), ..twin }).expect("the path tells");
    assert_eq!(status("twin"), [shown(&other, true)]);
    assert!(settle(None, Some("twin")).is_ok());

    assert_eq!(registry.unload_adapter("my-poet", None).as_deref(), Ok("stub"));
    assert_eq!(status("my-poet"), [shown(&poet, false)], "it is still there to be named");
    let gone = registry.unload_adapter("my-poet", None).expect_err("it is not loaded").to_string();
    assert_eq!(gone, "there is no adapter \"my-poet\" in memory (there are: stub+my-poet, stub+twin)");
    registry.set_found_adapters(&BTreeMap::new());
    assert!(settle(None, Some("my-poet")).is_err() && settle(None, Some("twin")).is_ok(), "what was added stays");
}
