//! A context neither moves to another thread nor is shared with one.

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
