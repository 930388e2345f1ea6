//! Published checkpoints: `config.json` and the index of shards.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sandhi_lab::fuzz::checkpoint(data));
