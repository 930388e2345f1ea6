//! Strided convolutions and a bottleneck: the modality adapter of BLSP ("BLSP: Bootstrapping language-speech
//! pre-training via behavior alignment of continuation writing", Wang et al., 2023,
//! <https://arxiv.org/abs/2309.00916>).
//!
//! ```text
//! frames 50 Hz ─ conv k5 s2 ─ glu ─ conv k5 s2 ─ glu ─ conv k5 s2 ─ glu ─┬─ fc1 ─ gelu ─ fc2 ─ + ─ norm ─> 6.25 Hz
//!                d_encoder           d_encoder           d_model         └─────────────────────┘
//! ```
//!
//! What lies beyond an utterance is zero, as at the ends of one that is alone: `ceil(n / 2)` rows remain after every
//! convolution, and no row sees another utterance. In a file the weight of a convolution is
//! `[2 * d_out, kernel * d_in]`, the channels of its first tap first.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Kind, Widths};
use crate::{
    init::Init,
    layers::{Linear, Norm, NormKind},
    length::Length,
    lora::{Linears, NamedLinears, below},
    ops,
    ragged::Ragged,
};

/// `kind = "conv"` in a recipe's `[connector]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvConfig {
    /// Convolutions, each of which halves the number of rows: 3 at 50 Hz give 6.25 vectors a second.
    pub n_layers: usize,
    /// Rows that a convolution sees, odd; the paper has 5.
    pub kernel: usize,
    /// Width of the bottleneck behind them; the paper has 512.
    pub d_bottleneck: usize,
}

/// Built by [`ConvConfig::init`].
#[derive(Module, Debug)]
pub struct ConvAdapter {
    conv_layers: Vec<Linear>,
    adapter: Bottleneck,
    norm: Norm,
    kernel: usize,
}

/// `x + fc2(gelu(fc1(x)))`, without biases.
#[derive(Module, Debug)]
struct Bottleneck {
    fc1: Linear,
    fc2: Linear,
}

const EPS: f64 = 1e-5;

/// Frames of a vector are `2^n_layers`; an hour at 50 Hz has less than `2^18`.
const MAX_LAYERS: usize = 18;

impl Kind for ConvConfig {
    fn stride(&self) -> Option<usize> {
        Some(self.reduction())
    }
}

impl ConvConfig {
    fn reduction(&self) -> usize {
        2_usize.saturating_pow(self.n_layers as u32)
    }

    /// Vectors for `n_frames` frames: none for no frames.
    pub fn length(&self, n_frames: usize) -> Length {
        // Halving and rounding up again and again is dividing and rounding up once.
        Length::Exact(n_frames.div_ceil(self.reduction()))
    }

    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = super::zeros(&[("d_bottleneck", self.d_bottleneck)]);
        if !(1..=MAX_LAYERS).contains(&self.n_layers) {
            problems.push(format!("n_layers is {}, expected 1 to {MAX_LAYERS}", self.n_layers));
        }
        if self.kernel.is_multiple_of(2) {
            problems.push(format!("kernel {} is even, expected an odd number", self.kernel));
        }
        problems
    }

    /// Builds the connector with random weights.
    pub fn init(&self, widths: Widths, init: &Init) -> ConvAdapter {
        let (d, d_model) = (widths.d_encoder, widths.d_model);
        let linear = |init: &Init, name: &str, d_in, d_out| {
            Linear::new(&init.child(name), d_in, d_out, false)
        };
        let layer = |i: usize| {
            let d_out = if i + 1 == self.n_layers { d_model } else { d };
            Linear::new(&init.child("conv_layers").child(i), self.kernel * d, 2 * d_out, true)
        };
        let adapter = init.child("adapter");
        ConvAdapter {
            conv_layers: (0..self.n_layers).map(layer).collect(),
            adapter: Bottleneck {
                fc1: linear(&adapter, "fc1", d_model, self.d_bottleneck),
                fc2: linear(&adapter, "fc2", self.d_bottleneck, d_model),
            },
            norm: Norm::new(&init.child("norm"), NormKind::Layer, d_model, EPS),
            kernel: self.kernel,
        }
    }
}

impl Linears for Bottleneck {
    fn linears(&mut self) -> NamedLinears<'_> {
        vec![("fc1".to_owned(), &mut self.fc1), ("fc2".to_owned(), &mut self.fc2)]
    }
}

impl Linears for ConvAdapter {
    fn linears(&mut self) -> NamedLinears<'_> {
        let layers = self.conv_layers.iter_mut().enumerate();
        layers
            .map(|(i, layer)| (format!("conv_layers.{i}"), layer))
            .chain(below("adapter", self.adapter.linears()))
            .collect()
    }
}

