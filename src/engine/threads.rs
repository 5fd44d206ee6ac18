//! How many threads compute, and fewer of them while other programs need the cores.
//!
//! llama.cpp's threads wait for each other many times a token by spinning. Where one of them has lost its core to
//! another program, all others wait for it; one thread fewer is then much faster than a full set.

use std::time::{Duration, Instant};

/// Physical cores, or fewer where this process may not use them all.
#[must_use]
pub fn default_threads() -> u32 {
    let usable = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(num_cpus::get_physical().min(usable)).unwrap_or(1).max(1)
}

/// Between two looks at the machine.
const INTERVAL: Duration = Duration::from_millis(250);
/// A core that others use less than this counts as ours.
const SHARE: f64 = 0.4;

/// Decides on the number of threads from what other programs use. Pure: time and load are its arguments.
#[derive(Debug)]
pub(super) struct Governor {
    max: u32,
    cores: f64,
    now: u32,
    /// What the latest look wanted; it must be seen twice.
    wanted: u32,
}

impl Governor {
    /// `max` threads on a machine with `cores` logical cores.
    pub fn new(max: u32, cores: usize) -> Self {
        let cores = f64::from(u32::try_from(cores).unwrap_or(u32::MAX));
        Self { max, cores, now: max, wanted: max }
    }

    /// Others kept `foreign` cores busy since the last look. Returns the new number of threads where it changes.
    pub fn look(&mut self, foreign: f64) -> Option<u32> {
        // A bit of load is no reason to give a whole core away.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Between 1 and `max`.
        let wanted = (self.cores - (foreign - SHARE).ceil().max(0.0)).clamp(1.0, f64::from(self.max)) as u32;
        let twice = wanted == self.wanted;
        self.wanted = wanted;
        if !twice || wanted == self.now {
            return None;
        }
        self.now = wanted;
        Some(wanted)
    }
}

/// Reads how busy the machine is, beside this process.
#[derive(Debug)]
pub(super) struct LoadMeter {
    system: sysinfo::System,
    cores: usize,
    at: Instant,
    /// Processor time of this process at the latest reading.
    own: Duration,
}

impl LoadMeter {
    /// `None` where the system does not tell how much processor time this process used.
    pub fn new() -> Option<Self> {
        let own = process_time()?;
        let mut system = sysinfo::System::new();
        system.refresh_cpu_usage();
        let cores = system.cpus().len().max(1);
        Some(Self { system, cores, at: Instant::now(), own })
    }

    pub fn cores(&self) -> usize {
        self.cores
    }

    /// Cores that others used since the last reading; `None` while that is too short ago.
    pub fn foreign(&mut self) -> Option<f64> {
        let elapsed = self.at.elapsed();
        if elapsed < INTERVAL {
            return None;
        }
        self.system.refresh_cpu_usage();
        let cores = f64::from(u32::try_from(self.cores).unwrap_or(u32::MAX));
        let busy = f64::from(self.system.global_cpu_usage()) / 100.0 * cores;
        let own = process_time()?;
        let ours = own.saturating_sub(self.own).as_secs_f64() / elapsed.as_secs_f64();
        self.at = Instant::now();
        self.own = own;
        Some((busy - ours).max(0.0))
    }
}

/// Processor time that this process has used, over all its threads.
#[cfg(unix)]
fn process_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

#[cfg(not(unix))]
fn process_time() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::Governor;

    #[test]
    fn a_core_that_others_need_is_given_up_and_taken_back() {
        let mut governor = Governor::new(2, 2);
        assert_eq!(governor.look(0.1), None);
        assert_eq!(governor.look(0.9), None, "once may be a blip");
        assert_eq!(governor.look(1.0), Some(1));
        assert_eq!(governor.look(1.9), None, "one thread is the least");
        assert_eq!(governor.look(0.05), None);
        assert_eq!(governor.look(0.05), Some(2));
    }

    #[test]
    fn spare_cores_are_given_up_first() {
        let mut governor = Governor::new(8, 16);
        for foreign in [1.0, 4.0, 8.0, 8.2] {
            assert_eq!(governor.look(foreign), None, "{foreign} of 16 cores leave 8 for us");
        }
        governor.look(10.0);
        assert_eq!(governor.look(10.0), Some(6));
    }
}
