//! What a load would take, and what would fit, from llama.cpp's own layout of a model whose weights are not read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use crate::gguf;
use crate::llama::{Backend, Context, Model, ModelParams};
use crate::placement::{
    self, Alternative, Bytes, Choice, DeviceReport, GpuLayers, Inventory, Limit, MemoryPlan, NO_LIMIT, PlacementError,
    PlacementReport, largest, needs,
};

use super::draft::Draft;
use super::error::LoadError;
use super::free::{self, EXACT, may_overflow};
use super::layout::Layout;
use super::local::load_error;
use super::offload;
use super::sight::Sight;
use super::spec::{CacheType, FlashAttention, LoadSpec};

/// Nothing is computed.
const THREADS: u32 = 1;
/// Smallest context that is worth a proposal, and steps from there.
const CONTEXT_STEP: u32 = 1024;

/// Lays one model out in different ways.
struct Planner<'a> {
    backend: Backend,
    path: &'a Path,
    inventory: &'a Inventory,
    /// Free bytes of the CPU's memory. Read once, so that all ways are measured by the same.
    cpu_free: u64,
    adapters: Vec<gguf::Header>,
    /// By the device's name; none is the CPU.
    projector_needs: RefCell<HashMap<Option<String>, Result<Bytes, LoadError>>>,
}

/// One way.
struct Laid {
    layout: Layout,
    report: PlacementReport,
}

/// What loading `path` as `spec` says would take.
///
/// # Errors
/// As a load: what is wrong with the file or the asked placement.
pub fn plan(path: &Path, spec: &LoadSpec, limit: Limit<'_>) -> Result<MemoryPlan, LoadError> {
    let backend = Backend::init().map_err(|e| PlacementError::Backend(e.to_string()))?;
    let inventory = Inventory::of(backend).map_err(|e| PlacementError::Backend(e.to_string()))?;
    let mut choice = placement::choose(&inventory, &spec.placement)?;
    let is_auto = choice.layers == GpuLayers::Auto;
    // What was asked for in numbers is shown as it is.
    let limit = if is_auto { limit } else { NO_LIMIT };
    let inventory = inventory.within(limit);
    let planner = Planner::new(backend, path, &inventory, spec, limit);
    choice.share_within(&inventory);
    let wished = Choice { layers: GpuLayers::All, ..choice.clone() };
    match planner.settle_auto(&mut choice, spec) {
        // Then it is shown for all layers, with what would help.
        Err(LoadError::Placement(PlacementError::TooLarge(_) | PlacementError::NothingFits { .. })) => {
            choice = wished.clone();
        }
        settled => settled?,
    }
    let model = planner.model(&choice)?;
    let laid = match planner.lay_out(&model, &choice, spec) {
        // There are ways around a device's limit.
        Err(LoadError::Placement(PlacementError::TooLarge(refusal))) => {
            let layout = Layout::new(&model, spec)?;
            let total = model.n_layer_all();
            let gpu_layers = match choice.layers {
                GpuLayers::Count(n) => n.saturating_sub(1).min(total),
                GpuLayers::All | GpuLayers::Auto => total,
            };
            return Ok(MemoryPlan {
                backend: choice.devices.first().map_or_else(|| "cpu".into(), |d| d.backend.to_lowercase()),
                gpu_layers,
                total_layers: total,
                context_tokens: layout.n_ctx,
                parallel: layout.parallel,
                devices: Vec::new(),
                fits: false,
                reduced: false,
                alternatives: planner.alternatives(&model, &choice, spec, layout.n_ctx, gpu_layers)?,
                refusal: Some(refusal),
                why: choice.why,
            });
        }
        laid => laid?,
    };
    let devices = needs(&laid.report, &|name| planner.free(name));
    let fits = devices.iter().all(|device| device.fits);
    let n_ctx = laid.layout.n_ctx;
    let alternatives = if choice.devices.is_empty() && !wished.devices.is_empty() {
        // The CPU was taken for want of room; this is what a GPU would take.
        planner.alternatives(&planner.model(&wished)?, &wished, spec, n_ctx, model.n_layer_all())?
    } else if fits {
        Vec::new()
    } else {
        planner.alternatives(&model, &choice, spec, n_ctx, laid.report.gpu_layers)?
    };
    Ok(MemoryPlan {
        refusal: None,
        reduced: is_auto
            && (choice.devices.len() < wished.devices.len() || laid.report.gpu_layers < laid.report.total_layers),
        why: choice.why,
        backend: laid.report.backend,
        gpu_layers: laid.report.gpu_layers,
        total_layers: laid.report.total_layers,
        context_tokens: laid.layout.n_ctx,
        parallel: laid.layout.parallel,
        devices,
        fits,
        alternatives,
    })
}

