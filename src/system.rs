//! Facts about this machine and this binary.

use std::ffi::OsString;
use std::path::PathBuf;

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

/// Where the user's own settings are: `$XDG_CONFIG_HOME/shimmy`, else `~/.config/shimmy`; on Windows `%APPDATA%\shimmy`.
/// `None` where the environment names no home.
#[must_use]
pub fn config_dir() -> Option<PathBuf> {
    config_dir_in(|name| std::env::var_os(name))
}

fn config_dir_in(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // A relative path would mean another place for each working directory; the XDG specification has it passed over.
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CONFIG_HOME");
    let base = if cfg!(windows) { base.or_else(|| absolute("APPDATA")) } else { base };
    Some(base.or_else(|| Some(absolute("HOME")?.join(".config")))?.join("shimmy"))
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

#[cfg(all(test, unix))]
mod tests {
    use std::path::PathBuf;

    use super::config_dir_in;

    #[test]
    fn settings_are_where_the_environment_says() {
        for (xdg, home, expected) in [
            (None, Some("/home/a"), Some("/home/a/.config/shimmy")),
            (Some("/etc/a"), Some("/home/a"), Some("/etc/a/shimmy")),
            (Some(""), Some("/home/a"), Some("/home/a/.config/shimmy")),
            (Some("relative"), Some("/home/a"), Some("/home/a/.config/shimmy")),
            (Some("/etc/a"), None, Some("/etc/a/shimmy")),
            (None, Some(""), None),
            (None, None, None),
        ] {
            let found = config_dir_in(|name| match name {
                "XDG_CONFIG_HOME" => xdg.map(Into::into),
                "HOME" => home.map(Into::into),
                _ => None,
            });
            assert_eq!(found, expected.map(PathBuf::from), "{xdg:?} {home:?}");
        }
    }
}
