//! What the user may ask of placement.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What `--gpu-backend` names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuBackend {
    /// A GPU where a compiled-in backend finds one, else the CPU. The log says which, and why.
    #[default]
    Auto,
    Cpu,
    Cuda,
    Vulkan,
    OpenCl,
    Metal,
}

impl GpuBackend {
    pub(crate) const ALL: [(&'static str, Self); 6] = [
        ("auto", Self::Auto),
        ("cpu", Self::Cpu),
        ("cuda", Self::Cuda),
        ("vulkan", Self::Vulkan),
        ("opencl", Self::OpenCl),
        ("metal", Self::Metal),
    ];
    /// Those that drive a GPU.
    pub const GPUS: [Self; 4] = [Self::Cuda, Self::Vulkan, Self::OpenCl, Self::Metal];

    /// As the command line spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, backend)| *backend == self).map_or("auto", |(name, _)| name)
    }

    /// Names under which llama.cpp registers this backend. ROCm and MUSA builds use CUDA's code.
    #[must_use]
    pub fn registered_names(self) -> &'static [&'static str] {
        match self {
            Self::Auto | Self::Cpu => &[],
            Self::Cuda => &["CUDA", "ROCm", "MUSA"],
            Self::Vulkan => &["Vulkan"],
            Self::OpenCl => &["OpenCL"],
            Self::Metal => &["MTL", "Metal"],
        }
    }
}

impl GpuBackend {
    /// What its modules are called, where backends are modules.
    #[must_use]
    pub fn module_names(self) -> &'static [&'static str] {
        match self {
            Self::Auto | Self::Cpu => &[],
            Self::Cuda => &["cuda", "hip", "musa"],
            Self::Vulkan => &["vulkan"],
            Self::OpenCl => &["opencl"],
            Self::Metal => &["metal"],
        }
    }
}

impl FromStr for GpuBackend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        by_name("backend", &Self::ALL, text)
    }
}

/// How many layers go to the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuLayers {
    All,
    /// As many as fit.
    Auto,
    /// The output and the last so many but one, as llama.cpp counts; what is left stays on the CPU.
    Count(u32),
}

impl FromStr for GpuLayers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "all" => Ok(Self::All),
            "auto" => Ok(Self::Auto),
            number => number
                .parse()
                .map(Self::Count)
                .map_err(|_| format!("{text:?} is neither all, auto nor a number of layers")),
        }
    }
}

/// How several GPUs share a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitMode {
    /// One GPU holds all of it.
    None,
    /// Each GPU holds some of the layers.
    #[default]
    Layer,
}

impl SplitMode {
    pub(crate) const ALL: [(&'static str, Self); 2] = [("none", Self::None), ("layer", Self::Layer)];
}

impl FromStr for SplitMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        by_name("split mode", &Self::ALL, text)
    }
}

/// Which experts of a mixture stay in the CPU's memory, although their layers are on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuExperts {
    #[default]
    None,
    /// Those of the first so many layers.
    First(u32),
    All,
}

/// Where a model should run. Nothing in here is a wish: what cannot be done is an error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlacementSpec {
    pub gpu_backend: GpuBackend,
    /// Devices by llama.cpp's names, e.g. `Vulkan0`; none takes all of the backend's.
    pub devices: Vec<String>,
    /// `None` is all of them where a GPU is asked for, and else as many as fit.
    pub gpu_layers: Option<GpuLayers>,
    pub split_mode: SplitMode,
    /// Shares of the devices, in their order; none follows their free memory.
    pub tensor_split: Vec<f32>,
    /// Which of the devices holds the model with [`SplitMode::None`], counted from 0; the first one if none is named.
    pub main_gpu: Option<u32>,
    pub cpu_experts: CpuExperts,
}

impl PlacementSpec {
    /// The first option that means nothing without a GPU. Experts in the CPU's memory are there anyway on the CPU.
    #[must_use]
    pub fn gpu_option(&self) -> Option<String> {
        match (self.devices.first(), self.gpu_layers, self.main_gpu) {
            (Some(device), _, _) => Some(format!("--device {device}")),
            (_, Some(GpuLayers::All), _) => Some("--gpu-layers all".into()),
            (_, Some(GpuLayers::Count(n)), _) if n > 0 => Some(format!("--gpu-layers {n}")),
            (_, _, Some(n)) => Some(format!("--main-gpu {n}")),
            _ if self.split_mode == SplitMode::None => Some("--split-mode none".into()),
            _ if !self.tensor_split.is_empty() => Some("--tensor-split".into()),
            _ => None,
        }
    }

    /// Whether the CPU alone would not be what was asked for.
    #[must_use]
    pub fn asks_for_gpu(&self) -> bool {
        GpuBackend::GPUS.contains(&self.gpu_backend) || self.gpu_option().is_some()
    }
}

fn by_name<T: Copy>(what: &str, all: &[(&'static str, T)], text: &str) -> Result<T, String> {
    let lower = text.to_ascii_lowercase();
    all.iter().find(|(name, _)| *name == lower).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
        format!("there is no {what} {text:?}; choose one of {}", names.join(", "))
    })
}
