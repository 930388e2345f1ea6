//! Sound files: container, codec, mixing, resampling.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sandhi_data::fuzz::decode(data));