impl ConvAdapter {
    /// # Shapes
    ///
    /// - `frames.values`: `[n_frames, d_encoder]`
    /// - output: `[n_vectors, d_model]`, `ceil(n / 2^n_layers)` vectors an utterance
    pub fn forward(&self, frames: &Ragged) -> Ragged {
        let Ragged { values: x, offsets } =
            self.conv_layers.iter().fold(frames.clone(), |x, layer| {
                let (windows, offsets) =
                    ops::unfold(x.values, &x.offsets, self.kernel, 2, self.kernel / 2);
                Ragged { values: ops::glu(layer.forward(windows)), offsets }
            });
        let bent = self.adapter.fc2.forward(ops::gelu(self.adapter.fc1.forward(x.clone())));
        Ragged { values: self.norm.forward(x + bent), offsets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ops::testing::{cpu, to_vec},
        ragged::Offsets,
        weights::parameters,
    };

    const WIDTHS: Widths = Widths { d_encoder: 1, d_model: 2 };

    #[test]
    fn vectors_by_hand() {
        // One convolution over (x[t - 1], x[t], x[t + 1]): the first output is their sum, the second x[t] alone, both
        // with a gate of 0, so halved. Utterances 1 2 3 | 10 20: rows around 1 and 3, and around 10.
        let init = Init::new(1, &cpu());
        let config = ConvConfig { n_layers: 1, kernel: 3, d_bottleneck: 1 };
        let mut connector = config.init(WIDTHS, &init);
        let taps = [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]];
        connector.conv_layers[0].weight = init.values(taps.concat(), [3, 4]);
        // The bottleneck is 0: a norm over (sum / 2, x[t] / 2) is left, which gives the sign of their difference.
        connector.adapter.fc2.weight = init.constant([1, 2], 0.0);
        let values = Tensor::from_floats([[1.0], [2.0], [3.0], [10.0], [20.0]], &cpu());
        let frames = Ragged { values, offsets: Offsets::from_lengths(&[3, 2]) };
        let vectors = connector.forward(&frames);
        assert_eq!(vectors.offsets.lengths(), [2, 1]);
        // (0 + 1 + 2, 1), (2 + 3 + 0, 3), (0 + 10 + 20, 10): over its utterance's end row 3 would see 10.
        let expected = [[1.5, 0.5], [2.5, 1.5], [15.0, 5.0]].into_iter().flat_map(|[a, b]| {
            let half: f64 = (a - b) / 2.0;
            let y = half / (half * half + EPS).sqrt();
            [y, -y]
        });
        for (found, expected) in to_vec(vectors.values).into_iter().zip(expected) {
            assert!((f64::from(found) - expected).abs() < 1e-6, "{found} and {expected}");
        }
    }

    #[test]
    fn lengths_are_those_of_the_convolutions_one_after_the_other() {
        for n_layers in 1..5 {
            let config = ConvConfig { n_layers, kernel: 5, d_bottleneck: 1 };
            for n in 0..100_usize {
                let expected = (0..n_layers).fold(n, |n, _| n.div_ceil(2));
                assert_eq!(config.length(n), Length::Exact(expected));
            }
        }
    }

    #[test]
    fn parameters_at_published_sizes() {
        // BLSP: Whisper-small before Llama-2-7B.
        let config = ConvConfig { n_layers: 3, kernel: 5, d_bottleneck: 512 };
        let widths = Widths { d_encoder: 768, d_model: 4096 };
        let connector = config.init(widths, &Init::blank(&cpu()));
        let shapes: Vec<_> =
            parameters(&connector).into_iter().map(|p| (p.name, p.shape)).collect();
        let expected = [
            ("conv_layers.0.weight", vec![1536, 3840]),
            ("conv_layers.0.bias", vec![1536]),
            ("conv_layers.1.weight", vec![1536, 3840]),
            ("conv_layers.1.bias", vec![1536]),
            ("conv_layers.2.weight", vec![8192, 3840]),
            ("conv_layers.2.bias", vec![8192]),
            ("adapter.fc1.weight", vec![512, 4096]),
            ("adapter.fc2.weight", vec![4096, 512]),
            ("norm.weight", vec![4096]),
            ("norm.bias", vec![4096]),
        ];
        assert_eq!(shapes, expected.map(|(name, shape)| (name.to_owned(), shape)));
    }

    #[test]
    fn sizes_that_fit_nothing_are_refused() {
        let config = ConvConfig { n_layers: 19, kernel: 4, d_bottleneck: 0 };
        let expected = [
            "d_bottleneck is 0, expected at least 1",
            "n_layers is 19, expected 1 to 18",
            "kernel 4 is even, expected an odd number",
        ];
        assert_eq!(config.problems(), expected);
    }
}
