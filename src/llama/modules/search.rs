//! Finds, rates and loads the modules.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::ffi::{CString, c_int};
use std::path::{Path, PathBuf};

use libloading::{Library, Symbol};

use super::{BACKEND_DIR, BackendModule, ModuleState, Modules};
use crate::llama::callback;
use crate::llama::error::{LlamaError, check};

/// Backends in the order in which `auto` prefers them. Others come after these; the CPU's is last, as in llama.cpp.
const ORDER: &[&str] = &["cuda", "hip", "musa", "metal", "vulkan", "sycl", "opencl", "rpc"];

pub(super) fn load() -> Result<Modules, LlamaError> {
    let searched = directories()?;
    let mut files: Vec<BackendModule> = searched.iter().flat_map(|dir| modules_in(dir)).collect();
    in_order(&mut files);
    let (mut found, mut log) = (Vec::new(), String::new());
    for group in files.chunk_by(|a, b| a.backend == b.backend) {
        found.extend(load_best(group.to_vec(), &mut log));
    }
    let has_cpu = found.iter().any(|module| module.backend == "cpu" && module.state == ModuleState::Loaded);
    if !has_cpu {
        let listed: Vec<String> = searched.iter().map(|dir| dir.display().to_string()).collect();
        let mut message = format!("no module for the CPU (libggml-cpu-*) could be loaded from {}", listed.join(" or "));
        for module in &found {
            if let (true, ModuleState::Refused(why)) = (module.backend == "cpu", &module.state) {
                message.push_str(&format!("; {}: {why}", module.path.display()));
            }
        }
        return Err(LlamaError::Backends(message));
    }
    Ok(Modules { searched, found, log })
}

/// Where to look: what the environment names, then where the binary is.
fn directories() -> Result<Vec<PathBuf>, LlamaError> {
    let mut dirs = Vec::new();
    if let Some(named) = std::env::var_os(BACKEND_DIR).filter(|dir| !dir.is_empty()) {
        let dir = PathBuf::from(named);
        let wrong = |why: String| LlamaError::Backends(format!("{BACKEND_DIR}={}: {why}", dir.display()));
        if !dir.is_dir() {
            return Err(wrong("there is no such directory".into()));
        }
        std::fs::read_dir(&dir).map_err(|e| wrong(e.to_string()))?;
        dirs.push(dir.canonicalize().map_err(|e| wrong(e.to_string()))?);
    }
    let binary = std::env::current_exe().ok().and_then(|path| path.canonicalize().ok());
    if let Some(beside) = binary.as_deref().and_then(Path::parent) {
        dirs.push(beside.to_owned());
        // Where the build left them. cargo puts the executables of tests one level below the binary.
        if let Some(built) = option_env!("SHIMMY_BUILD_LIBRARIES") {
            let built = [beside, &beside.join("..")].map(|dir| dir.join(built).canonicalize());
            dirs.extend(built.into_iter().flatten().find(|dir| dir.is_dir()));
        }
    }
    let mut seen = HashSet::new();
    dirs.retain(|dir| seen.insert(dir.clone()));
    Ok(dirs)
}

