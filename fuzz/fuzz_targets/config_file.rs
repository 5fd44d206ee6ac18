//! See `config_file` in `src/lib.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shimmy_fuzz::config_file(bytes));
