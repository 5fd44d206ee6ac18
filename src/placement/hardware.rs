//! Which GPUs the system itself knows of, whatever backends are compiled in: facts for "why is my GPU not used".

use std::path::Path;

use serde::{Deserialize, Serialize};

const DEVICES: &str = "/sys/bus/pci/devices";

/// A display controller on the PCI bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciGpu {
    /// E.g. `0000:01:00.0`.
    pub address: String,
    /// `NVIDIA`, `AMD`, `Intel`, or the number.
    pub maker: String,
    /// The kernel's driver with its version, where one has taken it.
    pub driver: Option<String>,
}

impl PciGpu {
    /// The backends that could drive it.
    #[must_use]
    pub fn backends(&self) -> &'static str {
        match self.maker.as_str() {
            "NVIDIA" => "cuda or vulkan",
            "Intel" => "vulkan or opencl",
            _ => "vulkan",
        }
    }
}

impl std::fmt::Display for PciGpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.driver {
            Some(driver) => write!(f, "{} GPU at {} (kernel driver {driver})", self.maker, self.address),
            None => write!(f, "{} GPU at {} (no kernel driver has taken it)", self.maker, self.address),
        }
    }
}

/// Reads Linux's `/sys`; nothing on other systems.
#[must_use]
pub fn pci_gpus() -> Vec<PciGpu> {
    gpus_under(Path::new(DEVICES))
}

fn gpus_under(root: &Path) -> Vec<PciGpu> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut gpus: Vec<PciGpu> = entries.flatten().filter_map(|entry| gpu_at(&entry.path())).collect();
    gpus.sort_by(|a, b| a.address.cmp(&b.address));
    gpus
}

fn gpu_at(path: &Path) -> Option<PciGpu> {
    let read = |name: &str| std::fs::read_to_string(path.join(name)).map(|text| text.trim().to_owned()).ok();
    // Class 03 is a display controller: 00 VGA, 02 3D.
    if !read("class")?.starts_with("0x03") {
        return None;
    }
    let maker = match read("vendor")?.as_str() {
        "0x10de" => "NVIDIA".to_owned(),
        "0x1002" => "AMD".to_owned(),
        "0x8086" => "Intel".to_owned(),
        // What a virtual machine draws its console on.
        "0x1234" | "0x1b36" | "0x1af4" | "0x15ad" | "0x1013" => return None,
        other => other.to_owned(),
    };
    Some(PciGpu { address: path.file_name()?.to_string_lossy().into_owned(), maker, driver: driver_of(path) })
}

/// The kernel's driver of the device at a PCI address, with its version where it has one, e.g. `nvidia 580.159.04`.
#[must_use]
pub fn kernel_driver(address: &str) -> Option<String> {
    driver_of(&Path::new(DEVICES).join(address.to_lowercase()))
}

fn driver_of(device: &Path) -> Option<String> {
    let link = std::fs::read_link(device.join("driver")).ok()?;
    let name = link.file_name()?.to_string_lossy().into_owned();
    // Drivers that are part of the kernel have its version.
    match std::fs::read_to_string(device.join("driver/module/version")) {
        Ok(version) => Some(format!("{name} {}", version.trim())),
        Err(_) => Some(name),
    }
}

#[cfg(test)]
mod tests {
    use super::gpus_under;

    #[test]
    fn gpus_are_told_from_other_devices() {
        let root = tempfile::tempdir().expect("a directory");
        for (address, class, vendor) in [
            ("0000:00:02.0", "0x030000", "0x1234"),
            ("0000:02:00.0", "0x030200", "0x10de"),
            ("0000:01:00.0", "0x020000", "0x8086"),
        ] {
            let device = root.path().join(address);
            std::fs::create_dir(&device).expect("a directory");
            std::fs::write(device.join("class"), format!("{class}\n")).expect("written");
            std::fs::write(device.join("vendor"), format!("{vendor}\n")).expect("written");
        }
        let gpus = gpus_under(root.path());
        assert_eq!(gpus.len(), 1);
        assert_eq!(gpus[0].to_string(), "NVIDIA GPU at 0000:02:00.0 (no kernel driver has taken it)");
        #[cfg(unix)]
        {
            let driver = root.path().join("drivers/nvidia");
            std::fs::create_dir_all(driver.join("module")).expect("a directory");
            std::fs::write(driver.join("module/version"), "580.1\n").expect("written");
            std::os::unix::fs::symlink(&driver, root.path().join("0000:02:00.0/driver")).expect("a link");
            assert_eq!(gpus_under(root.path())[0].driver.as_deref(), Some("nvidia 580.1"));
        }
        assert_eq!(gpus_under(&root.path().join("nothing")), []);
    }
}
