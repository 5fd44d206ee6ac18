//! Tests of a whole look at the disk, on files of our own writer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::gguf::writer::{Writer, tiny_llama, tiny_lora};

use super::places::{Kind, SearchPath};
use super::pull::{Digest, Recipe, Store, make};
use super::{Capability, Found, LayerKind, Library, PartKind, Shards, examine, survey};

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, writer: &Writer) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("created");
        writer.write(&path).expect("written");
        path
    }

    fn survey(&self) -> Library {
        look_into(&[self.0.path()])
    }
}

fn look_into(dirs: &[&Path]) -> Library {
    let place = |dir: &&Path| SearchPath { dir: dir.to_path_buf(), because: "a test", kind: Kind::Files { depth: 8 } };
    survey(&dirs.iter().map(place).collect::<Vec<_>>())
}

fn names(library: &Library) -> Vec<&str> {
    library.models.iter().map(|model| model.name.as_str()).collect()
}

fn model<'a>(library: &'a Library, name: &str) -> &'a Found {
    library.models.iter().find(|model| model.name == name).unwrap_or_else(|| panic!("{name} in {:?}", names(library)))
}

fn projector(width: u32, format: u32) -> Writer {
    let mut w = Writer::new();
    w.string("general.architecture", "clip")
        .u32("general.file_type", format)
        .u32("clip.vision.projection_dim", width)
        .bool("clip.has_vision_encoder", true)
        .random("mm.0.weight", &[4, 4], 0.0);
    w
}

/// The tiny model in three files; the first holds its metadata and no weights.
fn three_shards() -> Vec<(String, Writer)> {
    let part = |number: u16, mut writer: Writer| {
        writer.raw("split.no", 2, (number - 1).to_le_bytes().to_vec()).raw(
            "split.count",
            2,
            3u16.to_le_bytes().to_vec(),
        );
        (format!("big-1b-q8_0-{number:05}-of-00003.gguf"), writer)
    };
    let mut first = Writer::new();
    first.take_keys(&tiny_llama());
    let mut second = Writer::new();
    second.random("token_embd.weight", &[32, 286], 0.0);
    let mut third = Writer::new();
    third.random("output.weight", &[32, 286], 0.0);
    vec![part(1, first), part(2, second), part(3, third)]
}

#[test]
fn shards_are_one_model_and_count_together() {
    let dir = Dir::new();
    let paths: Vec<_> = three_shards().iter().map(|(name, writer)| dir.write(name, writer)).collect();
    let library = dir.survey();
    assert_eq!(names(&library), ["big:1b-q8_0"]);
    let big = &library.models[0];
    assert_eq!((&big.path, big.facts.parameters), (&paths[0], 2 * 32 * 286));
    assert_eq!(big.facts.quantization, "F32", "told by the second, since the first has no weights");
    let bytes: u64 = paths.iter().map(|path| path.metadata().expect("there").len()).sum();
    assert_eq!((big.size_bytes, library.disk_bytes), (bytes, bytes));
    assert_eq!(examine(&paths[0]).expect("a model").size_bytes, bytes);

    fs::remove_file(&paths[1]).expect("removed");
    let library = dir.survey();
    let lack = library.models[0].shards.as_ref().and_then(Shards::lack);
    assert_eq!(lack.as_deref(), Some("1 of 3 files missing: big-1b-q8_0-00002-of-00003.gguf"));
    fs::remove_file(&paths[0]).expect("removed");
    let library = dir.survey();
    assert!(library.models.is_empty(), "without the first nothing is known of it");
    assert!(library.problems[0].what.contains("big-1b-q8_0-00001-of-00003.gguf"), "{:?}", library.problems);
}

#[test]
fn files_that_are_no_models_are_told() {
    let dir = Dir::new();
    let mut whole = tiny_llama().to_bytes();
    dir.write("good.gguf", &tiny_llama());
    whole.truncate(whole.len() - 64);
    fs::write(dir.at("cut.gguf"), &whole).expect("written");
    fs::write(dir.at("text.gguf"), "hello").expect("written");
    fs::write(dir.at("empty.gguf"), "").expect("written");
    let mut words = tiny_llama();
    words.string("tokenizer.ggml.model", "none");
    dir.write("wordless.gguf", &words);
    let library = dir.survey();
    assert_eq!(names(&library), ["good"]);
    let told: Vec<_> =
        library.problems.iter().map(|problem| problem.what.split([':', ',']).next().unwrap_or("")).collect();
    assert_eq!(
        told,
        ["truncated", "not a GGUF file", "not a GGUF file", "has no vocabulary"],
        "{:?}",
        library.problems
    );
}

#[test]
fn the_same_file_is_one_model_with_two_names_and_counts_once() {
    let dir = Dir::new();
    let path = dir.write("a/foo-7b-q4_0.gguf", &tiny_llama());
    fs::hard_link(&path, dir.at("mine.gguf")).expect("linked");
    let library = dir.survey();
    assert_eq!(names(&library), ["foo:7b-q4_0"]);
    assert!(library.models[0].aliases.contains(&"mine".into()), "{:?}", library.models[0].aliases);
    assert_eq!(library.disk_bytes, path.metadata().expect("there").len());
}

