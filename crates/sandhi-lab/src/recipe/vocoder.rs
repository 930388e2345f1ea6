//! Unit vocoders in recipes.
//!
//! ```toml
//! [model]
//! kind = "vocoder"
//! units = { from = "encoder", encoder = { from = "directory", path = "$foundation/encoder" }, centers = { from = "file", path = "$units/units.npy" } }
//! vocoder = { d_model = 256, d_ff = 768 }
//! crop_s = 1.0
//! ```

use sandhi_nn::vocoder::VocoderConfig;
use serde::{Deserialize, Serialize};

use super::SpeechUnitsConfig;

/// `kind = "vocoder"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VocoderModelConfig {
    /// What units are; those of an encoder, because sound is learned with them. Centers of the file that a language model
    /// has found make a vocoder for it.
    pub units: SpeechUnitsConfig,
    /// The network.
    pub vocoder: VocoderConfig,
    /// Seconds of an utterance that are learned from at a time, in whole units, at a place drawn anew at every reading.
    #[serde(default = "default_crop_s")]
    pub crop_s: f64,
}

impl VocoderModelConfig {
    /// Units of a crop, one at least.
    pub fn crop_units(&self, rate_hz: f64) -> usize {
        ((self.crop_s * rate_hz).round() as usize).max(1)
    }
}

fn default_crop_s() -> f64 {
    1.0
}
