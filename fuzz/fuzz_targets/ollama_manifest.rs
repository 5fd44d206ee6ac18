//! See `ollama_manifest` in `src/lib.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shimmy_fuzz::ollama_manifest(bytes));
