//! Facts about this machine and this binary.

use serde_json::{Value, json};

/// Cargo features that change what the binary can do.
#[must_use]
pub fn build_features() -> Vec<&'static str> {
    [
        ("llama", cfg!(feature = "llama")),
        ("llama-cuda", cfg!(feature = "llama-cuda")),
        ("llama-vulkan", cfg!(feature = "llama-vulkan")),
        ("llama-opencl", cfg!(feature = "llama-opencl")),
        ("llama-metal", cfg!(feature = "llama-metal")),
        ("llama-rpc", cfg!(feature = "llama-rpc")),
        ("dynamic-backends", cfg!(feature = "dynamic-backends")),
        ("stub", cfg!(feature = "stub")),
    ]
    .into_iter()
    .filter_map(|(name, on)| on.then_some(name))
    .collect()
}

/// Stands for the program: its version, llama.cpp's revision and what both were built for. Where it changes, the same seed may
/// give another text.
#[must_use]
pub fn fingerprint() -> String {
    #[cfg(feature = "llama")]
    let revision = crate::llama::revision();
    #[cfg(not(feature = "llama"))]
    let revision = "";
    let facts =
        [env!("CARGO_PKG_VERSION"), revision, env!("SHIMMY_BUILD_TARGET"), &build_features().join(",")].join(" ");
    format!("fp_{:08x}", crc32fast::hash(facts.as_bytes()))
}

/// What `GET /diag` answers. Memory is in MB of 2^20 bytes.
#[must_use]
pub fn diagnostics() -> Value {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let mut all = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "os_version": sysinfo::System::long_os_version(),
        "arch": std::env::consts::ARCH,
        "target": env!("SHIMMY_BUILD_TARGET"),
        "profile": env!("SHIMMY_BUILD_PROFILE"),
        "cores": { "physical": num_cpus::get_physical(), "usable": usable_cores() },
        "memory_total_mb": system.total_memory() >> 20,
        "memory_available_mb": system.available_memory() >> 20,
        "features": build_features(),
    });
    add_llama(&mut all);
    all
}

fn usable_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(feature = "llama")]
fn add_llama(all: &mut Value) {
    use crate::llama::{Backend, revision};

    all["llama_cpp"] = revision().into();
    match Backend::init().and_then(crate::placement::Inventory::of) {
        Ok(inventory) => {
            all["devices"] = json!(inventory.devices);
            all["backends"] = json!(inventory.registered);
        }
        Err(error) => all["devices_error"] = error.to_string().into(),
    }
}

#[cfg(not(feature = "llama"))]
fn add_llama(all: &mut Value) {
    all["llama_cpp"] = Value::Null;
    all["devices"] = json!([]);
    all["backends"] = json!([]);
}

/// Most memory that this process ever had resident, in bytes. `None` where the system does not tell.
#[must_use]
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kb| kb << 10)
}
