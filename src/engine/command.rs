//! What the engine's thread is told.

use super::request::Request;

#[derive(Debug)]
pub(super) enum Command {
    Generate(Request),
    /// Runs between two requests, with the context in hand: for measurements and probes.
    Run(Job),
}

/// Work that needs the context itself.
pub(super) struct Job(pub Box<dyn FnOnce(&mut crate::llama::Context) + Send>);

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}
