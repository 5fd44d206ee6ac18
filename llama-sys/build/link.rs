//! Compiles the shim and tells rustc what to link.

use std::path::{Path, PathBuf};

use super::cmake_build::Features;

/// Order matters to the linker: each library comes before those that it calls.
const LIBRARIES: &[&str] =
    &["mtmd", "llama-common", "llama-common-base", "cpp-httplib", "llama", "ggml", "ggml-*", "ggml-cpu", "ggml-base"];

pub fn shim(source: &Path, out_dir: &Path) -> Result<(), String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim");
    let mut build = cc::Build::new();
    // As system headers, so that warnings are about our own lines only.
    for part in ["include", "ggml/include", "ggml/src", "common", "vendor", "src", "tools/mtmd"] {
        build.flag(format!("-isystem{}", source.join(part).display()));
    }
    build
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .debug(false)
        .define("NDEBUG", None)
        .flag_if_supported("-Wno-unused-parameter")
        // GCC finds this in its own AVX-512 headers.
        .flag_if_supported("-Wno-maybe-uninitialized")
        .include(&dir)
        .files(
            [
                "adapters.cpp",
                "core.cpp",
                "memory.cpp",
                "placement.cpp",
                "projector.cpp",
                "sampler.cpp",
                "chat.cpp",
                "gemm.cpp",
                "attention.cpp",
                "accelerator.cpp",
                "kernels.cpp",
            ]
            .map(|file| dir.join(file)),
        )
        .cargo_metadata(false)
        .out_dir(out_dir);
    if has_cheap_switch(source)? {
        build.define("SHIM_CHEAP_SWITCH", None);
    }
    build
        .try_compile("shimmy_shim")
        .map_err(|e| format!("the shim does not compile against {}: {e}", source.display()))?;
    println!("cargo::rustc-link-search=native={}", out_dir.display());
    println!("cargo::rustc-link-lib=static:-bundle=shimmy_shim");
    Ok(())
}

/// Whether this revision has the members that `shim/adapters.cpp` looks at; without them llama.cpp reserves its graphs at each
/// change of adapters.
fn has_cheap_switch(source: &Path) -> Result<bool, String> {
    let header = source.join("src/llama-context.h");
    let text = std::fs::read_to_string(&header).map_err(|e| format!("{}: {e}", header.display()))?;
    Ok(["bool sched_need_reserve", "llm_graph_result_ptr gf_res_prev", "void sched_reserve()"]
        .iter()
        .all(|member| text.contains(member)))
}

/// The shared libraries that a dynamic build links; its modules are loaded at run time.
const SHARED: &[&str] = &["llama-common", "llama", "ggml", "ggml-base"];

pub fn libraries(build_dir: &Path, features: &Features) -> Result<(), String> {
    if features.dynamic { shared(build_dir) } else { archives(build_dir, features) }
}

fn shared(build_dir: &Path) -> Result<(), String> {
    let dir = build_dir.join("bin");
    // Nobody shares it; it calls those that follow.
    println!("cargo::rustc-link-search=native={}", build_dir.display());
    println!("cargo::rustc-link-lib=static:-bundle=mtmd");
    for name in SHARED {
        if !["so", "dylib"].iter().any(|ext| dir.join(format!("lib{name}.{ext}")).is_file()) {
            return Err(format!("{}: CMake built no lib{name}", dir.display()));
        }
        println!("cargo::rustc-link-lib=dylib={name}");
    }
    println!("cargo::rustc-link-search=native={}", dir.display());
    println!("cargo::rustc-link-lib={}", if is_macos() { "c++" } else { "stdc++" });
    // For this crate's own tests.
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", dir.display());
    // For whoever links the binary: it has to find them, and the modules beside them, when it runs.
    println!("cargo::metadata=library_dir={}", dir.display());
    Ok(())
}

fn archives(build_dir: &Path, features: &Features) -> Result<(), String> {
    let mut archives = Vec::new();
    collect_archives(build_dir, &mut archives)?;
    let backends: Vec<String> = archives
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_str()?.strip_prefix("lib")?.strip_suffix(".a")?.to_owned()))
        .filter(|name| name.starts_with("ggml-") && name != "ggml-cpu" && name != "ggml-base")
        .collect();
    for archive in &archives {
        if let Some(dir) = archive.parent() {
            println!("cargo::rustc-link-search=native={}", dir.display());
        }
    }
    for name in LIBRARIES {
        if *name == "ggml-*" {
            for backend in &backends {
                println!("cargo::rustc-link-lib=static:-bundle={backend}");
            }
        } else if archives.iter().any(|path| path.file_name().is_some_and(|file| *file == *format!("lib{name}.a"))) {
            println!("cargo::rustc-link-lib=static:-bundle={name}");
        } else {
            return Err(format!("{}: CMake built no lib{name}.a", build_dir.display()));
        }
    }
    system_libraries(features);
    Ok(())
}

fn is_macos() -> bool {
    std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("macos")
}

fn system_libraries(features: &Features) {
    let macos = is_macos();
    let mut libraries = vec![if macos { "c++" } else { "stdc++" }];
    if features.has("vulkan") {
        if let Some(sdk) = std::env::var_os("VULKAN_SDK") {
            println!("cargo::rustc-link-search=native={}", Path::new(&sdk).join("lib").display());
        }
        libraries.push("vulkan");
    }
    if features.has("opencl") && !macos {
        libraries.push("OpenCL");
    }
    if features.has("cuda") {
        let root = std::env::var_os("CUDA_PATH").map_or_else(|| PathBuf::from("/usr/local/cuda"), PathBuf::from);
        println!("cargo::rustc-link-search=native={}", root.join("lib64").display());
        println!("cargo::rustc-link-search=native={}", root.join("lib64/stubs").display());
        libraries.extend(["cudart", "cublas", "cublasLt", "cuda"]);
    }
    if macos {
        for framework in ["Foundation", "Accelerate", "Metal", "MetalKit"] {
            println!("cargo::rustc-link-lib=framework={framework}");
        }
    }
    for library in libraries {
        println!("cargo::rustc-link-lib={library}");
    }
}

fn collect_archives(dir: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            // CMake's scratch projects hold archives of their own that nobody links.
            if path.file_name().is_none_or(|name| name != "CMakeFiles") {
                collect_archives(&path, found)?;
            }
        } else if path.extension().is_some_and(|ext| ext == "a") {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}
