//! Choice items: HellaSwag, StoryCloze, MMLU and our JSON lines.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sandhi_data::fuzz::choice(data));