/// Turns `--gpu-layers auto` into a number, within `limit`, and refuses other choices that a GPU has no memory for: a driver that runs out
/// of memory in the middle of a load, or of a request, can end the process.
pub(super) fn settle(
    backend: Backend,
    path: &Path,
    inventory: &Inventory,
    choice: &mut Choice,
    spec: &LoadSpec,
    limit: Limit<'_>,
) -> Result<(), LoadError> {
    if choice.layers != GpuLayers::Auto {
        return Planner::new(backend, path, inventory, spec, NO_LIMIT).check(choice, spec);
    }
    let inventory = inventory.within(limit);
    choice.share_within(&inventory);
    Planner::new(backend, path, &inventory, spec, limit).settle_auto(choice, spec)
}

impl<'a> Planner<'a> {
    fn new(backend: Backend, path: &'a Path, inventory: &'a Inventory, spec: &LoadSpec, limit: Limit<'_>) -> Self {
        // What is wrong with one is for the load to say.
        let adapters = spec.adapters.iter().filter_map(|(path, _)| gguf::Header::open(path).ok()).collect();
        let cpu_free = free::cpu().min(limit("CPU").unwrap_or(u64::MAX));
        Self { backend, path, inventory, cpu_free, adapters, projector_needs: RefCell::default() }
    }

    /// What does not fit by our own margin may still run; what is more than there is does not, where a backend counts its
    /// memory to the end.
    fn check(&self, choice: &Choice, spec: &LoadSpec) -> Result<(), LoadError> {
        let laid = self.lay_out(&self.model(choice)?, choice, spec)?;
        let needs = needs(&laid.report, &|name| self.free(name));
        let short = needs.into_iter().find(|need| self.is_gpu(&need.usage.name) && need.needed_bytes > need.free_bytes);
        let Some(need) = short else { return Ok(()) };
        let error = PlacementError::TooLittleMemory {
            device: need.usage.title(),
            needed_mb: need.needed_bytes.div_ceil(1 << 20),
            free_mb: need.free_bytes >> 20,
        };
        if choice.devices.iter().all(|device| EXACT.contains(&device.backend.as_str())) && !may_overflow() {
            return Err(error.into());
        }
        tracing::warn!(%error, "the load is tried");
        Ok(())
    }

    fn settle_auto(&self, choice: &mut Choice, spec: &LoadSpec) -> Result<(), LoadError> {
        if choice.layers != GpuLayers::Auto {
            return Ok(());
        }
        let named = spec.placement.asks_for_gpu();
        let (found, total) = match self.most_layers(choice, spec) {
            Err(LoadError::Placement(PlacementError::TooLarge(why))) if !named => {
                *choice = Choice::cpu(format!("{}, but {why}", choice.why));
                return Ok(());
            }
            found => found?,
        };
        // The output counts as one; alone on a GPU it is worth nothing.
        if found <= 1 {
            if named {
                let devices: Vec<String> = choice.devices.iter().map(DeviceReport::title).collect();
                return Err(PlacementError::NothingFits { devices: devices.join(", ") }.into());
            }
            *choice = Choice::cpu(format!("{}, but none of {total} layers fits", choice.why));
            return Ok(());
        }
        choice.layers = if found > total { GpuLayers::All } else { GpuLayers::Count(found) };
        choice.why = match found {
            n if n > total => format!("{}; all layers fit", choice.why),
            n => format!("{}; {} of {total} layers fit", choice.why, n - 1),
        };
        Ok(())
    }

    /// The most layers that fit, with the output counted as one, and how many there are without it.
    fn most_layers(&self, choice: &Choice, spec: &LoadSpec) -> Result<(u32, u32), LoadError> {
        let mut refusal = None;
        let mut fits = |model: &Model, choice: &Choice| match self.lay_out(model, choice, spec) {
            // What is left for the CPU has to find room there anyway.
            Ok(laid) => Ok(needs(&laid.report, &|name| self.free(name))
                .iter()
                .all(|device| device.fits || !self.is_gpu(&device.usage.name))),
            Err(error @ LoadError::Placement(PlacementError::TooLarge(_))) => {
                refusal = Some(error);
                Ok(false)
            }
            Err(error) => Err(error),
        };
        // Mostly all of them do.
        let all = Choice { layers: GpuLayers::All, ..choice.clone() };
        let model = self.model(&all)?;
        let total = model.n_layer_all();
        if fits(&model, &all)? {
            return Ok((total + 1, total));
        }
        drop(model);
        let found = largest(1, total, 1, |n| {
            let some = Choice { layers: GpuLayers::Count(n), ..choice.clone() };
            fits(&self.model(&some)?, &some)
        })?;
        let found = found.unwrap_or(0);
        match refusal {
            // No layer beside the output, and not for want of memory alone.
            Some(error) if found <= 1 => Err(error),
            _ => Ok((found, total)),
        }
    }

