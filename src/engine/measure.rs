//! Raw speed of a context, without the server around it: what `shimmy bench` and `probe` report.

use std::time::{Duration, Instant};

use crate::llama::{Batch, Context, LlamaError, Pos, Token};

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

/// What a pass of `rows` takes, of which as many ask for logits as may.
///
/// # Errors
/// What the decode failed with.
pub(super) fn pass_time(context: &mut Context, rows: usize, n_outputs: usize) -> Result<Duration, LlamaError> {
    let mut batch = Batch::new(context);
    let seq = context.seq(0)?;
    for (at, token) in filler(context, rows)?.into_iter().enumerate() {
        batch.add(token, Pos::new(at)?, seq, rows - at <= n_outputs)?;
    }
    let start = Instant::now();
    context.decode(&mut batch)?;
    context.logits(batch.len() - 1)?;
    let took = start.elapsed();
    context.kv().clear()?;
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
