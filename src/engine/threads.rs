//! How many threads compute.

/// Physical cores, or fewer where this process may not use them all.
#[must_use]
pub fn default_threads() -> u32 {
    let usable = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(num_cpus::get_physical().min(usable)).unwrap_or(1).max(1)
}
