//! Options of where a model runs.

use clap::Args;

use super::said::Said;
use crate::config::LoadSettings;
use crate::placement::{GpuBackend, GpuLayers, SplitMode};

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Placement")]
pub(super) struct PlacementArgs {
    /// Where models run: auto, cpu, cuda, vulkan, opencl or metal. What is named here is used, or the load fails
    /// [default: auto].
    #[arg(long, global = true, env = "SHIMMY_GPU_BACKEND", value_name = "BACKEND")]
    gpu_backend: Option<GpuBackend>,
    /// Devices by the names that `gpu-info` shows, e.g. `CUDA0,CUDA1` [default: all of the backend].
    #[arg(long, global = true, value_name = "NAME,NAME", value_delimiter = ',')]
    device: Vec<String>,
    /// Layers on the GPU: all, auto (as many as fit) or a number. The last ones go first, and the output before them
    /// [default: all where a GPU is asked for, else auto].
    #[arg(long, global = true, value_name = "N", visible_alias = "ngl")]
    gpu_layers: Option<GpuLayers>,
    /// Whether several GPUs share a model: layer, or none (one has it all) [default: layer].
    #[arg(long, global = true, value_name = "MODE")]
    split_mode: Option<SplitMode>,
    /// Shares of the devices, e.g. `3,1` [default: by free memory].
    #[arg(long, global = true, value_name = "X,X", value_delimiter = ',')]
    tensor_split: Vec<f32>,
    /// The device that holds the model with `--split-mode none`, counted from 0 [default: 0].
    #[arg(long, global = true, value_name = "I")]
    main_gpu: Option<u32>,
    /// Keep the experts of all layers in the CPU's memory.
    #[arg(long, global = true, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", conflicts_with = "n_cpu_moe")]
    cpu_moe: Option<bool>,
    /// Keep the experts of the first N layers in the CPU's memory.
    #[arg(long, global = true, value_name = "N")]
    n_cpu_moe: Option<u32>,
}

impl PlacementArgs {
    pub fn settings(&self, said: &Said<'_>) -> LoadSettings {
        let devices = self.device.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        LoadSettings {
            gpu_backend: said.set("gpu_backend", self.gpu_backend),
            device: said.list("device", devices.collect()),
            gpu_layers: said.set("gpu_layers", self.gpu_layers),
            split_mode: said.set("split_mode", self.split_mode),
            tensor_split: said.list("tensor_split", self.tensor_split.clone()),
            main_gpu: said.set("main_gpu", self.main_gpu),
            cpu_moe: said.set("cpu_moe", self.cpu_moe),
            n_cpu_moe: said.set("n_cpu_moe", self.n_cpu_moe),
            ..LoadSettings::default()
        }
    }
}
