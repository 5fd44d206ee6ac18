//! Records what this binary was built for, for `/diag` and bug reports, and where it finds libraries.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    for key in ["TARGET", "PROFILE"] {
        let value = env::var(key).unwrap_or_else(|_| "unknown".into());
        println!("cargo::rustc-env=SHIMMY_BUILD_{key}={value}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    // Only a build with dynamic backends has it.
    if let Some(libraries) = env::var_os("DEP_LLAMA_LIBRARY_DIR") {
        find_libraries(Path::new(&libraries));
    }
    println!("cargo::rerun-if-env-changed=SHIMMY_BUNDLE");
}

/// Lets the binary look beside itself, where an installed one has them, and then where this build left them, told from the
/// binary's own directory. With `SHIMMY_BUNDLE` only beside itself: what leaves this machine must not look elsewhere.
fn find_libraries(libraries: &Path) {
    let origin = if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("macos") { "@loader_path" } else { "$ORIGIN" };
    println!("cargo::rustc-link-arg=-Wl,-rpath,{origin}");
    if env::var_os("SHIMMY_BUNDLE").is_some() {
        return;
    }
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    // <profile>/build/shimmy-<hash>/out
    let profile_dir = out_dir.ancestors().nth(3).unwrap_or(&out_dir);
    let common = profile_dir.components().zip(libraries.components()).take_while(|(a, b)| a == b).count();
    let up = profile_dir.components().skip(common).map(|_| "..".as_ref());
    let down = libraries.components().skip(common).map(|part| part.as_os_str());
    let relative: PathBuf = up.chain(down).collect();
    let relative = relative.display();
    println!("cargo::rustc-env=SHIMMY_BUILD_LIBRARIES={relative}");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{origin}/{relative}");
    // Executables of tests are one level below.
    println!("cargo::rustc-link-arg=-Wl,-rpath,{origin}/../{relative}");
}
