//! The targets of `cargo fuzz`, and the files that each starts from.

use std::path::Path;

mod targets;

pub use targets::*;

/// Writes what a target starts from to where `cargo fuzz` looks for it next.
pub fn write_seeds(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of the list");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    std::fs::create_dir_all(&folder).expect("a folder for the corpus");
    for (number, seed) in (target.seeds)().iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number}")), seed).expect("a file of the corpus");
    }
}
