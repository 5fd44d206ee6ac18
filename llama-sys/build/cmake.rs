//! Configures and builds llama.cpp with CMake: always Release, once for all cargo profiles.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::source::Source;

/// The backends that can be compiled in: cargo feature and the CMake option that it sets.
pub const BACKENDS: &[(&str, &str)] = &[
    ("cuda", "GGML_CUDA"),
    ("vulkan", "GGML_VULKAN"),
    ("opencl", "GGML_OPENCL"),
    ("metal", "GGML_METAL"),
    ("rpc", "GGML_RPC"),
];

pub struct Features {
    backends: Vec<&'static str>,
    /// Backends are modules that are loaded at run time.
    pub dynamic: bool,
}

impl Features {
    pub fn from_cargo() -> Self {
        Self::from_names(|name| env::var_os(format!("CARGO_FEATURE_{}", name.to_uppercase())).is_some())
    }

    pub fn from_names(enabled: impl Fn(&str) -> bool) -> Self {
        let backends = BACKENDS.iter().map(|(name, _)| *name).filter(|name| enabled(name)).collect();
        Self { backends, dynamic: enabled("dynamic_backends") }
    }

    pub fn has(&self, name: &str) -> bool {
        self.backends.contains(&name)
    }

    fn label(&self) -> String {
        let mut parts = self.backends.clone();
        if self.dynamic {
            parts.insert(0, "dynamic");
        }
        if parts.is_empty() { "cpu".into() } else { parts.join("-") }
    }
}

/// The `-D` options, in the order given to CMake.
pub fn defines(features: &Features, build: Option<&(String, String)>) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut set = |key: &str, value: &str| all.push((key.into(), value.into()));
    for (feature, option) in BACKENDS {
        set(option, if features.has(feature) { "ON" } else { "OFF" });
    }
    let dynamic = if features.dynamic { "ON" } else { "OFF" };
    // A module and who loads it must share one ggml, so that llama.cpp and ggml are libraries of their own then.
    for option in ["BUILD_SHARED_LIBS", "GGML_BACKEND_DL", "GGML_CPU_ALL_VARIANTS"] {
        set(option, dynamic);
    }
    if features.dynamic {
        // For any machine, as far as the modules know it.
        set("GGML_NATIVE", "OFF");
        // They lie in one directory, wherever that is, and belong together: no versions beside each other.
        set("CMAKE_PLATFORM_NO_VERSIONED_SONAME", "ON");
        set("CMAKE_BUILD_WITH_INSTALL_RPATH", "ON");
        let macos = env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("macos");
        set("CMAKE_INSTALL_RPATH", if macos { "@loader_path" } else { "$ORIGIN" });
    }
    set("CMAKE_POSITION_INDEPENDENT_CODE", "ON");
    set("LLAMA_BUILD_COMMON", "ON");
    for off in ["TESTS", "TOOLS", "EXAMPLES", "SERVER", "APP", "UI"] {
        set(&format!("LLAMA_BUILD_{off}"), "OFF");
    }
    set("LLAMA_OPENSSL", "OFF");
    set("LLAMA_SUBPROCESS", "OFF");
    // BLAS is slower than llama.cpp's own kernels on quantised prompts; it would be on by default on macOS.
    set("GGML_BLAS", "OFF");
    // ggml's own thread pool: no libgomp to carry along, and its threads can be paused.
    set("GGML_OPENMP", "OFF");
    set("GGML_CCACHE", "OFF");
    set("GGML_METAL_EMBED_LIBRARY", "ON");
    if let Some((number, commit)) = build {
        set("LLAMA_BUILD_NUMBER", number);
        set("LLAMA_BUILD_COMMIT", commit);
    }
    all
}

