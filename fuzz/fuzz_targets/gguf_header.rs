//! See `gguf_header` in `src/lib.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shimmy_fuzz::gguf_header(bytes));
