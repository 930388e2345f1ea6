//! The convolutions between samples and frames.
//!
//! ```text
//! samples 16 kHz ─ conv k10 s5 ─ norm ─ gelu ─ conv k3 s2 ─ … ─ conv k2 s2 ─ gelu ─> frames 50 Hz
//!
//! norm = "group"   after the first convolution only: each channel over the time of its utterance
//! norm = "layer"   after each convolution: each row over its channels
//! ```
//!
//! They go through utterance by utterance: rows there are hundreds of times as many as frames, and so no more than
//! one utterance of them exists at a time, unless gradients keep them.

use burn::{module::Param, prelude::*};
use serde::{Deserialize, Serialize};

use super::Wav2vec2EncoderConfig;
use crate::{
    init::Init,
    layers::{Linear, Norm, NormKind},
    lora::{Linears, NamedLinears},
    ops,
    ragged::{Offsets, Ragged},
};

/// Where the convolutions are normalized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ConvolutionNorm {
    /// After the first: every channel has zero mean and unit variance over its utterance (Wu and He, 2018, with one
    /// channel a group). The base models.
    #[default]
    Group,
    /// After each: every row has, over its channels. The large models.
    Layer,
}

/// What the authors' code adds to variances here, whatever the configuration says of other norms.
const EPS: f64 = 1e-5;

/// A convolution with its norm.
#[derive(Module, Debug)]
pub(super) struct Convolution {
    conv: Linear,
    layer_norm: Option<Norm>,
    kernel: usize,
    stride: usize,
    over_time: bool,
}

impl Linears for Convolution {
    fn linears(&mut self) -> NamedLinears<'_> {
        vec![("conv".to_owned(), &mut self.conv)]
    }
}

impl Convolution {
    /// Convolution `i` of those that `config` lists.
    pub(super) fn new(init: &Init, config: &Wav2vec2EncoderConfig, i: usize) -> Self {
        let d_in = if i == 0 { 1 } else { config.conv_dims[i - 1] };
        let (d, kernel) = (config.conv_dims[i], config.conv_kernels[i]);
        let over_time = config.conv_norm == ConvolutionNorm::Group;
        let norm = |init: &Init| Norm::new(init, NormKind::Layer, d, EPS);
        Self {
            conv: Linear::new(&init.child("conv"), kernel * d_in, d, config.conv_bias),
            layer_norm: (!over_time || i == 0).then(|| norm(&init.child("layer_norm"))),
            kernel,
            stride: config.conv_strides[i],
            over_time,
        }
    }

    /// One utterance, `[n, d_in]` to `[n_windows, d]`.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let alone = Offsets::from_lengths(&[x.dims()[0]]);
        let (windows, _) = ops::unfold(x, &alone, self.kernel, self.stride, 0);
        let x = self.conv.forward(windows);
        ops::gelu(match &self.layer_norm {
            None => x,
            Some(norm) if self.over_time => group_norm(norm, x),
            Some(norm) => norm.forward(x),
        })
    }
}

/// Normalizes every channel over the rows, which are those of one utterance.
fn group_norm(norm: &Norm, x: Tensor<2>) -> Tensor<2> {
    let [n_rows, _] = x.dims();
    let options = (&x.device(), x.dtype());
    let (one, zero) = (Tensor::ones([n_rows], options), Tensor::zeros([n_rows], options));
    let x = ops::layer_norm(x.transpose(), one, zero, norm.eps).transpose();
    let x = x * norm.weight.val().unsqueeze();
    match norm.bias.as_ref().map(Param::val) {
        None => x,
        Some(bias) => x + bias.unsqueeze(),
    }
}

/// Rows after all convolutions, `0` for an utterance that is shorter than what the first frame sees.
pub(super) fn n_frames(config: &Wav2vec2EncoderConfig, n_samples: usize) -> usize {
    config.conv_kernels.iter().zip(&config.conv_strides).fold(n_samples, |n, (&kernel, &stride)| {
        n.checked_sub(kernel).map_or(0, |slack| slack / stride + 1)
    })
}

/// # Shapes
///
/// - `features.values`: `[n_rows, 1]`
/// - output: `[n_frames, d]` with `d` of the last convolution, [`n_frames`] frames an utterance
pub(super) fn forward(convolutions: &[Convolution], features: &Ragged) -> Ragged {
    let mut parts = Vec::new();
    let mut lengths = Vec::with_capacity(features.offsets.n_sequences());
    for rows in features.offsets.iter() {
        let mut n = rows.len();
        for convolution in convolutions {
            n = n.checked_sub(convolution.kernel).map_or(0, |slack| slack / convolution.stride + 1);
        }
        lengths.push(n);
        if n > 0 {
            let samples = features.values.clone().narrow(0, rows.start, rows.len());
            parts.push(convolutions.iter().fold(samples, |x, layer| layer.forward(x)));
        }
    }
    let offsets = Offsets::from_lengths(&lengths);
    if parts.is_empty() {
        let width = convolutions.last().map_or(1, |last| last.conv.weight.dims()[1]);
        let options = (&features.values.device(), features.values.dtype());
        return Ragged { values: Tensor::zeros([0, width], options), offsets };
    }
    Ragged { values: Tensor::cat(parts, 0), offsets }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::host;

    #[test]
    fn group_norm_by_hand() {
        // Channel 0: mean 2, variance 1; channel 1 is constant.
        let device = Device::flex();
        let x = Tensor::<2>::from_floats([[1.0, 5.0], [3.0, 5.0]], &device);
        let mut norm = Norm::new(&Init::new(0, &device), NormKind::Layer, 2, 0.0);
        norm.eps = 1e-5;
        norm.weight = Init::new(0, &device).values(vec![2.0, 3.0], [2]);
        norm.bias = Some(Init::new(0, &device).values(vec![10.0, 20.0], [2]));
        let found = host(group_norm(&norm, x));
        for (found, expected) in found.iter().zip([8.0, 20.0, 12.0, 20.0]) {
            assert!((found - expected).abs() < 1e-4, "{found} and {expected}");
        }
    }
}