fn modules_in(dir: &Path) -> Vec<BackendModule> {
    // The binary's own directory may be closed to reading; then nothing is beside it.
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<BackendModule> = entries.flatten().filter_map(|entry| module_at(entry.path())).collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Those of one backend together, in the order of their directories.
fn in_order(files: &mut [BackendModule]) {
    files.sort_by(|a, b| (rank(&a.backend), &a.backend).cmp(&(rank(&b.backend), &b.backend)));
}

/// `libggml-BACKEND[-VARIANT].so`, on Windows without `lib` and with `.dll`.
fn module_at(path: PathBuf) -> Option<BackendModule> {
    let stem = path.file_name()?.to_str()?.strip_suffix(if cfg!(windows) { ".dll" } else { ".so" })?;
    let name = stem.strip_prefix(if cfg!(windows) { "ggml-" } else { "libggml-" })?;
    let (backend, variant) = match name.split_once('-') {
        Some((backend, variant)) => (backend, Some(variant.to_owned())),
        None => (name, None),
    };
    // A library that the modules have in common.
    if backend == "base" {
        return None;
    }
    Some(BackendModule {
        backend: backend.to_owned(),
        variant,
        state: ModuleState::Refused("not looked at".into()),
        path,
    })
}

fn rank(backend: &str) -> usize {
    if backend == "cpu" {
        return usize::MAX;
    }
    ORDER.iter().position(|name| *name == backend).unwrap_or(ORDER.len())
}

/// Loads the module of one backend that serves this machine best, or the next where that fails.
fn load_best(modules: Vec<BackendModule>, log: &mut String) -> Vec<BackendModule> {
    let mut rated: Vec<(Result<Rated, String>, BackendModule)> =
        modules.into_iter().map(|module| (rate(&module.path), module)).collect();
    // Among equals the first stays first: what the environment names goes before what is beside the binary.
    rated.sort_by_key(|(rated, _)| Reverse(rated.as_ref().map_or(0, |rated| rated.score)));
    let mut used: Option<String> = None;
    let settle = |(rated, module): (Result<Rated, String>, BackendModule)| {
        let state = match (rated, &used) {
            (Err(why), _) => ModuleState::Refused(why),
            (Ok(Rated { score: 0, .. }), _) => {
                ModuleState::Refused("it is for a processor that can do more than this one".into())
            }
            (Ok(_), Some(better)) => ModuleState::NotNeeded(better.clone()),
            (Ok(rated), None) => match load_one(&module.path) {
                Ok(said) => {
                    log.push_str(&said);
                    used = Some(module.path.display().to_string());
                    drop(rated);
                    ModuleState::Loaded
                }
                Err(why) => ModuleState::Refused(why),
            },
        };
        BackendModule { state, ..module }
    };
    rated.into_iter().map(settle).collect()
}

/// A module that is one of ours, and how well it suits this machine: 0 not at all, and more is better.
struct Rated {
    score: c_int,
    /// Open until ggml has it, so that it is not started twice.
    _library: Library,
}

fn rate(path: &Path) -> Result<Rated, String> {
    // SAFETY: runs the initialisers of a file that lies where the user keeps this program's modules.
    let library = unsafe { Library::new(path) }.map_err(|e| e.to_string())?;
    // SAFETY: only looked up; ggml-backend-impl.h gives it this type.
    let entry = unsafe { library.get::<unsafe extern "C" fn()>(b"ggml_backend_init\0") };
    entry.map_err(|_| "it is no backend of ggml (no ggml_backend_init)".to_owned())?;
    if cfg!(target_os = "linux") {
        // SAFETY: only looked up.
        let stamp = unsafe { library.get::<*const ()>(llama_sys::MODULE_STAMP.as_bytes()) };
        stamp.map_err(|_| {
            format!("it was built with another llama.cpp than this binary ({}), or not by it", llama_sys::REVISION)
        })?;
    }
    // SAFETY: as above. Only modules that come in variants have it.
    let score: Result<Symbol<'_, unsafe extern "C" fn() -> c_int>, _> = unsafe { library.get(b"ggml_backend_score\0") };
    // SAFETY: it asks the processor what it can do, with instructions that each one has.
    let score = score.map_or(1, |score| unsafe { score() });
    Ok(Rated { score, _library: library })
}

/// Returns its warnings.
fn load_one(path: &Path) -> Result<String, String> {
    let c_path = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|e| e.to_string())?;
    // SAFETY: the path is NUL-terminated. The module stays loaded until the process ends.
    let (status, log) = callback::try_out(true, || unsafe { llama_sys::shim_backend_load(c_path.as_ptr()) });
    check("loading it", status, log.clone()).map_err(|e| e.to_string())?;
    Ok(log)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{in_order, module_at};

    #[test]
    #[cfg(not(windows))]
    fn modules_are_known_by_their_names() {
        let parts = |name: &str| {
            let module = module_at(Path::new("/lib").join(name))?;
            Some((module.backend, module.variant))
        };
        assert_eq!(parts("libggml-vulkan.so"), Some(("vulkan".into(), None)));
        assert_eq!(parts("libggml-cpu-zen4.so"), Some(("cpu".into(), Some("zen4".into()))));
        for other in ["libggml-base.so", "libggml.so", "libllama.so", "libggml-cuda.so.0", "libggml-cuda.a"] {
            assert_eq!(parts(other), None, "{other}");
        }
    }

    #[test]
    #[cfg(not(windows))]
    fn each_backend_is_one_group_with_the_cpu_last_and_the_first_directory_first() {
        let files = ["/a/libggml-cpu-x64.so", "/a/libggml-zzz.so", "/a/libggml-abc.so", "/a/libggml-vulkan.so"];
        let more = ["/b/libggml-zzz.so", "/b/libggml-cuda.so", "/b/libggml-abc.so"];
        let mut found: Vec<_> =
            files.iter().chain(&more).filter_map(|path| module_at(Path::new(path).to_owned())).collect();
        in_order(&mut found);
        let paths: Vec<&str> = found.iter().filter_map(|module| module.path.to_str()).collect();
        assert_eq!(
            paths,
            [
                "/b/libggml-cuda.so",
                "/a/libggml-vulkan.so",
                "/a/libggml-abc.so",
                "/b/libggml-abc.so",
                "/a/libggml-zzz.so",
                "/b/libggml-zzz.so",
                "/a/libggml-cpu-x64.so"
            ]
        );
    }
}
