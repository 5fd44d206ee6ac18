//! Builds llama.cpp and the shim, and writes the bindings. Each step lives in its own file under `build/`.

#[path = "build/bindings.rs"]
mod bindings;
#[path = "build/cmake.rs"]
mod cmake_build;
#[path = "build/link.rs"]
mod link;
#[path = "build/source.rs"]
mod source;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Err(message) = run() else { return ExitCode::SUCCESS };
    for line in message.lines() {
        println!("cargo::error={line}");
    }
    ExitCode::FAILURE
}

fn run() -> Result<(), String> {
    let out_dir = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run this through cargo")?);
    let source = source::locate()?;
    let features = cmake_build::Features::from_cargo();

    // First what fails fast: a missing libclang should not show after minutes of C++.
    bindings::generate(&source.dir, &out_dir)?;
    let native = cmake_build::build(&source, &features, &out_dir)?;
    link::shim(&source.dir, &out_dir)?;
    link::libraries(&native, &features)?;

    // Cargo hands these to the build script of whoever depends on us, as DEP_LLAMA_REVISION and so on.
    println!("cargo::metadata=revision={}", source.revision);
    println!("cargo::metadata=cmake_cache={}", native.join("CMakeCache.txt").display());
    println!("cargo::rustc-env=LLAMA_REVISION={}", source.revision);
    println!("cargo::rustc-env=LLAMA_MODULE_STAMP={}", source.module_stamp()?);
    println!("cargo::rustc-env=LLAMA_CMAKE_CACHE={}", native.join("CMakeCache.txt").display());
    Ok(())
}
