//! A view of the KV cache borrows the context mutably.
//~ error[E0499]: cannot borrow `*context` as mutable more than once at a time

use shimmy::llama::{Batch, Context};

fn misuse(context: &mut Context, batch: &mut Batch) {
    let mut kv = context.kv();
    context.decode(batch).unwrap();
    kv.clear().unwrap();
}

fn main() {}
