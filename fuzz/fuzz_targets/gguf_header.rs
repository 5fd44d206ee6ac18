//! See `gguf_header` in `src/targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: shimmy_fuzz::write_seeds("gguf_header"), |bytes: &[u8]| shimmy_fuzz::gguf_header(bytes));
