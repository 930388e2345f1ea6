//! Optimal transport: costs, masses and settings of every solver.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sandhi_align::fuzz::transport(data));
