//! How a model's context is cut: cells, sequences, batches.

use crate::llama::{ContextParams, FlashAttention, KvType, Model};

use super::error::LoadError;
use super::spec::{self, CacheType, DEFAULT_CONTEXT, LoadSpec};

/// Sequences that run at the same time, by default: at least and at most.
const PARALLEL: std::ops::RangeInclusive<u32> = 8..=16;
/// Cells that each of them should find on average.
const CELLS_EACH: u32 = 512;
/// Sequence ids that llama.cpp can tell apart.
const MOST_SEQUENCES: u32 = 256;
/// Texts that are embedded in one pass.
const EMBEDDED_TOGETHER: u32 = 64;
/// Tokens in one pass. More would only make those wait longer who come during the pass.
const PASS: u32 = 512;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Cells in total.
    pub n_ctx: u32,
    /// Tokens of one sequence at most.
    pub n_ctx_seq: u32,
    pub parallel: u32,
    /// Those that run, and those that are kept for what they hold.
    pub n_seq_max: u32,
    /// Each sequence has cells of its own, and none is kept.
    pub own_cells: bool,
}

impl Layout {
    /// # Errors
    /// Sizes that contradict each other.
    pub fn new(model: &Model, spec: &LoadSpec) -> Result<Self, LoadError> {
        let trained = model.n_ctx_train().max(1);
        let n_ctx = match spec.context_tokens {
            None => trained.min(DEFAULT_CONTEXT).min(spec.serve.needed_tokens.unwrap_or(u32::MAX).max(1)),
            Some(0) => return Err(LoadError::Failed("--ctx-size 0: it must be at least 1".into())),
            Some(n) => n,
        };
        let layout = Self::cut(n_ctx, trained, model.is_recurrent(), !model.shares_parts(), &spec.serve);
        // Positions that the model has no vector for cannot be computed at all.
        let positions = model.learned_positions().and_then(|n| u32::try_from(n).ok()).unwrap_or(u32::MAX);
        Ok(Self { n_ctx_seq: layout.n_ctx_seq.min(positions), ..layout })
    }

    fn cut(n_ctx: u32, trained: u32, recurrent: bool, apart: bool, serve: &spec::ServeSpec) -> Self {
        let own_cells = apart || serve.deterministic;
        // A recurrent model has a whole state for each sequence, so there are as few as may be.
        let most = if recurrent { *PARALLEL.start() } else { *PARALLEL.end() };
        let chosen = (n_ctx / CELLS_EACH).clamp(*PARALLEL.start(), most);
        let parallel = serve.parallel.unwrap_or(if own_cells { 4 } else { chosen });
        let n_seq_max = if own_cells { parallel } else { (2 * parallel).min(MOST_SEQUENCES) };
        let share = if own_cells { n_ctx / parallel } else { n_ctx };
        // Whoever asks for a long sequence gets it, and the warning.
        let n_ctx_seq = serve.sequence_tokens.unwrap_or(if share > trained { share } else { trained.min(share) });
        Self { n_ctx, n_ctx_seq: n_ctx_seq.min(share).max(1), parallel, n_seq_max, own_cells }
    }

    pub fn context(&self, threads: u32, spec: &LoadSpec) -> ContextParams {
        ContextParams {
            n_ctx: self.n_ctx,
            n_batch: PASS,
            n_ubatch: PASS,
            n_seq_max: self.n_seq_max,
            n_outputs_max: self.n_seq_max,
            n_threads: threads,
            n_threads_batch: threads,
            flash_attention: match spec.serve.flash_attention {
                spec::FlashAttention::Auto => FlashAttention::Auto,
                spec::FlashAttention::On => FlashAttention::On,
                spec::FlashAttention::Off => FlashAttention::Off,
            },
            kv_type_k: kv_type(spec.serve.cache_type_k),
            kv_type_v: kv_type(spec.serve.cache_type_v),
            kv_unified: !self.own_cells,
            ..ContextParams::default()
        }
    }
}

impl Layout {
    /// A context for embeddings: as many tokens at once as a text may have.
    pub fn embedding(&self, threads: u32, spec: &LoadSpec) -> ContextParams {
        ContextParams {
            n_batch: self.n_ctx_seq,
            n_ubatch: self.n_ctx_seq,
            n_ctx: self.n_ctx_seq,
            n_seq_max: EMBEDDED_TOGETHER,
            n_outputs_max: 0,
            embeddings: true,
            // Nothing is kept from one pass to the next, so a cache in another format saves nothing.
            kv_type_k: KvType::F16,
            kv_type_v: KvType::F16,
            kv_unified: true,
            ..self.context(threads, spec)
        }
    }
}

fn kv_type(cache: CacheType) -> KvType {
    match cache {
        CacheType::F16 => KvType::F16,
        CacheType::Q8_0 => KvType::Q8_0,
        CacheType::Q4_0 => KvType::Q4_0,
    }
}

#[cfg(test)]
mod tests {
    use super::Layout;
    use crate::runner::ServeSpec;

    #[test]
    fn sequences_follow_the_context() {
        let serve = ServeSpec::default();
        let parallel = |n_ctx| Layout::cut(n_ctx, 8192, false, false, &serve).parallel;
        assert_eq!([parallel(512), parallel(5120), parallel(65_536)], [8, 10, 16]);
        assert_eq!(Layout::cut(65_536, 8192, true, false, &serve).parallel, 8);
    }

    #[test]
    fn a_request_keeps_to_its_share() {
        let asked = |serve: &ServeSpec| Layout::cut(4096, 8192, false, false, serve).n_ctx_seq;
        assert_eq!(asked(&ServeSpec::default()), 4096);
        assert_eq!(asked(&ServeSpec { sequence_tokens: Some(1000), ..ServeSpec::default() }), 1000);
        assert_eq!(asked(&ServeSpec { sequence_tokens: Some(9000), ..ServeSpec::default() }), 4096);
        assert_eq!(asked(&ServeSpec { deterministic: true, ..ServeSpec::default() }), 1024);
        assert_eq!(Layout::cut(4096, 8192, false, true, &ServeSpec::default()).n_ctx_seq, 1024);
    }
}