#[test]
fn a_projector_belongs_to_the_model_that_it_fits() {
    let dir = Dir::new();
    dir.write("see/eye-7b-q4_0.gguf", &tiny_llama());
    let half = dir.write("see/mmproj-model-f16.gguf", &projector(32, 1));
    dir.write("see/mmproj-model-f32.gguf", &projector(32, 0));
    let mut wide = tiny_llama();
    wide.u32("llama.embedding_length", 64);
    dir.write("wide-7b.gguf", &wide);
    dir.write("many/one-7b.gguf", &tiny_llama());
    dir.write("many/two-7b.gguf", &tiny_llama());
    let named = dir.write("many/mmproj-two-7b-f16.gguf", &projector(32, 1));
    let lonely = dir.write("away/mmproj-f16.gguf", &projector(99, 1));
    let library = dir.survey();
    assert_eq!(names(&library), ["eye:7b-q4_0", "one:7b", "two:7b", "wide:7b"]);
    let eye = model(&library, "eye:7b-q4_0");
    assert_eq!(eye.projector.as_ref(), Some(&half), "16 bits before 32");
    assert!(eye.facts.can(Capability::Vision));
    assert_eq!(model(&library, "two:7b").projector.as_ref(), Some(&named));
    for blind in ["one:7b", "wide:7b"] {
        assert_eq!(model(&library, blind).projector, None, "{blind}");
        assert!(!model(&library, blind).facts.can(Capability::Vision));
    }
    let part = library.parts.iter().find(|part| part.path == lonely).expect("listed");
    assert_eq!((part.kind, part.models.len()), (PartKind::Projector, 0));
}

#[test]
fn an_adapter_belongs_to_the_base_that_it_names_or_fits_nearby() {
    let dir = Dir::new();
    dir.write("m/base-1b.gguf", &tiny_llama());
    let mut other = tiny_llama();
    other.string("general.name", "The Other 1B").random("blk.0.attn_q.weight", &[32, 48], 0.0);
    dir.write("m/unfit-1b.gguf", &other);
    dir.write("n/named-1b.gguf", &tiny_llama());
    let nearby = dir.write("m/adapters/style.gguf", &tiny_lora());
    let mut names_its_base = tiny_lora();
    names_its_base.string("general.base_model.0.name", "Named 1B");
    let named = dir.write("m/named-lora.gguf", &names_its_base);
    let library = dir.survey();
    assert_eq!(names(&library), ["base:1b", "named:1b", "unfit:1b"]);
    assert_eq!(model(&library, "base:1b").adapters, [nearby]);
    assert_eq!(model(&library, "named:1b").adapters, [named]);
    assert!(model(&library, "unfit:1b").adapters.is_empty());
}

#[test]
fn names_do_not_depend_on_the_order_in_which_files_were_made() {
    let files = ["b/x-7b-q4_0.gguf", "a/x-7b-q4_0.gguf", "x-7b-q8_0.gguf", "c/x-7b-q4_0.gguf"];
    let look = |order: &[usize]| {
        let dir = Dir::new();
        for at in order {
            dir.write(files[*at], &tiny_llama());
        }
        let library = dir.survey();
        let below = |found: &Found| found.path.strip_prefix(dir.0.path()).expect("below").display().to_string();
        library.models.iter().map(|found| (found.name.clone(), below(found), found.aliases.clone())).collect::<Vec<_>>()
    };
    let first = look(&[0, 1, 2, 3]);
    assert_eq!(first, look(&[3, 2, 1, 0]));
    assert_eq!(first, look(&[2, 0, 3, 1]));
    let named: Vec<_> = first.iter().map(|(name, path, _)| (name.as_str(), path.as_str())).collect();
    assert_eq!(
        named,
        [
            ("b/x:7b-q4_0", "b/x-7b-q4_0.gguf"),
            ("c/x:7b-q4_0", "c/x-7b-q4_0.gguf"),
            ("x:7b-q4_0", "a/x-7b-q4_0.gguf"),
            ("x:7b-q8_0", "x-7b-q8_0.gguf"),
        ]
    );
}

#[test]
fn an_earlier_place_goes_first() {
    let (one, two) = (Dir::new(), Dir::new());
    for dir in [&one, &two] {
        dir.write("x-7b-q4_0.gguf", &tiny_llama());
    }
    let library = look_into(&[two.0.path(), one.0.path(), two.0.path()]);
    assert_eq!(library.models.len(), 2);
    assert_eq!(model(&library, "x:7b-q4_0").path, two.at("x-7b-q4_0.gguf"));
}

/// As if all of it had been written an hour ago.
fn age(dir: &Path) {
    let time = SystemTime::now() - Duration::from_secs(3600);
    for entry in walkdir::WalkDir::new(dir) {
        let path = entry.expect("listed").into_path();
        fs::File::open(&path).expect("opened").set_modified(time).expect("set");
    }
}

