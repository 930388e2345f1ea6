//! Whisper's encoder (Radford et al., 2022, <https://arxiv.org/abs/2212.04356>), on packed utterances.
//!
//! ```text
//! log-mel 100 Hz ─ conv k3 ─ gelu ─ conv k3 s2 ─ gelu ─ + positions ─ n × block ─ norm ─> frames 50 Hz
//! ```
//!
//! The authors' code always hears 30 s, silence included (`pad_to_30_s` in the features). An utterance of its natural
//! length goes through as it is, which is faster and a little different.

use burn::{module::Param, prelude::*};
use serde::{Deserialize, Serialize};

use crate::{
    init::Init,
    layers::{Linear, Norm, NormKind},
    lora::{Linears, NamedLinears, numbered},
    ops::{self, Mask},
    ragged::Ragged,
    transformer::{AttentionBias, Block, BlockConfig, Dropout, MlpKind, Placement},
};

/// `kind = "whisper"` in a recipe's `[encoder]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhisperEncoderConfig {
    /// Width of the frames.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Width inside the feed-forward layers.
    pub d_ff: usize,
    /// Frames of the longest utterance; 1,500 are 30 s.
    #[serde(default = "default_max_frames")]
    pub max_frames: usize,
}

fn default_max_frames() -> usize {
    1_500
}

const EPS: f64 = 1e-5;

/// Built by [`WhisperEncoderConfig::init`].
#[derive(Module, Debug)]
pub struct WhisperEncoder {
    conv1: Linear,
    conv2: Linear,
    /// `[max_frames, d_model]`; fixed, as in the authors' code: [`crate::weights::is_fixed`].
    embed_positions: Param<Tensor<2>>,
    layers: Vec<Block>,
    layer_norm: Norm,
    recompute: bool,
}

impl WhisperEncoderConfig {
    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.n_heads == 0 || !self.d_model.is_multiple_of(self.n_heads) {
            problems.push(format!(
                "d_model {} is not a multiple of n_heads {}",
                self.d_model, self.n_heads
            ));
        }
        if !self.d_model.is_multiple_of(2) || self.d_model < 4 {
            problems.push(format!(
                "d_model is {}, positions need an even number of at least 4",
                self.d_model
            ));
        }
        if self.n_layers == 0 || self.d_ff == 0 || self.max_frames == 0 {
            problems.push("n_layers, d_ff and max_frames must be at least 1".into());
        }
        problems
    }

    /// Builds the encoder with random weights and sinusoidal positions.
    pub fn init(&self, n_mels: usize, init: &Init) -> WhisperEncoder {
        let d = self.d_model;
        let block = BlockConfig {
            d_model: d,
            n_heads: self.n_heads,
            n_kv_heads: self.n_heads,
            d_head: d / self.n_heads,
            d_ff: self.d_ff,
            norm: NormKind::Layer,
            mlp: MlpKind::Gelu,
            bias: AttentionBias { q: true, k: false, v: true, o: true },
            qk_norm: false,
            norm_eps: EPS,
            rope: None,
        };
        WhisperEncoder {
            conv1: Linear::new(&init.child("conv1"), 3 * n_mels, d, true),
            conv2: Linear::new(&init.child("conv2"), 3 * d, d, true),
            embed_positions: init
                .child("embed_positions")
                .values(sinusoids(self.max_frames, d), [self.max_frames, d]),
            layers: (0..self.n_layers)
                .map(|i| Block::new(&init.child("layers").child(i), &block))
                .collect(),
            layer_norm: Norm::new(&init.child("layer_norm"), NormKind::Layer, d, EPS),
            recompute: false,
        }
    }
}

/// Sines, then cosines, of waves between one radian a frame and one in 10,000 frames, row-major.
fn sinusoids(n_frames: usize, width: usize) -> Vec<f32> {
    let half = width / 2;
    let step = 10_000.0_f64.ln() / (half - 1) as f64;
    let angle = |frame: usize, i: usize| frame as f64 * (-step * i as f64).exp();
    (0..n_frames)
        .flat_map(|frame| {
            let sines = (0..half).map(move |i| angle(frame, i).sin() as f32);
            sines.chain((0..half).map(move |i| angle(frame, i).cos() as f32))
        })
        .collect()
}

impl Linears for WhisperEncoder {
    fn linears(&mut self) -> NamedLinears<'_> {
        let first = [("conv1".to_owned(), &mut self.conv1), ("conv2".to_owned(), &mut self.conv2)];
        first.into_iter().chain(numbered("layers", &mut self.layers)).collect()
    }
}

impl WhisperEncoder {
    pub(super) fn recompute(&mut self, on: bool) {
        self.recompute = on;
    }

    /// # Shapes
    ///
    /// - `features.values`: `[n_rows, n_mels]`
    /// - output: `[n_frames, d_model]`, `ceil(n / 2)` frames an utterance
    ///
    /// # Panics
    ///
    /// When an utterance is longer than the positions reach.
    pub fn forward(&self, features: &Ragged, dropout: Dropout) -> Ragged {
        let (x, offsets) = ops::unfold(features.values.clone(), &features.offsets, 3, 1, 1);
        let (x, offsets) = ops::unfold(ops::gelu(self.conv1.forward(x)), &offsets, 3, 2, 1);
        let x = ops::gelu(self.conv2.forward(x));
        let [max_frames, _] = self.embed_positions.dims();
        let positions: Vec<u32> = offsets
            .iter()
            .flat_map(|span| {
                assert!(
                    span.len() <= max_frames,
                    "an utterance has {} frames, positions reach {max_frames}",
                    span.len()
                );
                (0..span.len()).map(|frame| frame as u32)
            })
            .collect();
        let x = dropout
            .branch("input")
            .apply(x + ops::embedding(self.embed_positions.val(), &positions));
        let placement = Placement::packed(&offsets, Mask::Full);
        let x = self.layers.iter().enumerate().fold(x, |x, (i, layer)| {
            let dropout = dropout.branch(&i.to_string());
            layer.forward_or_again(self.recompute, x, &placement, None, dropout)
        });
        Ragged { values: self.layer_norm.forward(x), offsets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_by_hand() {
        // Width 4: waves of 1 and 1/10,000 radians a frame.
        let table = sinusoids(2, 4);
        let expected = [0.0, 0.0, 1.0, 1.0, 1.0_f64.sin(), 1e-4, 1.0_f64.cos(), 1.0];
        for (found, expected) in table.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-7, "{found} and {expected}");
        }
    }
}
