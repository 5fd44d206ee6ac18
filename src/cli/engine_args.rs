//! Options of how a loaded model serves many requests at once.

use clap::{Args, ValueEnum};

use crate::runner::{CacheType, FlashAttention, ServeSpec};

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Serving")]
pub(super) struct EngineArgs {
    /// Requests that run at the same time [default: by context and memory, at least 8].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: Option<u32>,
    /// Most tokens of one request, prompt and answer together [default: the whole KV cache, within the training context].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    ctx_per_request: Option<u32>,
    /// Requests that may wait for their turn; more are refused at once.
    #[arg(long, global = true, default_value_t = 64, value_name = "N")]
    queue: usize,
    /// The same request gives the same tokens whatever else runs. Requests then share neither passes nor cache.
    #[arg(long, global = true)]
    deterministic: bool,
    /// Guess up to N tokens ahead from the text so far; the model verifies each. Pays off where answers repeat prompts.
    #[arg(long, global = true, default_value_t = 0, value_name = "N", value_parser = lookup)]
    lookup: usize,
    /// Number format of the keys in the KV cache.
    #[arg(long, global = true, default_value = "f16", value_name = "TYPE")]
    cache_type_k: CacheTypeArg,
    /// Number format of the values in the KV cache. Other than f16 needs flash attention.
    #[arg(long, global = true, default_value = "f16", value_name = "TYPE")]
    cache_type_v: CacheTypeArg,
    /// Flash attention.
    #[arg(long, global = true, default_value = "auto", value_name = "WHEN")]
    flash_attn: FlashAttentionArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CacheTypeArg {
    F16,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q4_0")]
    Q4_0,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FlashAttentionArg {
    Auto,
    On,
    Off,
}

/// A pass must hold the guesses of all sequences.
fn lookup(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 0..=32) => Ok(n),
        _ => Err("it must be a number from 0 to 32".into()),
    }
}

impl From<CacheTypeArg> for CacheType {
    fn from(arg: CacheTypeArg) -> Self {
        match arg {
            CacheTypeArg::F16 => Self::F16,
            CacheTypeArg::Q8_0 => Self::Q8_0,
            CacheTypeArg::Q4_0 => Self::Q4_0,
        }
    }
}

impl EngineArgs {
    pub fn spec(&self) -> ServeSpec {
        ServeSpec {
            parallel: self.parallel,
            sequence_tokens: self.ctx_per_request,
            needed_tokens: None,
            queue: self.queue,
            deterministic: self.deterministic,
            lookup: self.lookup,
            cache_type_k: self.cache_type_k.into(),
            cache_type_v: self.cache_type_v.into(),
            flash_attention: match self.flash_attn {
                FlashAttentionArg::Auto => FlashAttention::Auto,
                FlashAttentionArg::On => FlashAttention::On,
                FlashAttentionArg::Off => FlashAttention::Off,
            },
        }
    }
}
