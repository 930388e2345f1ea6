//! Files of units: JSON lines and the binary format.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sandhi_data::fuzz::units(data));
