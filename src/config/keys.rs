//! All settings. A key of the file is the command line's option with `_` for `-`.

use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use super::kinds::{
    Adapter, ApiKey, Kind, Misfit, adapter, api_key, layers, log_filter, many, number, parsed, path, switch, text,
    whole, word,
};
use super::setting::{Entry, Origin, Section, Set, settings, value, words};
use crate::library::pull::Allowed;
use crate::placement::{CpuExperts, GpuBackend, GpuLayers, PlacementSpec, SplitMode};
use crate::registry::{KeepAlive, MemoryBudget};
use crate::runner::{CacheType, FlashAttention, GenerateDefaults, Sampling, ServeSpec};

pub const CACHE_TYPES: &[(&str, CacheType)] =
    &[("f16", CacheType::F16), ("q8_0", CacheType::Q8_0), ("q4_0", CacheType::Q4_0)];

pub const FLASH_ATTENTION: &[(&str, FlashAttention)] =
    &[("auto", FlashAttention::Auto), ("on", FlashAttention::On), ("off", FlashAttention::Off)];

/// The value of `draft_model` and `mmproj` that takes back what was set for all models, or found.
pub const NONE: &str = "none";

const MOST: i64 = u32::MAX as i64;

settings! {
    /// What the server is told. These stand at the top of the file.
    ServerSettings {
        bind: String = text("an address and port like \"127.0.0.1:11435\", or \"auto\""),
            value("\"auto\"");
        /// Loaded before the server serves.
        model: String = text("a model's name or the path of a GGUF file"), words("none is loaded before it is asked for");
        /// Seconds.
        drain: u64 = whole(0, MOST), value("30");
        model_dirs: Vec<PathBuf> = many(path()), value("[]");
        memory_budget: MemoryBudget = parsed("an amount of memory: \"12GiB\", \"80%\" or \"CUDA0=20GiB,CPU=50%\""),
            words("what is free");
        api_key: Vec<ApiKey> = many(api_key()), words("none");
        /// As `shimmy key` writes it.
        api_key_file: PathBuf = path(), words("`keys` beside the default config file, where it is");
        allow_host: Vec<String> = many(text("a name like \"example.com\", \"*.example.com\" or \"*\"")), value("[]");
        allow_origin: Vec<String> = many(text("an origin like \"https://app.example.com\" or \"*\"")), value("[]");
        insecure: bool = switch(), value("false");
        /// What clients may have the server fetch.
        pull: Allowed = word(&Allowed::ALL), value("\"known\"");
        log: String = log_filter(), words("warnings, and what shimmy does itself");
    }
}

settings! {
    /// How models are loaded and run: at the top of the file for all, in a model's section for one.
    LoadSettings {
        /// Tokens.
        ctx_size: u32 = whole(1, MOST), words("what the model was trained for, at most 8192 tokens");
        parallel: u32 = whole(1, 256), words("by context and memory, at least 8");
        /// Tokens.
        ctx_per_request: u32 = whole(1, MOST), words("the whole KV cache, within the training context");
        queue: usize = whole(0, MOST), value("64");
        keep_alive: KeepAlive = parsed("a number of seconds, a time like \"5m\" or \"1h30m\", or \"forever\""),
            value("\"forever\"");
        threads: u32 = whole(1, 1024), words("physical cores, fewer while other programs need them");
        template: String = text("a built-in name, a file, or the template itself"), words("the model's own");
        deterministic: bool = switch(), value("false");
        /// Tokens.
        lookup: usize = whole(0, 32), value("0");
        /// Another model, small and with the same vocabulary, that guesses ahead.
        draft_model: String = text("a model's name, the path of a GGUF file, or \"none\""), value("\"none\"");
        /// Tokens.
        draft_tokens: usize = whole(1, 32), value("8");
        /// What turns images into what the model reads.
        mmproj: String = text("the path of a projector's GGUF file, or \"none\""), words("the one that lies beside the model");
        cache_type_k: CacheType = word(CACHE_TYPES), value("\"f16\"");
        cache_type_v: CacheType = word(CACHE_TYPES), value("\"f16\"");
        flash_attn: FlashAttention = word(FLASH_ATTENTION), value("\"auto\"");
        gpu_backend: GpuBackend = word(&GpuBackend::ALL), value("\"auto\"");
        device: Vec<String> = many(text("a device as `shimmy gpu-info` names it, e.g. \"CUDA0\"")),
            words("all of the backend");
        gpu_layers: GpuLayers = layers(), words("all where a GPU is asked for, else as many as fit");
        split_mode: SplitMode = word(&SplitMode::ALL), value("\"layer\"");
        tensor_split: Vec<f32> = many(number(0.0, 1e6)), words("by free memory");
        main_gpu: u32 = whole(0, 1023), words("the first");
        cpu_moe: bool = switch(), value("false");
        n_cpu_moe: u32 = whole(0, MOST), words("none");
    }
}

