//! See `model_name` in `src/targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: shimmy_fuzz::write_seeds("model_name"), |bytes: &[u8]| shimmy_fuzz::model_name(bytes));
