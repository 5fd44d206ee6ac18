//! Options of where a model runs.

use clap::Args;

use crate::placement::{CpuExperts, GpuBackend, GpuLayers, PlacementSpec, SplitMode};

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Placement")]
pub(super) struct PlacementArgs {
    /// Where models run: auto, cpu, cuda, vulkan, opencl or metal. What is named here is used, or the load fails.
    #[arg(long, global = true, default_value = "auto", env = "SHIMMY_GPU_BACKEND", value_name = "BACKEND")]
    gpu_backend: GpuBackend,
    /// Devices by the names that `gpu-info` shows, e.g. `CUDA0,CUDA1` [default: all of the backend].
    #[arg(long, global = true, value_name = "NAME,NAME", value_delimiter = ',')]
    device: Vec<String>,
    /// Layers on the GPU: all, auto (as many as fit) or a number. The last ones go first, and the output before them
    /// [default: all where a GPU is asked for, else auto].
    #[arg(long, global = true, value_name = "N", visible_alias = "ngl")]
    gpu_layers: Option<GpuLayers>,
    /// Whether several GPUs share a model: layer, or none (one has it all).
    #[arg(long, global = true, default_value = "layer", value_name = "MODE")]
    split_mode: SplitMode,
    /// Shares of the devices, e.g. `3,1` [default: by free memory].
    #[arg(long, global = true, value_name = "X,X", value_delimiter = ',')]
    tensor_split: Vec<f32>,
    /// The device that holds the model with `--split-mode none`, counted from 0 [default: 0].
    #[arg(long, global = true, value_name = "I")]
    main_gpu: Option<u32>,
    /// Keep the experts of all layers in the CPU's memory.
    #[arg(long, global = true, conflicts_with = "n_cpu_moe")]
    cpu_moe: bool,
    /// Keep the experts of the first N layers in the CPU's memory.
    #[arg(long, global = true, value_name = "N")]
    n_cpu_moe: Option<u32>,
}

impl PlacementArgs {
    pub fn spec(&self) -> PlacementSpec {
        PlacementSpec {
            gpu_backend: self.gpu_backend,
            devices: self.device.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect(),
            gpu_layers: self.gpu_layers,
            split_mode: self.split_mode,
            tensor_split: self.tensor_split.clone(),
            main_gpu: self.main_gpu,
            cpu_experts: match (self.cpu_moe, self.n_cpu_moe) {
                (true, _) => CpuExperts::All,
                (false, Some(n)) => CpuExperts::First(n),
                (false, None) => CpuExperts::None,
            },
        }
    }
}
