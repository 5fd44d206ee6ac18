//! See `model_name` in `src/lib.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shimmy_fuzz::model_name(bytes));
