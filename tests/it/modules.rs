//! `dynamic-backends`: one binary, and the backends as files beside it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{BINARY, run, shimmy, smollm2, stderr, stdout};

/// Where the build left its libraries.
fn built() -> PathBuf {
    let output = run(&["gpu-info", "--json"]);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let cpu = modules(&report).into_iter().find(|(backend, ..)| backend == "cpu").expect("a module for the CPU");
    cpu.2.parent().unwrap().to_owned()
}

/// Backend, state, path and reason of each.
fn modules(report: &Value) -> Vec<(String, String, PathBuf, String)> {
    let text = |module: &Value, key: &str| module[key].as_str().unwrap_or_default().to_owned();
    let listed = report["system"]["modules"].as_array().expect("a build with modules lists them");
    listed.iter().map(|m| (text(m, "backend"), text(m, "state"), text(m, "path").into(), text(m, "reason"))).collect()
}

/// The binary and the libraries whose names `wanted` says yes to, in a directory of their own.
fn bundle(wanted: impl Fn(&str) -> bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(BINARY, dir.path().join("shimmy")).unwrap();
    for entry in std::fs::read_dir(built()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if [".so", ".dylib"].iter().any(|end| name.ends_with(end)) && wanted(name) {
            std::fs::copy(&path, dir.path().join(name)).unwrap();
        }
    }
    dir
}

fn in_bundle(dir: &Path, args: &[&str], backend_dir: Option<&Path>) -> Output {
    let mut command = Command::new(dir.join("shimmy"));
    // cargo names its own directories here; a user's shell does not.
    command.env_remove("LD_LIBRARY_PATH").env("HOME", "/nonexistent").env_remove("XDG_CACHE_HOME").args(args);
    if let Some(dir) = backend_dir {
        command.env("SHIMMY_BACKEND_DIR", dir);
    }
    command.output().unwrap()
}

fn is_vulkan(name: &str) -> bool {
    name == "libggml-vulkan.so"
}

#[test]
fn modules_loaded_and_passed_over_are_listed_with_the_reason() {
    let output = run(&["gpu-info", "--json"]);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let cpu: Vec<_> = modules(&report).into_iter().filter(|(backend, ..)| backend == "cpu").collect();
    assert!(cpu.len() > 1, "several instruction sets: {cpu:?}");
    assert_eq!(cpu.iter().filter(|(_, state, ..)| state == "loaded").count(), 1, "{cpu:?}");
    assert!(cpu.iter().all(|(_, state, _, reason)| (state == "loaded") == reason.is_empty()), "{cpu:?}");
    let text = stdout(&run(&["gpu-info"]));
    assert!(text.contains("MODULE") && text.contains("not needed"), "{text}");
}

#[test]
fn a_bundle_runs_wherever_it_lies() {
    let dir = bundle(|_| true);
    let model = smollm2();
    let args = [
        "generate",
        model.to_str().unwrap(),
        "--prompt",
        "1, 2, 3,",
        "--raw",
        "--max-tokens",
        "8",
        "--temperature",
        "0",
    ];
    let moved = in_bundle(dir.path(), &[&["--gpu-backend", "cpu"], &args[..]].concat(), None);
    assert!(moved.status.success(), "{}", stderr(&moved));
    let in_place = run(&[&["--gpu-backend", "cpu"], &args[..]].concat());
    assert_eq!(stdout(&moved), stdout(&in_place));
    let report: Value = serde_json::from_str(&stdout(&in_bundle(dir.path(), &["gpu-info", "--json"], None))).unwrap();
    let here = dir.path().canonicalize().unwrap();
    assert!(modules(&report).iter().all(|(_, _, path, _)| path.starts_with(&here)), "{report}");
}