/// Before the first manifest is written, too, when nothing but its place tells that it is a store.
#[test]
fn what_a_store_keeps_for_itself_is_not_looked_into() {
    let dir = Dir::new();
    dir.write("mine/foo-7b-q4_0.gguf", &tiny_llama());
    for folder in ["partial", "blobs", "shards", "manifests"] {
        dir.write(&format!("{folder}/model-00001-of-00001.gguf"), &tiny_llama());
        let place = SearchPath { dir: dir.0.path().to_owned(), because: "a test", kind: Kind::Own };
        age(dir.0.path());
        let library = survey(&[place]);
        assert_eq!(names(&library), ["foo:7b-q4_0"], "{folder}");
        fs::write(dir.at(folder).join("url-1"), "part").expect("written");
        assert!(library.seen.is_current() == (folder != "manifests"), "{folder}");
    }
}

/// Each change alone, as somebody else makes it while a server runs.
#[test]
fn a_look_notes_all_that_another_look_may_find_otherwise() {
    const MANIFEST: &str = "store/manifests/registry.ollama.ai/library/m/latest";
    const HUB: &str = "hub/models--me--m-1b";
    let prepare = || {
        let dir = Dir::new();
        dir.write("a/b/foo-7b-q4_0.gguf", &tiny_llama());
        for revision in ["old", "new"] {
            dir.write(&format!("{HUB}/snapshots/{revision}/m-1b-q8_0.gguf"), &tiny_llama());
        }
        fs::create_dir(dir.at(&format!("{HUB}/refs"))).expect("created");
        fs::write(dir.at(&format!("{HUB}/refs/main")), "old").expect("written");
        let store = Store::new(dir.at("store"));
        let sent = |bytes: &[u8]| store.add_blob(LayerKind::Model, bytes).expect("written").digest;
        let parts = tiny_llama().split(2);
        let (whole, parts) = (sent(&tiny_llama().to_bytes()), [0, 1].map(|n| sent(&parts[n].to_bytes())));
        let files = [("m".to_owned(), whole.clone())].into();
        let one = Recipe { files, system: Some("Be brief.".into()), ..Recipe::default() };
        make(&store, &"m".parse().expect("a name"), &one, &mut |_| {}).expect("made");
        let files = [("1".to_owned(), parts[0].clone()), ("2".to_owned(), parts[1].clone())].into();
        let two = Recipe { files, ..Recipe::default() };
        make(&store, &"two".parse().expect("a name"), &two, &mut |_| {}).expect("made");
        (dir, store, whole)
    };
    let look =
        |dir: &Dir| look_into(&["a", "hub", "store", "late"].map(|name| dir.at(name)).each_ref().map(PathBuf::as_path));
    let system = Digest::of(b"Be brief.");
    type Change<'a> = (&'a str, &'a dyn Fn(&Dir, &Store, &Digest));
    let put = |path: PathBuf, text: &str| fs::write(path, text).expect("written");
    let changes: [Change; 12] = [
        ("a place comes", &|dir, _, _| fs::create_dir(dir.at("late")).expect("created")),
        ("a file comes", &|dir, _, _| put(dir.at("a/b/new.gguf"), "x")),
        ("a folder comes", &|dir, _, _| fs::create_dir(dir.at("a/b/c")).expect("created")),
        ("a file is written", &|dir, _, _| put(dir.at("a/b/foo-7b-q4_0.gguf"), "x")),
        ("a revision comes", &|dir, _, _| fs::create_dir(dir.at(&format!("{HUB}/snapshots/3"))).expect("created")),
        ("main moves on", &|dir, _, _| put(dir.at(&format!("{HUB}/refs/main")), "new")),
        ("a host comes", &|dir, _, _| fs::create_dir(dir.at("store/manifests/host")).expect("created")),
        ("a model goes", &|dir, _, _| fs::remove_file(dir.at(MANIFEST)).expect("removed")),
        ("a manifest is written", &|dir, _, _| put(dir.at(MANIFEST), "{}")),
        ("weights go", &|_, store, whole| fs::remove_file(store.blob(whole)).expect("removed")),
        ("a text is written", &|_, store, _| put(store.blob(&system), "Be long.")),
        ("a shard goes", &|dir, _, _| {
            let shards = fs::read_dir(dir.at("store/shards")).expect("there").flatten().next().expect("a folder");
            fs::remove_file(shards.path().join("model-00002-of-00002.gguf")).expect("removed");
        }),
    ];
    let mut unseen = Vec::new();
    for (what, change) in changes {
        let (dir, store, whole) = prepare();
        age(dir.0.path());
        let library = look(&dir);
        assert_eq!(names(&library), ["foo:7b-q4_0", "m:1b-q8_0", "m:latest", "two:latest"], "{:?}", library.problems);
        assert!(library.seen.is_current(), "before {what}");
        change(&dir, &store, &whole);
        if library.seen.is_current() {
            unseen.push(what);
        }
    }
    assert!(unseen.is_empty(), "{unseen:?}");
}
