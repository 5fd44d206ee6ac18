//! Options of how a loaded model serves many requests at once.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::said::Said;
use crate::config::{CACHE_TYPES, FLASH_ATTENTION, LoadSettings};
use crate::runner::{CacheType, FlashAttention};

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Serving")]
pub(super) struct EngineArgs {
    /// Requests that run at the same time [default: by context and memory, at least 8].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: Option<u32>,
    /// Most tokens of one request, prompt and answer together [default: the whole KV cache, within the training context].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    ctx_per_request: Option<u32>,
    /// Requests that may wait for their turn; more are refused at once [default: 64].
    #[arg(long, global = true, value_name = "N")]
    queue: Option<usize>,
    /// The same request gives the same tokens whatever else runs. Requests then share neither passes nor cache.
    #[arg(long, global = true, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    deterministic: Option<bool>,
    /// Guess up to N tokens ahead from the text so far; the model verifies each. Pays off where answers repeat prompts
    /// [default: 0].
    #[arg(long, global = true, value_name = "N", value_parser = lookup)]
    lookup: Option<usize>,
    /// A small model with the same vocabulary that guesses ahead; the model verifies each token.
    #[arg(long, global = true, value_name = "NAME|PATH")]
    draft_model: Option<String>,
    /// Most tokens that the draft model guesses at a time [default: 8].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=32))]
    draft_tokens: Option<u8>,
    /// A projector, for models that look at images, or "none" [default: the one that lies beside the model].
    #[arg(long, global = true, value_name = "PATH")]
    mmproj: Option<String>,
    /// Number format of the keys in the KV cache [default: f16].
    #[arg(long, global = true, value_name = "TYPE", value_parser = choice(CACHE_TYPES))]
    cache_type_k: Option<CacheType>,
    /// Number format of the values in the KV cache. Other than f16 needs flash attention [default: f16].
    #[arg(long, global = true, value_name = "TYPE", value_parser = choice(CACHE_TYPES))]
    cache_type_v: Option<CacheType>,
    /// Flash attention [default: auto].
    #[arg(long, global = true, value_name = "WHEN", value_parser = choice(FLASH_ATTENTION))]
    flash_attn: Option<FlashAttention>,
}

/// One of some words.
fn choice<T: Copy + Send + Sync + 'static>(all: &'static [(&'static str, T)]) -> impl TypedValueParser<Value = T> {
    let names = PossibleValuesParser::new(all.iter().map(|(name, _)| *name));
    names.try_map(|chosen| all.iter().find(|(name, _)| *name == chosen).map(|(_, value)| *value).ok_or("no such word"))
}

/// A pass must hold the guesses of all sequences.
fn lookup(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 0..=32) => Ok(n),
        _ => Err("it must be a number from 0 to 32".into()),
    }
}

impl EngineArgs {
    pub fn settings(&self, said: &Said<'_>) -> LoadSettings {
        LoadSettings {
            parallel: said.set("parallel", self.parallel),
            ctx_per_request: said.set("ctx_per_request", self.ctx_per_request),
            queue: said.set("queue", self.queue),
            deterministic: said.set("deterministic", self.deterministic),
            lookup: said.set("lookup", self.lookup),
            draft_model: said.set("draft_model", self.draft_model.clone()),
            draft_tokens: said.set("draft_tokens", self.draft_tokens.map(usize::from)),
            mmproj: said.set("mmproj", self.mmproj.clone()),
            cache_type_k: said.set("cache_type_k", self.cache_type_k),
            cache_type_v: said.set("cache_type_v", self.cache_type_v),
            flash_attn: said.set("flash_attn", self.flash_attn),
            ..LoadSettings::default()
        }
    }
}