#[test]
fn a_backend_without_a_module_is_an_error_that_says_where_it_looked() {
    let dir = bundle(|name| !is_vulkan(name));
    let model = smollm2();
    let probe = |backend_dir| {
        in_bundle(dir.path(), &["--gpu-backend", "vulkan", "probe", model.to_str().unwrap()], backend_dir)
    };
    let missing = probe(None);
    assert_eq!(missing.status.code(), Some(3), "{}", stderr(&missing));
    let said = stderr(&missing);
    let here = dir.path().canonicalize().unwrap();
    assert!(said.contains(&format!("no libggml-vulkan in {}", here.display())), "{said}");

    // One that is there and broken is another thing.
    let broken = tempfile::tempdir().unwrap();
    std::fs::write(
        broken.path().join("libggml-vulkan.so"),
        "not a library, but long enough to look like one".repeat(9),
    )
    .unwrap();
    let refused = probe(Some(broken.path()));
    assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("libggml-vulkan.so was refused: "), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("invalid ELF header"), "{}", stderr(&refused));
    // Nor is one of another llama.cpp taken, which would work by chance at best.
    let source = broken.path().join("other.c");
    std::fs::write(&source, "void ggml_backend_init(void) {}").unwrap();
    let library = broken.path().join("libggml-vulkan.so");
    std::fs::remove_file(&library).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(built.success());
    let other = probe(Some(broken.path()));
    assert_eq!(other.status.code(), Some(3), "{}", stderr(&other));
    assert!(stderr(&other).contains("another llama.cpp"), "{}", stderr(&other));
    // The CPU still serves, and says what it passed over.
    let cpu = in_bundle(dir.path(), &["probe", "--json", model.to_str().unwrap()], Some(broken.path()));
    assert!(cpu.status.success(), "{}", stderr(&cpu));
    assert!(stdout(&cpu).contains("libggml-vulkan.so was refused"), "{}", stdout(&cpu));
}

/// One binary for machines with and without a GPU: the module is all the difference.
#[cfg(feature = "llama-vulkan")]
#[test]
fn a_module_elsewhere_is_loaded_from_the_directory_that_is_named() {
    let dir = bundle(|name| !is_vulkan(name));
    let more = tempfile::tempdir().unwrap();
    std::fs::copy(built().join("libggml-vulkan.so"), more.path().join("libggml-vulkan.so")).unwrap();
    let report = |backend_dir| {
        let output = in_bundle(dir.path(), &["gpu-info", "--json"], backend_dir);
        serde_json::from_str::<Value>(&stdout(&output)).unwrap()
    };
    let registered = |report: &Value| report["system"]["registered"].as_array().unwrap().contains(&"Vulkan".into());
    let without = report(None);
    assert!(!registered(&without), "{without}");
    let with = report(Some(more.path()));
    assert!(registered(&with), "{with}");
    // What is named goes before what is beside the binary.
    let all = bundle(|_| true);
    let output = in_bundle(all.path(), &["gpu-info", "--json"], Some(more.path()));
    let vulkan: Vec<_> = modules(&serde_json::from_str(&stdout(&output)).unwrap())
        .into_iter()
        .filter(|(backend, ..)| backend == "vulkan")
        .map(|(_, state, path, _)| (state, path.starts_with(more.path())))
        .collect();
    assert_eq!(vulkan, [("loaded".to_owned(), true), ("not_needed".to_owned(), false)]);
}

#[test]
fn without_a_module_for_the_cpu_nothing_runs_and_the_error_says_why() {
    let dir = bundle(|name| !name.starts_with("libggml-cpu"));
    let output = in_bundle(dir.path(), &["gpu-info"], None);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("no module for the CPU"), "{}", stderr(&output));

    let mut nowhere = shimmy();
    nowhere.env("SHIMMY_BACKEND_DIR", "/nonexistent/modules").arg("gpu-info");
    let output = nowhere.output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains("SHIMMY_BACKEND_DIR=/nonexistent/modules: there is no such directory"),
        "{}",
        stderr(&output)
    );
}
