//! Raw speed of a context, without the server around it: what `shimmy bench` and `probe` report.

use std::time::{Duration, Instant};

use crate::llama::{Batch, Context, LlamaError, Pos, Token};

/// Tokens of a text behind which GPUs have other programs for attention.
const BEHIND: usize = 1024;
/// Where a pass takes so long, larger ones would keep a load waiting.
const SLOW: Duration = Duration::from_millis(250);

/// Tokens per second for a prompt of `n` tokens, of which only the last asks for logits.
///
/// # Errors
/// What the decode failed with.
pub fn prompt_speed(context: &mut Context, n: usize) -> Result<f64, LlamaError> {
    context.kv().clear()?;
    let mut batch = Batch::new(context);
    let seq = context.seq(0)?;
    let tokens = filler(context, n)?;
    let start = Instant::now();
    for (index, chunk) in tokens.chunks(batch.capacity()).enumerate() {
        batch.clear();
        for (offset, token) in chunk.iter().enumerate() {
            let at = index * batch.capacity() + offset;
            batch.add(*token, Pos::new(at)?, seq, at + 1 == n)?;
        }
        context.decode(&mut batch)?;
    }
    // Some backends compute lazily; reading the result waits for it.
    context.logits(batch.len().saturating_sub(1))?;
    Ok(per_second(n, start))
}

/// Tokens per second for `n` tokens one after the other, from an empty cache.
///
/// # Errors
/// What the decode failed with.
pub fn generation_speed(context: &mut Context, n: usize) -> Result<f64, LlamaError> {
    context.kv().clear()?;
    let mut batch = Batch::new(context);
    let seq = context.seq(0)?;
    let tokens = filler(context, n)?;
    let start = Instant::now();
    for (at, token) in tokens.iter().enumerate() {
        batch.clear();
        batch.add(*token, Pos::new(at)?, seq, true)?;
        context.decode(&mut batch)?;
        context.logits(0)?;
    }
    Ok(per_second(n, start))
}

/// What passes of the `sizes` take, from the smallest on, of which as many rows ask for logits as may. A device compiles at the
/// first pass of each kind, for what lies behind a long text and for what does not, so that does not count. None on a
/// device that is slow.
///
/// # Errors
/// What a decode failed with.
pub(super) fn pass_times(
    context: &mut Context,
    sizes: &[usize],
    n_outputs: usize,
) -> Result<Vec<(usize, Duration)>, LlamaError> {
    let mut times = Vec::new();
    context.kv().clear()?;
    for rows in sizes {
        pass_time(context, 0, *rows, n_outputs)?;
        let took = pass_time(context, 0, *rows, n_outputs)?;
        times.push((*rows, took));
        if took > SLOW {
            return Ok(Vec::new());
        }
    }
    if context.n_ctx_seq() >= BEHIND + sizes.iter().copied().max().unwrap_or(0) {
        prompt_speed(context, BEHIND)?;
        for rows in sizes {
            pass_time(context, BEHIND, *rows, n_outputs)?;
        }
        context.kv().clear()?;
    }
    for (rows, best) in &mut times {
        *best = pass_time(context, 0, *rows, n_outputs)?.min(*best);
    }
    Ok(times)
}

fn pass_time(context: &mut Context, behind: usize, rows: usize, n_outputs: usize) -> Result<Duration, LlamaError> {
    let mut batch = Batch::new(context);
    let seq = context.seq(0)?;
    for (at, token) in filler(context, rows)?.into_iter().enumerate() {
        batch.add(token, Pos::new(behind + at)?, seq, rows - at <= n_outputs)?;
    }
    let start = Instant::now();
    context.decode(&mut batch)?;
    context.logits(batch.len() - 1)?;
    let took = start.elapsed();
    if context.kv().seq_rm(seq, Pos::new(behind)?).is_err() {
        // A state that cannot go back; it has no cells to look at either.
        context.kv().clear()?;
    }
    Ok(took)
}

/// Tokens spread over the vocabulary, the same each time.
fn filler(context: &Context, n: usize) -> Result<Vec<Token>, LlamaError> {
    let n_tokens = context.model().vocab()?.n_tokens();
    let mut state = 0x2545_f491_u32;
    Ok((0..n)
        .filter_map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Token::new((state >> 8) % n_tokens)
        })
        .collect())
}

fn per_second(n: usize, start: Instant) -> f64 {
    // Counts stay far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    let n = n as f64;
    n / start.elapsed().as_secs_f64()
}
