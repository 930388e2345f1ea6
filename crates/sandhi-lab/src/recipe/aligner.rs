//! Text-and-unit aligners in recipes.
//!
//! ```toml
//! [model]
//! kind = "aligner"
//! features = { kind = "whisper", n_mels = 80 }
//! window = { context = 1, stride = 1 }           # frames of 10 ms
//! units = { from = "fit", n = 256 }              # the frames themselves where it is left out
//! aligner = { d_model = 128 }
//! ```

use sandhi_data::features::FeatureConfig;
use sandhi_nn::aligner::UnitAlignerConfig;
use serde::{Deserialize, Serialize};

use crate::units::FrameWindow;

/// `kind = "aligner"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlignerModelConfig {
    /// The front end: spectra.
    pub features: FeatureConfig,
    /// How spectra become frames.
    #[serde(default)]
    pub window: FrameWindow,
    /// Discrete units of the frames; the frames themselves where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<UnitsConfig>,
    /// The network.
    pub aligner: UnitAlignerConfig,
}

/// Where the centers of units come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
pub enum UnitsConfig {
    /// Fitted to frames of the first stage before it begins.
    Fit {
        /// Units; more tell more sounds apart, and boundaries within them.
        n: usize,
        /// Frames that they are fitted to, at most.
        #[serde(default = "default_frames")]
        n_frames: usize,
        /// Lloyd's iterations at most.
        #[serde(default = "default_iterations")]
        iterations: usize,
    },
    /// A file of `sandhi units fit`, of the same frames: of an aligner `--log-mel` with the same bands, context and stride.
    File {
        /// Relative to the recipe's file.
        path: String,
        /// How many they are: what is planned without the file; where it is there, it has to have as many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        n: Option<usize>,
    },
}

fn default_frames() -> usize {
    60_000
}
fn default_iterations() -> usize {
    20
}
