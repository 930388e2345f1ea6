//! The samples themselves, as the encoders of the wav2vec 2.0 family hear them.
//!
//! ```text
//! samples   x0 x1 x2 ...            16 kHz
//! frames    [x0] [x1] [x2] ...      one value wide; with `normalize`, (x - mean) / sqrt(variance + 1e-7)
//! ```
//!
//! Mean and variance are those of the utterance, as in `transformers`' `Wav2Vec2FeatureExtractor`.

use serde::{Deserialize, Serialize};

use super::{Error, Features};

/// Added to the variance.
const EPS: f64 = 1e-7;

/// `kind = "waveform"` in a recipe's feature table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WaveformConfig {
    /// Zero mean and unit variance over the utterance, `do_normalize` of published checkpoints. Otherwise samples
    /// stay within `[-1, 1]`.
    pub normalize: bool,
}

impl Default for WaveformConfig {
    fn default() -> Self {
        Self { normalize: true }
    }
}

/// Frames for `n_samples`: one each.
pub(super) fn n_frames(n_samples: usize) -> Result<usize, Error> {
    if n_samples == 0 { Err(Error::NoSamples) } else { Ok(n_samples) }
}

/// The features of one utterance at 16 kHz.
pub(super) fn compute(config: &WaveformConfig, samples: &[f32]) -> Result<Features, Error> {
    let n_frames = n_frames(samples.len())?;
    let values = if config.normalize {
        let n = n_frames as f64;
        let mean = samples.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let squares = samples.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>();
        let scale = 1.0 / (squares / n + EPS).sqrt();
        samples.iter().map(|&x| ((f64::from(x) - mean) * scale) as f32).collect()
    } else {
        samples.to_vec()
    };
    Ok(Features { values, n_frames, n_mels: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{FeatureConfig, FeatureExtractor};

    #[test]
    fn a_waveform_is_normalized_by_hand() {
        // Mean 1, variance (1 + 1 + 4 + 4) / 4 = 2.5.
        let samples = [0.0, 2.0, 3.0, -1.0];
        let scale = 1.0 / 2.5_f64.sqrt();
        let found = compute(&WaveformConfig { normalize: true }, &samples).unwrap();
        assert_eq!((found.n_frames, found.n_mels), (4, 1));
        for (found, expected) in found.values.iter().zip([-scale, scale, 2.0 * scale, -2.0 * scale])
        {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} and {expected}");
        }
        let plain = compute(&WaveformConfig { normalize: false }, &samples).unwrap();
        assert_eq!(plain.values, samples);
        // Silence stays silent: the variance is never alone below the root.
        let silence = compute(&WaveformConfig::default(), &[0.25; 8]).unwrap();
        assert_eq!(silence.values, [0.0; 8]);
    }

    #[test]
    fn a_waveform_has_a_frame_a_sample() {
        let config: FeatureConfig = serde_json::from_str(r#"{"kind": "waveform"}"#).unwrap();
        assert_eq!(config, FeatureConfig::Waveform(WaveformConfig { normalize: true }));
        assert_eq!(config.rate_hz(), 16_000.0);
        let extractor = FeatureExtractor::new(&config).unwrap();
        assert_eq!((extractor.n_mels(), extractor.rate_hz()), (1, 16_000.0));
        assert_eq!((extractor.n_frames(7), extractor.n_frames(0)), (Ok(7), Err(Error::NoSamples)));
        let bad = extractor.compute(&[0.0, f32::INFINITY]);
        assert_eq!(bad, Err(Error::NonFinite { sample_idx: 1, value: f32::INFINITY }));
        let error = serde_json::from_str::<FeatureConfig>(r#"{"kind": "waveform", "n_mels": 1}"#);
        assert!(error.unwrap_err().to_string().contains("unknown field `n_mels`"));
    }
}
