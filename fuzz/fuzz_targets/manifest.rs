//! Manifests: JSON lines of all dialects, Kaldi tables, Sphinx transcripts.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sandhi_data::fuzz::manifest(data));
