//! Finds the llama.cpp sources: `LLAMA_CPP_DIR`, else the submodule.

use std::env;
use std::path::{Path, PathBuf};

pub struct Source {
    pub dir: PathBuf,
    /// What `gpu-info` and `/diag` show, e.g. `b10200 (5f55650a78f9)`.
    pub revision: String,
    /// llama.cpp's build number and commit where they are known. Given to CMake so that it does not
    /// ask git, which would answer with our commit and rebuild after each of them.
    pub build: Option<(String, String)>,
}

impl Source {
    /// A name that stands for ggml's interface to its backends: modules carry it, and are loaded only by a binary that was
    /// built with the same. ggml itself compares a number that changes much more rarely than the interface.
    pub fn module_stamp(&self) -> Result<String, String> {
        let mut headers = Vec::new();
        for dir in ["ggml/include", "ggml/src"] {
            let dir = self.dir.join(dir);
            let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            headers.extend(
                entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "h")),
            );
        }
        headers.sort();
        // FNV-1a: the same on every machine and with every compiler.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for header in headers {
            let text = std::fs::read(&header).map_err(|e| format!("{}: {e}", header.display()))?;
            for byte in text {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        Ok(format!("shimmy_ggml_{hash:016x}"))
    }
}

/// Parts of the tree whose change must rebuild.
const WATCHED: &[&str] = &["CMakeLists.txt", "cmake", "common", "ggml", "include", "src", "tools/mtmd", "vendor"];

pub fn locate() -> Result<Source, String> {
    println!("cargo::rerun-if-env-changed=LLAMA_CPP_DIR");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("llama-sys has no parent directory")?;
    let source = match env::var_os("LLAMA_CPP_DIR") {
        Some(dir) => elsewhere(PathBuf::from(dir))?,
        None => vendored(root)?,
    };
    for part in WATCHED {
        println!("cargo::rerun-if-changed={}", source.dir.join(part).display());
    }
    Ok(source)
}

fn elsewhere(dir: PathBuf) -> Result<Source, String> {
    let dir = dir
        .canonicalize()
        .map_err(|e| format!("LLAMA_CPP_DIR={}: {e}; point it at a llama.cpp checkout", dir.display()))?;
    if !dir.join("include/llama.h").is_file() {
        return Err(format!(
            "LLAMA_CPP_DIR={}: no include/llama.h there; point it at a llama.cpp checkout",
            dir.display()
        ));
    }
    let revision = dir.file_name().map_or_else(|| "elsewhere".into(), |n| n.to_string_lossy().into_owned());
    Ok(Source { dir, revision, build: None })
}

fn vendored(root: &Path) -> Result<Source, String> {
    let dir = root.join("vendor/llama.cpp");
    if !dir.join("include/llama.h").is_file() {
        return Err(format!(
            "{}: llama.cpp's sources are missing\nrun `make vendor` (or `git submodule update --init`), or set LLAMA_CPP_DIR to a checkout",
            dir.display()
        ));
    }
    let pin_file = root.join("vendor/pin");
    println!("cargo::rerun-if-changed={}", pin_file.display());
    let pin = std::fs::read_to_string(&pin_file).map_err(|e| format!("{}: {e}", pin_file.display()))?;
    let release = pin_value(&pin, "LLAMA_CPP_RELEASE")?;
    let commit = pin_value(&pin, "LLAMA_CPP_COMMIT")?;
    Ok(Source {
        dir,
        revision: format!("{release} ({})", &commit[..commit.len().min(12)]),
        build: Some((release.trim_start_matches('b').to_owned(), commit.to_owned())),
    })
}

fn pin_value<'a>(pin: &'a str, key: &str) -> Result<&'a str, String> {
    pin.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .map(str::trim)
        .ok_or_else(|| format!("vendor/pin has no line {key}=…"))
}
