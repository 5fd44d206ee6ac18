//! A view of logits borrows the context, so no decode can happen while it is held.
//~ error[E0502]: cannot borrow `*context` as mutable because it is also borrowed as immutable

use shimmy::llama::{Batch, Context};

fn misuse(context: &mut Context, batch: &mut Batch) -> f32 {
    let logits = context.logits(0).unwrap();
    context.decode(batch).unwrap();
    logits.as_slice()[0]
}

fn main() {}
