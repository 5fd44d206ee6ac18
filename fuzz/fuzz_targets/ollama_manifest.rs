//! See `ollama_manifest` in `src/targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: shimmy_fuzz::write_seeds("ollama_manifest"), |bytes: &[u8]| shimmy_fuzz::ollama_manifest(bytes));
