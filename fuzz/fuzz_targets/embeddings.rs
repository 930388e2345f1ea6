//! Optimal transport: costs of embeddings in ragged batches, and gradients back to them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sandhi_align::fuzz::embeddings(data));
