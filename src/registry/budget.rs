//! How much memory models may take on each device.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytesize::ByteSize;

pub use crate::placement::Bytes;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    Bytes(u64),
    /// Of what is free on the device when no model is loaded, 0.0 to 1.0.
    Share(f64),
}

/// `--memory-budget`: what models may take together, on each device or on some. The rest goes by what is free.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryBudget {
    everywhere: Option<Limit>,
    /// By lower-case name.
    devices: BTreeMap<String, Limit>,
}

/// Not a budget; says what one looks like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no amount of memory: write e.g. 12GiB, 80%, or CUDA0=20GiB,CPU=50%")]
pub struct BadBudget(String);

/// A budget for a device that is not there, or whose memory cannot be limited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no device {device:?} whose memory can be limited; there are: {}", .known.join(", "))]
pub struct UnknownDevice {
    device: String,
    known: Vec<String>,
}

impl MemoryBudget {
    /// Whether anything was asked for.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the devices that it names are there. `known` are those whose memory can be limited, by llama.cpp's names; the
    /// CPU's always can.
    ///
    /// # Errors
    /// The first one that is not.
    pub fn check_devices<T: Iterator<Item = String>>(&self, known: impl FnOnce() -> T) -> Result<(), UnknownDevice> {
        let mut named = self.devices.keys().filter(|device| *device != "cpu").peekable();
        if named.peek().is_none() {
            return Ok(());
        }
        let known: Vec<String> = known().collect();
        match named.find(|device| !known.iter().any(|name| name.eq_ignore_ascii_case(device))) {
            Some(unknown) => Err(UnknownDevice { device: unknown.clone(), known }),
            None => Ok(()),
        }
    }

    fn limit(&self, device: &str) -> Option<Limit> {
        self.devices.get(&device.to_lowercase()).copied().or(self.everywhere)
    }

    /// Whether the device's limit was asked for; else it is a guess by what is free.
    #[must_use]
    pub fn is_explicit(&self, device: &str) -> bool {
        self.limit(device).is_some()
    }

    /// Bytes that models may take on the device, of which `free` are free without them; `None` where neither is known.
    #[must_use]
    pub fn of(&self, device: &str, free: Option<u64>) -> Option<u64> {
        match self.limit(device) {
            Some(Limit::Bytes(bytes)) => Some(bytes),
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Some(Limit::Share(share)) => free.map(|free| (free as f64 * share) as u64),
            None => free,
        }
    }
}

impl FromStr for MemoryBudget {
    type Err = BadBudget;

    fn from_str(text: &str) -> Result<Self, BadBudget> {
        let mut budget = Self::default();
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                Some((device, amount)) if !device.trim().is_empty() => {
                    budget.devices.insert(device.trim().to_lowercase(), limit(amount)?);
                }
                None if budget.everywhere.is_none() => budget.everywhere = Some(limit(part)?),
                _ => return Err(BadBudget(text.to_owned())),
            }
        }
        Ok(budget)
    }
}

fn limit(text: &str) -> Result<Limit, BadBudget> {
    let text = text.trim();
    let bad = || BadBudget(text.to_owned());
    let Some(percent) = text.strip_suffix('%') else {
        return text.parse().map(|bytes: ByteSize| Limit::Bytes(bytes.as_u64())).map_err(|_| bad());
    };
    let percent: f64 = percent.trim().parse().map_err(|_| bad())?;
    if (0.0..=100.0).contains(&percent) { Ok(Limit::Share(percent / 100.0)) } else { Err(bad()) }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}B"),
            Self::Share(share) => write!(f, "{}%", share * 100.0),
        }
    }
}

impl fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.devices.iter().map(|(device, limit)| format!("{device}={limit}"));
        let parts: Vec<String> = self.everywhere.iter().map(ToString::to_string).chain(named).collect();
        f.write_str(&parts.join(","))
    }
}

/// Adds device by device.
pub(super) fn add(to: &mut Bytes, more: &Bytes) {
    for (device, bytes) in more {
        *to.entry(device.clone()).or_default() += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryBudget;

    const GIB: u64 = 1 << 30;

    #[test]
    fn amounts_and_shares_are_for_all_devices_or_one() {
        let budget: MemoryBudget = "12GiB, cuda0 = 50%".parse().expect("a budget");
        assert_eq!(budget.of("CPU", Some(GIB)), Some(12 * GIB), "what was asked for, whatever is free");
        assert_eq!(budget.of("CUDA0", Some(80 * GIB)), Some(40 * GIB));
        assert_eq!(budget.of("CUDA0", None), None);
        assert!(budget.is_explicit("CUDA0") && budget.is_explicit("Vulkan1"));
        let budget: MemoryBudget = "CUDA0=1000000".parse().expect("bytes");
        assert_eq!(budget.of("CPU", Some(7)), Some(7));
        assert!(!budget.is_explicit("CPU"));
        assert_eq!(budget.to_string().parse(), Ok(budget));
    }

    #[test]
    fn devices_must_be_there() {
        let check = |budget: &str| {
            let known = || ["CPU", "CUDA0"].into_iter().map(str::to_owned);
            let budget = budget.parse::<MemoryBudget>().expect("a budget");
            budget.check_devices(known).map_err(|error| error.to_string())
        };
        assert_eq!(check("80%,cuda0=1GiB,cpu=1GiB"), Ok(()));
        let words = "there is no device \"cuda1\" whose memory can be limited; there are: CPU, CUDA0";
        assert_eq!(check("CUDA0=1GiB,CUDA1=1GiB"), Err(words.into()));
        let not_asked = || -> std::iter::Empty<String> { panic!("looking for devices takes a while") };
        assert_eq!("CPU=50%".parse::<MemoryBudget>().expect("a budget").check_devices(not_asked), Ok(()));
    }

    #[test]
    fn anything_else_is_refused() {
        for wrong in ["", "much", "101%", "-1GiB", "=1GiB", "1GiB,2GiB", "CPU=", "1GiB,,CPU=1GiB", "NaN%"] {
            let error = wrong.parse::<MemoryBudget>().expect_err(wrong).to_string();
            assert!(error.contains("is no amount of memory"), "{error}");
        }
    }
}
