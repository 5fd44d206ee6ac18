//! Rules of the house that no compiler checks: layers, file sizes, first lines, what must not be committed.

use std::path::{Path, PathBuf};

/// Layers from left to right; each may use those before its own number, and itself.
const LAYERS: &[(&str, u32)] = &[
    ("gguf", 1),
    ("constrain", 1),
    ("library", 2),
    ("llama", 2),
    ("placement", 3),
    ("engine", 4),
    ("chat", 4),
    ("runner", 5),
    ("registry", 6),
    ("system", 6),
    ("config", 7),
    ("api", 7),
    ("logging", 7),
    ("server", 8),
    ("cli", 9),
];

/// Uses that cross a layer on purpose, with the reason.
const ALLOWED: &[(&str, &str)] = &[
    // A runner's request carries messages and sampling parameters, which are plain data of these layers.
    ("chat", "engine"),
];

const MAX_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Our own source files below `dir`, with their text.
fn sources(dir: &str, extensions: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut pending = vec![root().join(dir)];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|ext| extensions.iter().any(|wanted| ext == *wanted)) {
                let text = std::fs::read_to_string(&path).expect("UTF-8");
                found.push((path.strip_prefix(root()).expect("below the root").to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "nothing below {dir}");
    found
}

fn rust() -> Vec<(PathBuf, String)> {
    let dirs = ["src", "tests", "llama-sys", "benches", "examples", "fuzz/src", "fuzz/fuzz_targets"];
    let mut all: Vec<_> = dirs.iter().flat_map(|dir| sources(dir, &["rs"])).collect();
    all.push(("build.rs".into(), std::fs::read_to_string(root().join("build.rs")).expect("build.rs")));
    all
}

fn layer(name: &str) -> Option<u32> {
    LAYERS.iter().find(|(layer, _)| *layer == name).map(|(_, number)| *number)
}

#[test]
fn each_layer_uses_only_those_before_it() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src", &["rs"]) {
        let own_name = path.components().nth(1).expect("src/x").as_os_str().to_string_lossy().replace(".rs", "");
        let Some(own) = layer(&own_name) else { continue };
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for part in line.split("crate::").skip(1) {
                let names: Vec<&str> = match part.strip_prefix('{') {
                    Some(list) => {
                        list.split([',', '}']).map(|item| item.trim().split("::").next().unwrap_or("")).collect()
                    }
                    None => vec![part.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("")],
                };
                for used in names {
                    let fits = used == own_name || layer(used).is_none_or(|other| other < own);
                    if !fits && !ALLOWED.contains(&(own_name.as_str(), used)) {
                        wrong.push(format!("{}:{}: {own_name} uses {used}", path.display(), number + 1));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A layer that is missing from the table would never be checked.
#[test]
fn every_directory_of_src_is_a_known_layer() {
    for entry in std::fs::read_dir(root().join("src")).expect("src") {
        let name = entry.expect("an entry").file_name().to_string_lossy().replace(".rs", "");
        assert!(layer(&name).is_some() || ["lib", "main"].contains(&name.as_str()), "src/{name} is in no layer");
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for (path, text) in rust() {
        if text.lines().count() > MAX_LINES {
            wrong.push(format!("{}: {} lines, at most {MAX_LINES}", path.display(), text.lines().count()));
        }
        if !text.starts_with("//! ") {
            wrong.push(format!("{}: the first line must say what lives here, as `//! …`", path.display()));
        }
    }
    for (path, text) in sources("llama-sys/shim", &["cpp", "h", "hpp"]) {
        if text.lines().count() > MAX_LINES || !(text.starts_with("// ") || text.starts_with("/* ")) {
            wrong.push(format!("{}: too long, or no first line that says what it is", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn functions_are_short() {
    let mut wrong = Vec::new();
    // Tests may hold long tables of cases.
    let product = rust().into_iter().filter(|(path, _)| !path.ends_with("tests.rs") && !path.starts_with("tests"));
    for (path, text) in product {
        let lines: Vec<&str> = text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let body = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(super) ");
            if !body.trim_start_matches("async ").starts_with("fn ") {
                continue;
            }
            let at_indent = |line: &&str, end: &str| line.strip_prefix(&" ".repeat(indent)) == Some(end);
            let end = lines[start..].iter().position(|line| at_indent(line, "}"));
            // A trait's function has no body, and its end is another one's.
            let semicolon = lines[start..].iter().position(|line| line.ends_with(';'));
            let opens = lines[start..].iter().position(|line| line.ends_with('{'));
            if semicolon.is_some_and(|semicolon| opens.is_none_or(|opens| semicolon < opens)) {
                continue;
            }
            if end.is_some_and(|length| length > MAX_FUNCTION_LINES) {
                wrong.push(format!("{}:{}: {} lines", path.display(), start + 1, end.unwrap_or(0)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_lives_in_one_place() {
    for (path, text) in rust() {
        let allowed =
            path.starts_with("src/llama") || path.starts_with("llama-sys") || path == Path::new("tests/tidy.rs");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let found =
            code.filter(|line| ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| line.contains(word))).count();
        assert!(allowed || found == 0, "{}: unsafe outside src/llama", path.display());
    }
}

#[test]
fn no_test_is_switched_off_and_nothing_is_left_open() {
    let banned = [
        ["#[ig", "nore"].concat(),
        ["to", "do!("].concat(),
        ["unimple", "mented!("].concat(),
        ["trans", "mute("].concat(),
    ];
    for (path, text) in rust() {
        for word in &banned {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}

/// In shimmy 1.x the root's features never reached the crate that builds llama.cpp.
#[test]
fn gpu_features_are_forwarded() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    for backend in ["cuda", "vulkan", "opencl", "metal", "rpc"] {
        let line = format!("llama-{backend} = [\"llama\", \"llama-sys/{backend}\"");
        assert!(manifest.contains(&line), "Cargo.toml must have: {line}");
    }
}

/// None of llama.cpp's files is ours to commit: only the submodule entry is.
#[test]
fn llama_cpp_is_a_submodule_entry_at_the_pin() {
    let pin = std::fs::read_to_string(root().join("vendor/pin")).expect("vendor/pin");
    let commit = pin.lines().find_map(|line| line.strip_prefix("LLAMA_CPP_COMMIT=")).expect("a commit");
    let listed =
        std::process::Command::new("git").args(["ls-files", "-s", "vendor/llama.cpp"]).current_dir(root()).output();
    let listed = String::from_utf8(listed.expect("git").stdout).expect("UTF-8");
    assert_eq!(listed.trim(), format!("160000 {commit} 0\tvendor/llama.cpp"));
}