settings! {
    /// What a request that says nothing else gets. `[sampling]` for all models, `[models.NAME.sampling]` for one.
    SamplingSettings {
        temperature: f32 = number(0.0, 100.0), value("0.8");
        top_k: u32 = whole(0, MOST), value("40");
        top_p: f32 = number(0.0, 1.0), value("0.95");
        min_p: f32 = number(0.0, 1.0), value("0.05");
        typical_p: f32 = number(0.0, 1.0), value("1.0");
        repeat_last_n: u32 = whole(0, MOST), value("64");
        repeat_penalty: f32 = number(0.01, 100.0), value("1.0");
        frequency_penalty: f32 = number(-100.0, 100.0), value("0.0");
        presence_penalty: f32 = number(-100.0, 100.0), value("0.0");
        seed: u32 = whole(0, MOST), words("another one for each request");
        max_tokens: u32 = whole(1, MOST), words("to the end of the context");
        stop: Vec<String> = many(text("a text that ends the answer")), value("[]");
        /// Put in front of conversations that have no system turn.
        system: String = text("instructions for the model"), words("none");
    }
}

settings! {
    /// What a model's section says beside how it is loaded.
    ModelSettings {
        path: PathBuf = path(), words("the model that was found under this name");
        source: String = super::source::source(), words("none");
        base: String = text("another model's name"), words("none");
        alias: Vec<String> = many(super::source::name()), value("[]");
        adapters: Vec<Adapter> = many(adapter()), value("[]");
    }
}

/// Other names that settings go by.
pub(super) const SYNONYMS: &[(&str, &str)] =
    &[("context", "ctx_size"), ("lora", "adapters"), ("aliases", "alias"), ("ngl", "gpu_layers")];

impl LoadSettings {
    /// As [`LoadSettings::over`], but settings that speak of the same thing give way together: what is said of experts,
    /// and what only makes sense on a GPU where the CPU is chosen over it.
    #[must_use]
    pub fn override_with(mut self, upper: Self) -> Self {
        if upper.cpu_moe.is_some() || upper.n_cpu_moe.is_some() {
            (self.cpu_moe, self.n_cpu_moe) = (None, None);
        }
        if upper.gpu_backend.as_ref().is_some_and(|set| set.value == GpuBackend::Cpu) {
            (self.device, self.gpu_layers, self.split_mode, self.tensor_split, self.main_gpu) = <_>::default();
        }
        upper.over(self)
    }

    #[must_use]
    pub fn placement(&self) -> PlacementSpec {
        let defaults = PlacementSpec::default();
        PlacementSpec {
            gpu_backend: get(&self.gpu_backend).unwrap_or_default(),
            devices: get(&self.device).unwrap_or_default(),
            gpu_layers: get(&self.gpu_layers),
            split_mode: get(&self.split_mode).unwrap_or_default(),
            tensor_split: get(&self.tensor_split).unwrap_or_default(),
            main_gpu: get(&self.main_gpu),
            cpu_experts: match (get(&self.cpu_moe), get(&self.n_cpu_moe)) {
                (Some(true), _) => CpuExperts::All,
                (_, Some(n)) => CpuExperts::First(n),
                _ => defaults.cpu_experts,
            },
        }
    }

    #[must_use]
    pub fn serve(&self) -> ServeSpec {
        let defaults = ServeSpec::default();
        ServeSpec {
            parallel: get(&self.parallel),
            sequence_tokens: get(&self.ctx_per_request),
            needed_tokens: None,
            queue: get(&self.queue).unwrap_or(defaults.queue),
            deterministic: get(&self.deterministic).unwrap_or(defaults.deterministic),
            lookup: get(&self.lookup).unwrap_or(defaults.lookup),
            draft_tokens: get(&self.draft_tokens).unwrap_or(defaults.draft_tokens),
            cache_type_k: get(&self.cache_type_k).unwrap_or(defaults.cache_type_k),
            cache_type_v: get(&self.cache_type_v).unwrap_or(defaults.cache_type_v),
            flash_attention: get(&self.flash_attn).unwrap_or(defaults.flash_attention),
        }
    }
}

impl SamplingSettings {
    #[must_use]
    pub fn defaults(&self) -> GenerateDefaults {
        GenerateDefaults {
            sampling: Sampling {
                temperature: get(&self.temperature),
                top_k: get(&self.top_k),
                top_p: get(&self.top_p),
                min_p: get(&self.min_p),
                typical_p: get(&self.typical_p),
                repeat_last_n: get(&self.repeat_last_n),
                repeat_penalty: get(&self.repeat_penalty),
                frequency_penalty: get(&self.frequency_penalty),
                presence_penalty: get(&self.presence_penalty),
                seed: get(&self.seed),
                ..Sampling::default()
            },
            max_tokens: get(&self.max_tokens),
            stop: get(&self.stop).unwrap_or_default(),
            system: get(&self.system),
            messages: Vec::new(),
        }
    }
}

pub(super) fn get<T: Clone>(setting: &Option<Set<T>>) -> Option<T> {
    setting.as_ref().map(|set| set.value.clone())
}
