//! Sizes of published checkpoints that recipes name, so that a plan needs neither weights nor a network.
//!
//! The files hold what the `config.json` of their repositories says about sizes. Nothing is loaded by them: a checkpoint
//! brings its own.

use serde_json::Value;

/// Repository, and its configuration.
const KNOWN: [(&str, &str); 8] = [
    ("openai/whisper-large-v3", include_str!("known/whisper-large-v3.json")),
    ("microsoft/wavlm-large", include_str!("known/wavlm-large.json")),
    ("facebook/hubert-base-ls960", include_str!("known/hubert-base.json")),
    ("Qwen/Qwen2.5-7B", include_str!("known/qwen2.5-7b.json")),
    ("Qwen/Qwen2.5-7B-Instruct", include_str!("known/qwen2.5-7b.json")),
    ("meta-llama/Llama-3.2-1B", include_str!("known/llama-3.2-1b.json")),
    ("meta-llama/Meta-Llama-3-8B", include_str!("known/llama-3-8b.json")),
    ("meta-llama/Meta-Llama-3-8B-Instruct", include_str!("known/llama-3-8b.json")),
];

/// The configuration of a repository, if its sizes are known here.
pub(crate) fn config(repository: &str) -> Option<Value> {
    let (_, text) = KNOWN.iter().find(|(name, _)| *name == repository)?;
    Some(serde_json::from_str(text).expect("the files are JSON, a test reads them"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        hf::{LanguageModelConfig, SpeechEncoderConfig},
        plan::count,
    };

    /// The numbers that their authors give, or that follow from the layout by hand.
    #[test]
    fn parameters_are_as_many_as_published() {
        let path = Path::new("config.json");
        let speech = |name: &str| {
            let found = SpeechEncoderConfig::read(path, &config(name).unwrap()).unwrap();
            count::encoder(&found.encoder, found.n_mels).n_values()
        };
        let text = |name: &str| {
            let found = LanguageModelConfig::read(path, &config(name).unwrap()).unwrap();
            count::language_model(&found.transformer, found.n_tokens).n_values()
        };
        // Convolutions 492,800 + 4,916,480, positions 1,920,000, 32 blocks of 19,676,160, norm 2,560.
        assert_eq!(speech("openai/whisper-large-v3"), 636_968_960);
        // 315,453,120 in transformers, with a mask embedding of 1,024 and 128 gains that are folded into weights.
        assert_eq!(speech("microsoft/wavlm-large"), 315_453_120 - 1_024 - 128);
        // 94,371,712 in transformers, with a mask embedding of 768 and 128 gains. By hand: convolutions 4,199,424 and
        // their norm 1,024, projection 395,008, positions 4,719,360, norm 1,536, 12 blocks of 7,087,872.
        assert_eq!(speech("facebook/hubert-base-ls960"), 94_371_712 - 768 - 128);
        // Given as 7.61 B, of which 6.53 B are not embeddings.
        assert_eq!(text("Qwen/Qwen2.5-7B-Instruct"), 7_615_616_512);
        assert_eq!(text("meta-llama/Meta-Llama-3-8B"), 8_030_261_248);
        // Given as 1.23 B. By hand: a table of 262,668,288, 16 blocks of 60,821,504, norm 2,048.
        assert_eq!(text("meta-llama/Llama-3.2-1B"), 1_235_814_400);
        assert_eq!(config("nobody/nothing"), None);
    }
}