/// Builds and returns the CMake build directory, which holds the libraries.
pub fn build(source: &Source, features: &Features, out_dir: &Path) -> Result<PathBuf, String> {
    require("cmake", "cmake")?;
    require_cxx()?;
    check_backends(source, features)?;

    let mut options = defines(features, source.build.as_ref());
    let launcher = ["sccache", "ccache"].into_iter().find(|tool| in_path(tool));
    if let Some(tool) = launcher {
        for language in ["C", "CXX", "CUDA"] {
            options.push((format!("CMAKE_{language}_COMPILER_LAUNCHER"), tool.into()));
        }
    }
    if features.dynamic && env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        let own = env::var("LDFLAGS").unwrap_or_default();
        let stamp = source.module_stamp()?;
        options.push(("CMAKE_MODULE_LINKER_FLAGS".into(), format!("{own} -Wl,--defsym={stamp}=1")));
    }
    if may_use_amx(features) {
        let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim/amx_tile_config.h");
        for language in ["C", "CXX"] {
            let flags = format!("{} -include \"{}\"", users_flags(language), header.display());
            options.push((format!("CMAKE_{language}_FLAGS"), flags));
        }
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    options.push(("SHIMMY_SHIM_DIR".into(), here.join("shim").display().to_string()));
    options.push(("CMAKE_PROJECT_llama.cpp_INCLUDE".into(), here.join("cmake/mtmd.cmake").display().to_string()));
    let dir = shared_dir(source, features, &options, out_dir)?;

    // Cargo may run two profiles at once; the second waits and then finds everything built.
    let lock_path = dir.with_extension("lock");
    let lock = File::create(&lock_path).map_err(|e| format!("{}: {e}", lock_path.display()))?;
    lock.lock().map_err(|e| format!("{}: {e}", lock_path.display()))?;

    let mut config = cmake::Config::new(&source.dir);
    config.out_dir(&dir).profile("Release").no_default_flags(true).build_target("shimmy_native");
    if in_path("ninja") {
        config.generator("Ninja");
    }
    for (key, value) in &options {
        config.define(key, value);
    }
    // Lets ccache recognise the same file in another clone.
    if let Some(root) = Path::new(env!("CARGO_MANIFEST_DIR")).parent() {
        config.env("CCACHE_BASEDIR", root).env("CCACHE_NOHASHDIR", "1");
    }
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || config.build())).map_err(|_| {
        format!(
            "CMake could not build llama.cpp in {} for {}; its own messages are above",
            dir.display(),
            features.label()
        )
    })?;
    Ok(dir.join("build"))
}

/// Whether code for Intel's AMX is compiled: it is in one of the CPU's modules, and elsewhere where this machine has it.
fn may_use_amx(features: &Features) -> bool {
    let here = || fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("amx_tile"));
    env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64")
        && cc::Build::new().cpp(true).try_get_compiler().is_ok_and(|compiler| compiler.is_like_gnu())
        && (features.dynamic || here())
}

/// What the environment has for a language's compiler. A definition of CMake's takes its place, so it has to be part of that.
fn users_flags(language: &str) -> String {
    let target = env::var("TARGET").unwrap_or_default();
    let name = format!("{language}FLAGS");
    let places =
        [format!("{name}_{target}"), format!("{name}_{}", target.replace('-', "_")), format!("TARGET_{name}"), name];
    places.iter().find_map(|place| env::var(place).ok()).unwrap_or_default()
}

/// `target/llama-cpp/<features>-<hash>`, outside the profile's directories so that all profiles share it.
fn shared_dir(
    source: &Source,
    features: &Features,
    options: &[(String, String)],
    out_dir: &Path,
) -> Result<PathBuf, String> {
    // The outermost directory that cargo has marked as its own. Tools like trybuild nest a second one in it.
    let target = out_dir
        .ancestors()
        .filter(|dir| dir.join("CACHEDIR.TAG").is_file())
        .last()
        .or_else(|| out_dir.ancestors().nth(4))
        .ok_or_else(|| format!("{}: not inside a cargo target directory", out_dir.display()))?;

    let mut hasher = DefaultHasher::new();
    source.dir.hash(&mut hasher);
    options.hash(&mut hasher);
    for key in [
        "TARGET",
        "CC",
        "CXX",
        "CFLAGS",
        "CXXFLAGS",
        "LDFLAGS",
        "VULKAN_SDK",
        "SHIMMY_PLAIN_SHADERS",
        "CUDACXX",
        "CUDAARCHS",
    ] {
        println!("cargo::rerun-if-env-changed={key}");
        env::var_os(key).hash(&mut hasher);
    }
    let dir = target.join("llama-cpp").join(format!("{}-{:016x}", features.label(), hasher.finish()));
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(dir)
}

fn check_backends(source: &Source, features: &Features) -> Result<(), String> {
    for name in ["cuda", "vulkan", "opencl", "metal", "rpc"] {
        if features.has(name) && !source.dir.join(format!("ggml/src/ggml-{name}/CMakeLists.txt")).is_file() {
            return Err(format!(
                "feature `{name}`: {} has no ggml/src/ggml-{name}; the registry's copy of llama.cpp leaves some backends out\n\
                 fill the submodule from git (`git submodule update --init`), or set LLAMA_CPP_DIR to a complete checkout",
                source.dir.display()
            ));
        }
    }
    if features.has("cuda") {
        check_cuda()?;
    }
    if features.has("vulkan") {
        check_vulkan()?;
    }
    if features.has("opencl") && find_header("OPENCL_SDK", "CL/cl.h").is_none() && !cfg!(target_os = "macos") {
        return Err("feature `opencl`: no CL/cl.h; install the OpenCL headers and loader (Debian: apt-get install opencl-headers ocl-icd-opencl-dev)".into());
    }
    if features.has("metal") && env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("macos") {
        return Err(
            "feature `metal`: Metal exists on macOS only; on this system use `vulkan`, `cuda` or `opencl`".into()
        );
    }
    Ok(())
}