    fn model(&self, choice: &Choice) -> Result<Model, LoadError> {
        let offload = offload::offload(self.backend, choice).map_err(load_error)?;
        let params = ModelParams { offload, simulated: true, ..ModelParams::default() };
        Model::load(self.backend, self.path, &params, &mut |_| true).map_err(load_error)
    }

    fn lay_out(&self, model: &Model, choice: &Choice, spec: &LoadSpec) -> Result<Laid, LoadError> {
        let layout = Layout::new(model, spec)?;
        let context = Context::new(model, &layout.context(THREADS, spec)).map_err(load_error)?;
        let memory = context.memory_use().map_err(load_error)?;
        let actual = offload::actual(model, memory).map_err(load_error)?;
        let mut report = placement::verify(choice, &actual)?;
        if let Some(draft) = Draft::load(self.backend, spec, model, choice, true)? {
            report.add_draft(&draft.need(&layout.context(THREADS, spec))?);
        }
        if let Some(projector) = &spec.projector {
            match self.projector_need(&projector.path, choice) {
                Ok(bytes) => report.add_projector(&bytes),
                // The load goes without it, and says why.
                Err(_) if projector.found => {}
                Err(error) => return Err(error),
            }
        }
        for adapter in &self.adapters {
            report.add_adapters(&placement::adapter_bytes(adapter, &actual.layers));
        }
        Ok(Laid { layout, report })
    }

    /// Asked once for each device: it takes memory for a moment.
    fn projector_need(&self, path: &Path, choice: &Choice) -> Result<Bytes, LoadError> {
        let device = choice.devices.first().map(|device| device.name.clone());
        let mut known = self.projector_needs.borrow_mut();
        let need = known.entry(device).or_insert_with(|| Sight::need(self.backend, path, choice));
        need.clone()
    }

    fn fits(&self, report: &PlacementReport) -> bool {
        needs(report, &|name| self.free(name)).iter().all(|device| device.fits)
    }

    /// A context that llama.cpp refuses fits nowhere.
    fn would_fit(&self, model: &Model, choice: &Choice, spec: &LoadSpec) -> bool {
        self.lay_out(model, choice, spec).is_ok_and(|laid| self.fits(&laid.report))
    }

    fn fits_with(&self, choice: &Choice, spec: &LoadSpec) -> Result<bool, LoadError> {
        Ok(self.would_fit(&self.model(choice)?, choice, spec))
    }

    fn alternatives(
        &self,
        model: &Model,
        choice: &Choice,
        spec: &LoadSpec,
        n_ctx: u32,
        gpu_layers: u32,
    ) -> Result<Vec<Alternative>, LoadError> {
        let mut found = Vec::new();
        let with_context = |n| LoadSpec { context_tokens: Some(n), ..spec.clone() };
        let context = largest(CONTEXT_STEP, n_ctx, CONTEXT_STEP, |n| {
            Ok::<_, LoadError>(self.would_fit(model, choice, &with_context(n)))
        })?;
        if let Some(n) = context {
            found.push(Alternative { text: format!("fits at ctx {}k", n / 1024), options: format!("--ctx-size {n}") });
        }
        let mut smaller = spec.clone();
        (smaller.serve.cache_type_k, smaller.serve.cache_type_v) = (CacheType::Q8_0, CacheType::Q8_0);
        smaller.serve.flash_attention = FlashAttention::On;
        if spec.serve.cache_type_k == CacheType::F16 && self.would_fit(model, choice, &smaller) {
            found.push(Alternative {
                text: "fits with KV q8_0".into(),
                options: "--cache-type-k q8_0 --cache-type-v q8_0 --flash-attn on".into(),
            });
        }
        let total = model.n_layer_all();
        if gpu_layers > 0
            && let Ok((n, _)) = self.most_layers(choice, spec)
            && n > 0
            && self.fits_with(&Choice { layers: GpuLayers::Count(n), ..choice.clone() }, spec)?
        {
            found.push(Alternative {
                text: format!("fits with {} of {total} layers", n.saturating_sub(1).min(total)),
                options: format!("--gpu-layers {n}"),
            });
        }
        Ok(found)
    }

    fn is_gpu(&self, name: &str) -> bool {
        self.inventory.devices.iter().any(|device| device.name == name && device.is_gpu())
    }

    fn free(&self, name: &str) -> u64 {
        let gpu = self.inventory.devices.iter().find(|device| device.name == name && device.is_gpu());
        gpu.map_or(self.cpu_free, |device| device.memory_free_mb << 20)
    }
}
