//! Models of ours out of published directories: what a base is before its weights are read, and the base itself.
//!
//! ```text
//! directory ─┬─ check_speech, check_text     config, file names and sizes, tokenizer: all that can be wrong
//!            └─ speech_model, text_model     the same with weights, and where they were published
//! ```

use std::path::Path;

use burn::prelude::*;
use sandhi_data::{
    features::{FeatureConfig, WhisperConfig},
    text::Tokenizer,
};
use sandhi_nn::weights::WeightType;

use super::{
    Error, LanguageModel, LanguageModelConfig, Located, PublishedCtcHead, Shards, SpeechEncoder,
    SpeechEncoderConfig, load_adapter, prompt, read_json, speech,
};
use crate::{
    chat::Chat,
    model::{Origin, Recognizer, SpeechModel, TextModel, fingerprint},
    recipe::{PublishedEncoder, PublishedLanguageModel},
};

/// What the language model of a directory is, with all that is wrong with it and can be known before its weights
/// are read.
///
/// # Errors
///
/// See [`Error`].
pub fn check_text(
    dir: &Path,
    config: &PublishedLanguageModel,
) -> Result<LanguageModelConfig, Error> {
    let path = dir.join("config.json");
    let found = LanguageModelConfig::read(&path, &read_json(&path)?)?;
    Shards::open(dir)?;
    let tokenizer = Tokenizer::load(&dir.join("tokenizer.json"))?;
    prompt::layout(dir, &tokenizer, config, &found.end, found.n_tokens)?;
    Ok(found)
}

/// What the speech encoder of a directory is and hears, as [`check_text`].
///
/// # Errors
///
/// See [`Error`].
pub fn check_speech(
    dir: &Path,
    config: &PublishedEncoder,
) -> Result<(SpeechEncoderConfig, FeatureConfig), Error> {
    let (found, features) = SpeechEncoderConfig::of_directory(dir, config.layer)?;
    Shards::open(dir)?;
    Ok((found, padded(features, config.pad_to_30_s, dir)?))
}

/// What an encoder is and hears of which nothing but its `config.json` is here; `name` is for messages.
pub(crate) fn known_speech(
    name: &str,
    value: &serde_json::Value,
    config: &PublishedEncoder,
) -> Result<(SpeechEncoderConfig, FeatureConfig), Error> {
    let path = Path::new(name);
    let (found, features) = SpeechEncoderConfig::known(path, value, config.layer)?;
    Ok((found, padded(features, config.pad_to_30_s, path)?))
}

/// Whisper's features over 30 s, as its authors have them, where that is asked for.
fn padded(features: FeatureConfig, pad: bool, dir: &Path) -> Result<FeatureConfig, Error> {
    match features {
        features if !pad => Ok(features),
        FeatureConfig::Whisper(config) => {
            Ok(FeatureConfig::Whisper(WhisperConfig { pad_to_30_s: true, ..config }))
        }
        _ => Err(Error::Config {
            path: dir.join("config.json"),
            message: "pad_to_30_s is for Whisper's features, this encoder hears samples".into(),
        }),
    }
}

/// Whether a directory holds a speech encoder; all others are read as language models.
pub(crate) fn is_speech(dir: &Path) -> Result<bool, Error> {
    let config = read_json(&dir.join("config.json"))?;
    let family = config.get("model_type").and_then(serde_json::Value::as_str);
    Ok(family.is_some_and(|family| speech::FAMILIES.contains(&family)))
}

/// A language model with its tokenizer and prompt layout; the branches of a PEFT `adapter` are folded into it.
///
/// # Errors
///
/// See [`Error`].
pub fn text_model(
    at: &Located,
    config: &PublishedLanguageModel,
    adapter: Option<&Path>,
    device: &Device,
) -> Result<TextModel, Error> {
    let dir = at.dir.as_path();
    let LanguageModel { config: found, lm } = LanguageModel::load(dir, device)?;
    let tokenizer = Tokenizer::load(&dir.join("tokenizer.json"))?;
    let layout = prompt::layout(dir, &tokenizer, config, &found.end, found.n_tokens)?;
    let origin = Some(Origin { path: at.name.clone(), fingerprint: fingerprint(&lm) });
    let (chat, dtype) = (Chat::new(tokenizer, layout), WeightType::F32);
    let mut model = TextModel { config: found.transformer, lm, chat, origin, dtype };
    if let Some(adapter) = adapter {
        load_adapter(&mut model.lm, adapter)?;
        model.merge_lora();
    }
    Ok(model)
}

/// A speech encoder with its front end, and its CTC head where there is one.
///
/// # Errors
///
/// See [`Error`].
pub fn speech_model(
    at: &Located,
    config: &PublishedEncoder,
    device: &Device,
) -> Result<SpeechModel, Error> {
    let dir = at.dir.as_path();
    let loaded = SpeechEncoder::load_layer(dir, config.layer, device)?;
    let features = padded(loaded.features, config.pad_to_30_s, dir)?;
    let recognizer = loaded.ctc.map(|PublishedCtcHead { config, head, symbols, .. }| Recognizer {
        config,
        symbols,
        head,
    });
    let mut model = SpeechModel::new(features, loaded.config.encoder, loaded.encoder, recognizer)?;
    let fingerprint = model.published_fingerprint();
    model.origin = Some(Origin { path: at.name.clone(), fingerprint });
    Ok(model)
}
