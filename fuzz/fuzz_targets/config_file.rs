//! See `config_file` in `src/targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: shimmy_fuzz::write_seeds("config_file"), |bytes: &[u8]| shimmy_fuzz::config_file(bytes));
