//! Recipes: TOML that becomes an experiment, or all its mistakes at once.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sandhi_lab::fuzz::recipe(data));
