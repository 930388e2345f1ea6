//! Bodies of the fuzz targets in `fuzz/` that read text of this crate: plain functions over bytes that must
//! neither panic nor hang.

use std::path::{Path, PathBuf};

use crate::{
    hf::{Hub, LanguageModelConfig, ShardIndex, SpeechEncoderConfig},
    plan::plan,
    recipe::{self, AlignerModelConfig, ModelConfig, Overrides, Recipe, SourceConfig, UnitsConfig},
};

/// Reads bytes as a recipe, and plans it where that opens no file.
///
/// # Panics
///
/// When a recipe that was accepted is not the same after being written to a run's folder and read again.
pub fn recipe(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(found) = recipe::read_str(&text, Path::new("fuzz.toml"), &Overrides::default()) else {
        return;
    };
    let written = serde_json::to_string(&found).expect("a recipe is plain data");
    let again: Recipe = serde_json::from_str(&written).expect("what was accepted is read again");
    assert_eq!(again, found);
    let named =
        |config: &AlignerModelConfig| matches!(config.units, Some(UnitsConfig::File { .. }));
    let opens_files = match &found.model {
        ModelConfig::Connector(_) => true,
        ModelConfig::Aligner(config) => named(config),
        ModelConfig::SpeechText(_) | ModelConfig::Vocoder(_) => true,
        ModelConfig::Text(_) | ModelConfig::Ctc(_) => false,
    } || found
        .eval
        .as_ref()
        .is_some_and(|eval| eval.manifest.is_some() || eval.choices.is_some())
        || found
            .stages
            .iter()
            .flat_map(|stage| &stage.sources)
            .any(|source| matches!(source, SourceConfig::Manifest(_) | SourceConfig::Text(_)));
    if !opens_files {
        // Either answer will do.
        let _ = plan(&found, Path::new("."), &Hub::offline(PathBuf::new()));
    }
}

/// Reads bytes as the `config.json` of a language model or of a speech encoder, or as an index of shards; the
/// first byte chooses.
///
/// # Panics
///
/// When what was accepted cannot be: sizes of nothing, or a file outside of the directory.
pub fn checkpoint(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let Ok(value) = serde_json::from_slice(data) else { return };
    let path = Path::new("fuzz.json");
    match choice % 3 {
        0 => {
            if let Ok(config) = LanguageModelConfig::read(path, &value) {
                let transformer = config.transformer;
                assert!(transformer.problems().is_empty() && transformer.rope_theta > 0.0);
            }
        }
        1 => {
            if let Ok(config) = SpeechEncoderConfig::read(path, &value) {
                assert!(config.encoder.problems().is_empty());
            }
        }
        _ => {
            if let Ok(index) = ShardIndex::read(path, value) {
                for file in index.files() {
                    assert!(
                        !file.contains(['/', '\0']) && file != ".." && !file.is_empty(),
                        "{file:?}"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sandhi_data::fuzz::run;

    use super::*;

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
    }

    #[test]
    fn mutated_recipes_neither_panic_nor_hang() {
        let names = [
            "smoke/encoder",
            "smoke/language_model",
            "smoke/slm",
            "smoke/wav2vec2_encoder",
            "smoke/whisper_encoder",
        ];
        let seeds: Vec<Vec<u8>> = names
            .iter()
            .map(|name| std::fs::read(root().join(format!("recipes/{name}.toml"))).unwrap())
            .collect();
        for seed in &seeds {
            let text = String::from_utf8_lossy(seed);
            recipe::read_str(&text, Path::new("seed.toml"), &Overrides::default()).unwrap();
        }
        run(1_500, &seeds, recipe);
    }

    #[test]
    fn mutated_configurations_and_indices_neither_panic_nor_hang() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let files = [
            (0, "language_models/llama3/config.json"),
            (0, "language_models/smollm3/config.json"),
            (0, "language_models/mistral/config.json"),
            (1, "speech_encoders/whisper/config.json"),
            (1, "speech_encoders/wavlm_large/config.json"),
            (2, "language_models/qwen3/model.safetensors.index.json"),
        ];
        let seeds: Vec<Vec<u8>> = files
            .iter()
            .map(|(choice, file)| {
                [vec![*choice], std::fs::read(golden.join(file)).unwrap()].concat()
            })
            .collect();
        run(20_000, &seeds, checkpoint);
    }
}
