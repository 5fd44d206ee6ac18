//! A context neither moves to another thread nor is shared with one.
//~ error[E0277]: `NonNull<llama_sys::llama_context>` cannot be sent between threads safely
//~ error[E0277]: `NonNull<llama_sys::llama_context>` cannot be shared between threads safely

use shimmy::llama::Context;

fn moved(context: Context) {
    std::thread::spawn(move || drop(context));
}

fn shared(context: &Context) {
    std::thread::scope(|scope| {
        scope.spawn(|| context.n_ctx());
    });
}

fn main() {}
