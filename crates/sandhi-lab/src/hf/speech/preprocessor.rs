//! `preprocessor_config.json`: which features an encoder hears.
//!
//! Newer checkpoints have it as `feature_extractor` of `processor_config.json`. Without either, features are as the
//! families' own code has them by default: log-mel of `num_mel_bins` for Whisper, normalized samples for the others.

use std::path::Path;

use sandhi_data::features::{
    FEATURE_SAMPLE_RATE_HZ, FeatureConfig, FeatureExtractor, WaveformConfig, WhisperConfig,
};
use sandhi_nn::encoder::EncoderConfig;
use serde_json::{Map, Value};

use super::{
    super::{Error, config::Fields, read_json},
    SpeechEncoderConfig,
};

const OWN: &str = "preprocessor_config.json";
const SHARED: &str = "processor_config.json";

/// The features of an encoder as the families' own code has them by default. Utterances keep their length; Whisper's
/// authors pad to 30 s.
pub(super) fn family(config: &SpeechEncoderConfig) -> FeatureConfig {
    match config.encoder {
        EncoderConfig::Wav2vec2(_) => FeatureConfig::Waveform(WaveformConfig { normalize: true }),
        EncoderConfig::Whisper(_) | EncoderConfig::Conformer(_) => {
            FeatureConfig::Whisper(WhisperConfig { n_mels: config.n_mels, pad_to_30_s: false })
        }
    }
}

/// The features of an encoder; `dir` is where its `config.json` lies.
pub(super) fn features(dir: &Path, config: &SpeechEncoderConfig) -> Result<FeatureConfig, Error> {
    let own = dir.join(OWN);
    let shared = dir.join(SHARED);
    let (path, value) = if own.exists() {
        (&own, read_json(&own)?)
    } else if shared.exists() {
        let mut value = read_json(&shared)?;
        let inner = value.get_mut("feature_extractor").map(Value::take);
        (&shared, inner.unwrap_or_else(|| Value::Object(Map::new())))
    } else {
        (&own, Value::Object(Map::new()))
    };
    let fields = Fields::new(path, &value)?;
    let fixed = |name: &str, expected: usize| match fields.optional_size(name)? {
        Some(found) if found != expected => {
            Err(fields.error(format_args!("{name} is {found}, expected {expected}")))
        }
        _ => Ok(()),
    };
    fixed("sampling_rate", FEATURE_SAMPLE_RATE_HZ as usize)?;
    fixed("feature_size", config.n_mels)?;
    let mut features = family(config);
    match &mut features {
        FeatureConfig::Waveform(waveform) => {
            if let Some(normalize) = fields.optional_flag("do_normalize")? {
                waveform.normalize = normalize;
            }
        }
        FeatureConfig::Whisper(_) | FeatureConfig::Fbank(_) => {
            fixed("n_fft", 400)?;
            fixed("hop_length", 160)?;
        }
    }
    FeatureExtractor::new(&features).map_err(|error| fields.error(error))?;
    Ok(features)
}
