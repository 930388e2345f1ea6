//! Speech encoders: features in, frames out.
//!
//! Adding an encoder means adding a variant to [`EncoderConfig`] and to [`Encoder`]; the compiler
//! lists the remaining places.

pub mod conformer;
pub mod ctc;
pub mod wav2vec2;
pub mod whisper;

use burn::prelude::*;
use serde::{Deserialize, Serialize};

pub use self::{
    conformer::{Conformer, ConformerConfig},
    ctc::{CtcHead, CtcHeadConfig},
    wav2vec2::{Wav2vec2Encoder, Wav2vec2EncoderConfig},
    whisper::{WhisperEncoder, WhisperEncoderConfig},
};
use crate::{
    init::Init,
    length::Length,
    lora::{Linears, NamedLinears},
    ragged::Ragged,
    transformer::Dropout,
};

/// The `[encoder]` table of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EncoderConfig {
    /// Convolution and attention, four feature frames to one encoder frame.
    Conformer(ConformerConfig),
    /// Whisper's layout, two feature frames to one encoder frame.
    Whisper(WhisperEncoderConfig),
    /// wav2vec 2.0, HuBERT and WavLM, over the samples themselves.
    Wav2vec2(Wav2vec2EncoderConfig),
}

/// Maps features to encoder frames.
#[derive(Module, Debug)]
pub enum Encoder {
    /// See [`Conformer`].
    Conformer(Conformer),
    /// See [`WhisperEncoder`].
    Whisper(WhisperEncoder),
    /// See [`Wav2vec2Encoder`].
    Wav2vec2(Wav2vec2Encoder),
}

impl EncoderConfig {
    /// Builds the encoder with random weights for features of width `n_mels`.
    ///
    /// # Panics
    ///
    /// When the width is not one that [`EncoderConfig::hears`].
    pub fn init(&self, n_mels: usize, init: &Init) -> Encoder {
        assert!(self.hears(n_mels), "features are {n_mels} wide, the encoder takes others");
        match self {
            Self::Conformer(config) => Encoder::Conformer(config.init(n_mels, init)),
            Self::Whisper(config) => Encoder::Whisper(config.init(n_mels, init)),
            Self::Wav2vec2(config) => Encoder::Wav2vec2(config.init(init)),
        }
    }

    /// Width of the frames.
    pub fn d_encoder(&self) -> usize {
        match self {
            Self::Conformer(config) => config.d_model,
            Self::Whisper(config) => config.d_model,
            Self::Wav2vec2(config) => config.d_model,
        }
    }

    /// Whether it takes features of this width: spectra, or single samples.
    pub fn hears(&self, n_mels: usize) -> bool {
        match self {
            Self::Conformer(_) | Self::Whisper(_) => n_mels > 0,
            Self::Wav2vec2(_) => n_mels == 1,
        }
    }

    /// Frames for `n_frames` feature frames.
    pub fn length(&self, n_frames: usize) -> Length {
        match self {
            Self::Conformer(_) => Length::Exact(conformer::subsampled(n_frames)),
            Self::Whisper(_) => Length::Exact(n_frames.div_ceil(2)),
            Self::Wav2vec2(config) => Length::Exact(config.n_frames(n_frames)),
        }
    }

    /// Feature frames per encoder frame.
    pub fn stride(&self) -> usize {
        match self {
            Self::Conformer(_) => 4,
            Self::Whisper(_) => 2,
            Self::Wav2vec2(config) => config.samples_per_frame(),
        }
    }

    /// Feature frames of the longest utterance that it takes; any number where absent.
    pub fn max_feature_frames(&self) -> Option<usize> {
        match self {
            Self::Conformer(_) | Self::Wav2vec2(_) => None,
            Self::Whisper(config) => Some(2 * config.max_frames),
        }
    }

    /// What is wrong with the sizes, as sentences that name the fields.
    pub fn problems(&self) -> Vec<String> {
        match self {
            Self::Conformer(config) => config.problems(),
            Self::Whisper(config) => config.problems(),
            Self::Wav2vec2(config) => config.problems(),
        }
    }
}

impl Linears for Encoder {
    fn linears(&mut self) -> NamedLinears<'_> {
        match self {
            Self::Conformer(encoder) => encoder.linears(),
            Self::Whisper(encoder) => encoder.linears(),
            Self::Wav2vec2(encoder) => encoder.linears(),
        }
    }
}

impl Encoder {
    /// Whether blocks run again in the backward pass instead of keeping what they computed.
    pub fn recompute(&mut self, on: bool) {
        match self {
            Self::Conformer(encoder) => encoder.recompute(on),
            Self::Whisper(encoder) => encoder.recompute(on),
            Self::Wav2vec2(encoder) => encoder.recompute(on),
        }
    }

    /// # Shapes
    ///
    /// - `features.values`: `[n_rows, n_mels]`, one span an utterance
    /// - output: `[n_frames, d_encoder]`
    pub fn forward(&self, features: &Ragged, dropout: Dropout) -> Ragged {
        match self {
            Self::Conformer(encoder) => encoder.forward(features, dropout),
            Self::Whisper(encoder) => encoder.forward(features, dropout),
            Self::Wav2vec2(encoder) => encoder.forward(features, dropout),
        }
    }
}
