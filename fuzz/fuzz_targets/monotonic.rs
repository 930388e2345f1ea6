//! Monotonic alignment: scores of frames and tokens.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sandhi_align::fuzz::monotonic(data));
