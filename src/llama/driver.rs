//! Versions of the drivers behind devices. ggml does not tell them, so the drivers are asked.

use super::device::Device;

/// What drives a device; unknown where nothing tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// The interface with the version that the driver has of it, e.g. `Vulkan 1.4.303`.
    pub api: Option<String>,
    /// Name and version, e.g. `NVIDIA 580.159.04`.
    pub driver: Option<String>,
}

/// The drivers of `devices`, in their order. Starts Vulkan once more, which takes some milliseconds.
#[must_use]
pub fn drivers(devices: &[Device]) -> Vec<Driver> {
    let vulkan = if devices.iter().any(|device| device.backend == "Vulkan") { vulkan::all() } else { Vec::new() };
    let of = |device: &Device| match device.backend.as_str() {
        "Vulkan" => vulkan.iter().find(|found| found.is(device)).map(|found| found.driver.clone()).unwrap_or_default(),
        "CUDA" => Driver { api: cuda_api(), driver: None },
        _ => Driver::default(),
    };
    devices.iter().map(of).collect()
}

/// `CUDA 13.0`.
#[cfg(any(feature = "llama-cuda", feature = "dynamic-backends"))]
fn cuda_api() -> Option<String> {
    use std::ffi::c_int;

    let name = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };
    // SAFETY: the driver's own library, which the CUDA backend has loaded already.
    let library = unsafe { libloading::Library::new(name) }.ok()?;
    // SAFETY: cuda.h gives it this type.
    let version = unsafe { library.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cuDriverGetVersion\0") }.ok()?;
    let mut number = 0;
    // SAFETY: writes one int.
    (unsafe { version(&raw mut number) } == 0).then(|| format!("CUDA {}.{}", number / 1000, number % 1000 / 10))
}

#[cfg(not(any(feature = "llama-cuda", feature = "dynamic-backends")))]
fn cuda_api() -> Option<String> {
    None
}

#[cfg(any(feature = "llama-vulkan", feature = "dynamic-backends"))]
mod vulkan {
    use ash::vk;

    use super::Driver;
    use crate::llama::device::Device;

    /// One device of Vulkan's.
    pub(super) struct Found {
        name: String,
        /// As in `/sys/bus/pci/devices`.
        pci: Option<String>,
        pub driver: Driver,
    }

    impl Found {
        pub fn is(&self, device: &Device) -> bool {
            match (&self.pci, &device.id) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ => device.description.contains(&self.name),
            }
        }
    }

    /// None where Vulkan does not start.
    pub(super) fn all() -> Vec<Found> {
        // SAFETY: Vulkan's loader, which the Vulkan backend has loaded already.
        let Ok(entry) = (unsafe { ash::Entry::load() }) else { return Vec::new() };
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_2);
        let create = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: the structures live until the call returns.
        let Ok(instance) = (unsafe { entry.create_instance(&create, None) }) else { return Vec::new() };
        // SAFETY: the instance is live.
        let devices = unsafe { instance.enumerate_physical_devices() }.unwrap_or_default();
        let found = devices.into_iter().map(|device| read(&instance, device)).collect();
        // SAFETY: nothing of it is kept.
        unsafe { instance.destroy_instance(None) };
        found
    }

    fn read(instance: &ash::Instance, device: vk::PhysicalDevice) -> Found {
        // SAFETY: the instance and its device are live.
        let extensions = unsafe { instance.enumerate_device_extension_properties(device) }.unwrap_or_default();
        let knows_pci = extensions.iter().any(|e| e.extension_name_as_c_str() == Ok(ash::ext::pci_bus_info::NAME));
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut pci = vk::PhysicalDevicePCIBusInfoPropertiesEXT::default();
        let mut all = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
        if knows_pci {
            all = all.push_next(&mut pci);
        }
        // SAFETY: the chain holds structures that a device of Vulkan 1.2 with this extension fills; others leave them.
        unsafe { instance.get_physical_device_properties2(device, &mut all) };
        let properties = all.properties;
        let text = |found: Result<&std::ffi::CStr, _>| {
            found.map_or_else(|_: std::ffi::FromBytesUntilNulError| String::new(), |t| t.to_string_lossy().into_owned())
        };
        let version = properties.api_version;
        let (major, minor) = (vk::api_version_major(version), vk::api_version_minor(version));
        let name = text(driver.driver_name_as_c_str());
        Found {
            name: text(properties.device_name_as_c_str()),
            pci: knows_pci.then(|| {
                let vk::PhysicalDevicePCIBusInfoPropertiesEXT { pci_domain, pci_bus, pci_device, pci_function, .. } =
                    pci;
                format!("{pci_domain:04x}:{pci_bus:02x}:{pci_device:02x}.{pci_function:x}")
            }),
            driver: Driver {
                api: Some(format!("Vulkan {major}.{minor}.{}", vk::api_version_patch(version))),
                driver: (!name.is_empty()).then(|| format!("{name} {}", text(driver.driver_info_as_c_str()))),
            },
        }
    }
}

#[cfg(not(any(feature = "llama-vulkan", feature = "dynamic-backends")))]
mod vulkan {
    use super::Driver;
    use crate::llama::device::Device;

    /// There is none without the backend.
    pub(super) struct Found {
        pub driver: Driver,
    }

    impl Found {
        pub fn is(&self, _: &Device) -> bool {
            false
        }
    }

    pub(super) fn all() -> Vec<Found> {
        Vec::new()
    }
}
