//! Nobody but the last owner frees a model, and an adapter is an owner: the pointer that could be freed is private.
//~ error[E0624]: method `raw` is private

use shimmy::llama::{Adapter, Model};

fn misuse(model: Model, path: &std::path::Path) -> Adapter {
    let adapter = Adapter::load(&model, path).unwrap();
    free(model.raw());
    adapter
}

fn free<T>(_: *mut T) {}

fn main() {}
