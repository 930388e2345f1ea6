//! Forced alignment: log-probabilities, and targets of tokens, optional units and stars.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sandhi_align::fuzz::ctc(data));