fn check_cuda() -> Result<(), String> {
    let candidates = [
        env::var_os("CUDACXX").map(PathBuf::from),
        env::var_os("CUDA_PATH").map(|dir| PathBuf::from(dir).join("bin/nvcc")),
        Some(PathBuf::from("/usr/local/cuda/bin/nvcc")),
    ];
    if in_path("nvcc") || candidates.into_iter().flatten().any(|nvcc| nvcc.is_file()) {
        return Ok(());
    }
    Err("feature `cuda`: no CUDA compiler (nvcc) in PATH, CUDACXX, CUDA_PATH or /usr/local/cuda; install the CUDA toolkit or set CUDACXX=/path/to/nvcc".into())
}

fn check_vulkan() -> Result<(), String> {
    let fix = "set VULKAN_SDK to an SDK of 1.4 or newer (here: `eval $(make vulkan-env)`)";
    let sdk_glslc = env::var_os("VULKAN_SDK").map(|sdk| PathBuf::from(sdk).join("bin/glslc"));
    let glslc = sdk_glslc.filter(|glslc| glslc.is_file()).unwrap_or_else(|| "glslc".into());
    if glslc == Path::new("glslc") && !in_path("glslc") {
        return Err("feature `vulkan`: no shader compiler (glslc); install it (Debian: apt-get install glslc) or set VULKAN_SDK".into());
    }
    if !knows_matrices(&glslc) {
        println!(
            "cargo::warning={} cannot compile shaders with cooperative matrices (GL_KHR_cooperative_matrix), so prompts and many streams will be slow on GPUs that have them; {fix}",
            glslc.display()
        );
    }
    let Some(header) = find_header("VULKAN_SDK", "vulkan/vulkan_core.h") else {
        return Err(format!("feature `vulkan`: no vulkan/vulkan_core.h; {fix}"));
    };
    println!("cargo::rerun-if-changed={}", header.display());
    let text = fs::read_to_string(&header).map_err(|e| format!("{}: {e}", header.display()))?;
    if !text.contains("VK_EXT_layer_settings") {
        let version =
            text.lines().find_map(|line| line.strip_prefix("#define VK_HEADER_VERSION ")).map_or("unknown", str::trim);
        return Err(format!(
            "feature `vulkan`: {} is too old (header version {version}, without VK_EXT_layer_settings that llama.cpp uses); {fix}",
            header.display()
        ));
    }
    Ok(())
}

/// llama.cpp leaves shaders out silently that the compiler is too old for, those for tensor cores among them.
fn knows_matrices(glslc: &Path) -> bool {
    let shader = "#version 460\n#extension GL_KHR_cooperative_matrix : require\nvoid main() {}\n";
    let run = Command::new(glslc)
        .args(["-fshader-stage=compute", "--target-env=vulkan1.3", "-o", "-", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .and_then(|mut child| {
            child.stdin.take().map_or(Ok(()), |mut input| input.write_all(shader.as_bytes()))?;
            child.wait()
        });
    run.is_ok_and(|status| status.success())
}

fn find_header(sdk_variable: &str, header: &str) -> Option<PathBuf> {
    println!("cargo::rerun-if-env-changed={sdk_variable}");
    let sdk = env::var_os(sdk_variable).map(|sdk| PathBuf::from(sdk).join("include"));
    let roots =
        sdk.into_iter().chain(["/usr/include", "/usr/local/include", "/opt/homebrew/include"].map(PathBuf::from));
    roots.map(|root| root.join(header)).find(|path| path.is_file())
}

fn require(tool: &str, package: &str) -> Result<(), String> {
    if in_path(tool) {
        return Ok(());
    }
    Err(format!(
        "{tool} is not installed and llama.cpp is built with it\n\
         install it: `apt-get install {package}`, `dnf install {package}`, `pacman -S {package}` or `brew install {package}`; `make bootstrap` does it on Debian"
    ))
}

fn require_cxx() -> Result<(), String> {
    let found = cc::Build::new().cpp(true).try_get_compiler().map_err(|e| e.to_string()).and_then(|compiler| {
        let run = compiler.to_command().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        run.map_err(|e| format!("{}: {e}", compiler.path().display()))
    });
    found.map(|_| ()).map_err(|why| {
        format!(
            "no C++ compiler: {why}\n\
             install one (Debian: apt-get install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install), or set CXX"
        )
    })
}

fn in_path(tool: &str) -> bool {
    Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}
