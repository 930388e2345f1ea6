//! wav2vec 2.0 (Baevski et al., 2020, <https://arxiv.org/abs/2006.11477>), HuBERT (Hsu et al., 2021,
//! <https://arxiv.org/abs/2106.07447>) and WavLM (Chen et al., 2021, <https://arxiv.org/abs/2110.13900>), on packed
//! utterances.
//!
//! ```text
//! samples 16 kHz ─ 7 convolutions ─ norm ─ linear ─ + positions ─ n × block ─> frames 50 Hz
//!                                                     └ conv k128     └ WavLM: gated bias of relative positions
//! ```
//!
//! The families differ in how they were trained and little in what they compute. Base models normalize after attention
//! and feed-forward, and once before the first block; large ones before them, and once after the last block.

mod block;
mod convolutions;
mod positions;

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use self::{
    block::{Batch, Wav2vec2Block},
    convolutions::Convolution,
    positions::PositionalConvolution,
};
pub use self::{convolutions::ConvolutionNorm, positions::PositionBiasConfig};
use crate::{
    init::Init,
    layers::{Embedding, Linear, Norm, NormKind},
    lora::{Linears, NamedLinears, below, numbered},
    ops,
    ragged::Ragged,
    transformer::Dropout,
};

/// `kind = "wav2vec2"` in a recipe's `[encoder]` table. What is left out is as in the published base models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wav2vec2EncoderConfig {
    /// Width of the frames.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Width inside the feed-forward layers.
    pub d_ff: usize,
    /// Channels after each convolution over samples.
    #[serde(default = "default_dims")]
    pub conv_dims: Vec<usize>,
    /// Rows that each convolution sees.
    #[serde(default = "default_kernels")]
    pub conv_kernels: Vec<usize>,
    /// Rows from one window to the next; their product is the samples per frame, 320 as published.
    #[serde(default = "default_strides")]
    pub conv_strides: Vec<usize>,
    /// Whether the convolutions have a bias.
    #[serde(default)]
    pub conv_bias: bool,
    /// Where the convolutions are normalized.
    #[serde(default)]
    pub conv_norm: ConvolutionNorm,
    /// Whether a norm stands before the linear layer that follows the convolutions; some HuBERTs have none.
    #[serde(default = "default_true")]
    pub projection_norm: bool,
    /// Frames that the convolution of positions sees.
    #[serde(default = "default_position_kernel")]
    pub position_kernel: usize,
    /// Groups of channels of the convolution of positions.
    #[serde(default = "default_position_groups")]
    pub position_groups: usize,
    /// Norms before attention and feed-forward, as in large models, and not after.
    #[serde(default)]
    pub pre_norm: bool,
    /// WavLM's bias of attention.
    #[serde(default)]
    pub position_bias: Option<PositionBiasConfig>,
    /// Added to variances, but for those of convolutions.
    #[serde(default = "default_eps")]
    pub norm_eps: f64,
    /// Which frames are handed out: those that go into block `layer`, counted from 0, so `n_layers` are those that
    /// come out of the last one. Then, and when it is absent, the norm after the last block is applied where there is
    /// one. Blocks that are not needed are not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
}

fn default_dims() -> Vec<usize> {
    vec![512; 7]
}

fn default_kernels() -> Vec<usize> {
    vec![10, 3, 3, 3, 3, 2, 2]
}

fn default_strides() -> Vec<usize> {
    vec![5, 2, 2, 2, 2, 2, 2]
}

fn default_true() -> bool {
    true
}

fn default_position_kernel() -> usize {
    128
}

fn default_position_groups() -> usize {
    16
}

fn default_eps() -> f64 {
    1e-5
}

/// Samples per frame beyond which it is a typing mistake: a minute.
const MOST_SAMPLES_PER_FRAME: usize = 960_000;
/// Groups beyond which it is one, too: each is a matrix of its own.
const MOST_GROUPS: usize = 4_096;

/// Built by [`Wav2vec2EncoderConfig::init`].
#[derive(Module, Debug)]
pub struct Wav2vec2Encoder {
    conv_layers: Vec<Convolution>,
    feature_projection: FeatureProjection,
    pos_conv_embed: PositionalConvolution,
    layer_norm: Option<Norm>,
    /// `[buckets, n_heads]`, shared by all blocks.
    rel_attn_embed: Option<Embedding>,
    layers: Vec<Wav2vec2Block>,
    pre_norm: bool,
    #[module(skip)]
    position_bias: Option<PositionBiasConfig>,
    /// Whether blocks run again in the backward pass.
    recompute: bool,
}

/// From channels to the width of the blocks.
#[derive(Module, Debug)]
struct FeatureProjection {
    layer_norm: Option<Norm>,
    projection: Linear,
}

impl Linears for Wav2vec2Encoder {
    fn linears(&mut self) -> NamedLinears<'_> {
        let projection = &mut self.feature_projection.projection;
        numbered("conv_layers", &mut self.conv_layers)
            .chain([("feature_projection.projection".to_owned(), projection)])
            .chain(below("pos_conv_embed", self.pos_conv_embed.linears()))
            .chain(numbered("layers", &mut self.layers))
            .collect()
    }
}

impl Wav2vec2EncoderConfig {
    /// These sizes, and all else as in the published base models.
    pub fn new(d_model: usize, n_layers: usize, n_heads: usize, d_ff: usize) -> Self {
        Self {
            d_model,
            n_layers,
            n_heads,
            d_ff,
            conv_dims: default_dims(),
            conv_kernels: default_kernels(),
            conv_strides: default_strides(),
            conv_bias: false,
            conv_norm: ConvolutionNorm::Group,
            projection_norm: true,
            position_kernel: default_position_kernel(),
            position_groups: default_position_groups(),
            pre_norm: false,
            position_bias: None,
            norm_eps: default_eps(),
            layer: None,
        }
    }

    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let (d, heads, groups) = (self.d_model, self.n_heads, self.position_groups);
        if d == 0 || self.n_layers == 0 || self.d_ff == 0 {
            problems.push("d_model, n_layers and d_ff must be at least 1".into());
        }
        if heads == 0 || !d.is_multiple_of(heads) {
            problems.push(format!("d_model {d} is not a multiple of n_heads {heads}"));
        }
        if groups == 0 || !d.is_multiple_of(groups) {
            problems.push(format!("d_model {d} is not a multiple of position_groups {groups}"));
        }
        if groups > MOST_GROUPS {
            problems.push(format!("position_groups is {groups}, expected at most {MOST_GROUPS}"));
        }
        if self.position_kernel == 0 {
            problems.push("position_kernel is 0, expected at least 1".into());
        }
        let lists = [&self.conv_dims, &self.conv_kernels, &self.conv_strides];
        let [dims, kernels, strides] = lists.map(Vec::len);
        if dims == 0 || dims != kernels || dims != strides {
            problems.push(format!(
                "conv_dims, conv_kernels and conv_strides have {dims}, {kernels} and {strides} entries, \
                 expected one each for every convolution"
            ));
        }
        if lists.into_iter().flatten().any(|&size| size == 0) {
            problems.push("conv_dims, conv_kernels and conv_strides must be at least 1".into());
        }
        if self.samples_per_frame() > MOST_SAMPLES_PER_FRAME {
            problems.push(format!(
                "conv_strides make {} samples a frame, expected at most {MOST_SAMPLES_PER_FRAME}",
                self.samples_per_frame()
            ));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            problems
                .push(format!("norm_eps is {}, expected a number of at least 0", self.norm_eps));
        }
        if let Some(layer) = self.layer.filter(|&layer| layer > self.n_layers) {
            problems
                .push(format!("layer is {layer}, expected at most n_layers, {}", self.n_layers));
        }
        problems.extend(self.position_bias.as_ref().and_then(PositionBiasConfig::problems));
        problems
    }

    /// Samples from one frame to the next.
    pub fn samples_per_frame(&self) -> usize {
        self.conv_strides.iter().fold(1, |product, &stride| product.saturating_mul(stride))
    }

    /// Frames for `n_samples`: every frame sees whole windows, so the samples behind the last one are not heard.
    pub fn n_frames(&self, n_samples: usize) -> usize {
        convolutions::n_frames(self, n_samples)
    }

    /// Blocks that the frames go through.
    pub fn n_blocks(&self) -> usize {
        self.layer.unwrap_or(self.n_layers)
    }

    /// Whether the norm beside the blocks is there: before the first one, or after the last one.
    pub fn has_stack_norm(&self) -> bool {
        !self.pre_norm || self.n_blocks() == self.n_layers
    }

    /// Builds the encoder with random weights.
    pub fn init(&self, init: &Init) -> Wav2vec2Encoder {
        let d = self.d_model;
        let norm = |init: &Init, d| Norm::new(init, NormKind::Layer, d, self.norm_eps);
        let d_conv = *self.conv_dims.last().expect("there is a convolution");
        let projection = init.child("feature_projection");
        Wav2vec2Encoder {
            conv_layers: (0..self.conv_dims.len())
                .map(|i| Convolution::new(&init.child("conv_layers").child(i), self, i))
                .collect(),
            feature_projection: FeatureProjection {
                layer_norm: self
                    .projection_norm
                    .then(|| norm(&projection.child("layer_norm"), d_conv)),
                projection: Linear::new(&projection.child("projection"), d_conv, d, true),
            },
            pos_conv_embed: PositionalConvolution::new(
                &init.child("pos_conv_embed"),
                d,
                self.position_kernel,
                self.position_groups,
            ),
            layer_norm: self.has_stack_norm().then(|| norm(&init.child("layer_norm"), d)),
            rel_attn_embed: self.position_bias.as_ref().filter(|_| self.n_blocks() > 0).map(
                |bias| {
                    Embedding::new(&init.child("rel_attn_embed"), bias.buckets, self.n_heads, 1.0)
                },
            ),
            layers: (0..self.n_blocks())
                .map(|i| Wav2vec2Block::new(&init.child("layers").child(i), self))
                .collect(),
            pre_norm: self.pre_norm,
            position_bias: self.position_bias.clone(),
            recompute: false,
        }
    }
}

impl Wav2vec2Encoder {
    /// Blocks with WavLM's bias keep what they computed: all of them share its gradient.
    pub(super) fn recompute(&mut self, on: bool) {
        self.recompute = on && self.position_bias.is_none();
    }

    /// # Shapes
    ///
    /// - `features.values`: `[n_rows, 1]`
    /// - output: `[n_frames, d_model]`, [`Wav2vec2EncoderConfig::n_frames`] frames an utterance
    pub fn forward(&self, features: &Ragged, dropout: Dropout) -> Ragged {
        let Ragged { values: x, offsets } = convolutions::forward(&self.conv_layers, features);
        let projection = &self.feature_projection;
        if offsets.n_rows() == 0 {
            let [_, d] = projection.projection.weight.dims();
            let options = (&x.device(), x.dtype());
            return Ragged { values: Tensor::zeros([0, d], options), offsets };
        }
        let x = match &projection.layer_norm {
            None => x,
            Some(norm) => norm.forward(x),
        };
        let x = projection.projection.forward(x);
        let x = x.clone() + self.pos_conv_embed.forward(x, &offsets);
        let stack_norm = |x, here: bool| match &self.layer_norm {
            Some(norm) if here => norm.forward(x),
            _ => x,
        };
        let x = dropout.branch("input").apply(stack_norm(x, !self.pre_norm));
        let bias = match (&self.position_bias, &self.rel_attn_embed) {
            (Some(config), Some(table)) => {
                offsets.iter().map(|rows| config.bias(table, rows.len())).collect()
            }
            _ => Vec::new(),
        };
        let batch = Batch { offsets: offsets.clone(), bias };
        let x = self.layers.iter().enumerate().fold(x, |x, (i, layer)| {
            let dropout = dropout.branch(&i.to_string());
            if self.recompute {
                let batch = batch.clone();
                ops::recompute(layer, x, move |layer, x| layer.forward(x, &batch, dropout))
            } else {
                layer.forward(x, &batch, dropout)
            }
        });
        Ragged { values: stack_norm(x, self.pre_norm), offsets }
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        module::Param,
        tensor::{DType, FloatDType},
    };

    use super::*;
    use crate::{
        ops::testing::random,
        ragged::Offsets,
        weights::{ParameterMap, host, map_parameters},
    };

    /// The smallest of a layout.
    fn config(pre_norm: bool, bias: bool) -> Wav2vec2EncoderConfig {
        Wav2vec2EncoderConfig {
            d_model: 8,
            n_layers: 2,
            n_heads: 2,
            d_ff: 12,
            conv_dims: vec![4, 6],
            conv_kernels: vec![6, 3],
            conv_strides: vec![4, 2],
            conv_bias: pre_norm,
            conv_norm: if pre_norm { ConvolutionNorm::Layer } else { ConvolutionNorm::Group },
            projection_norm: true,
            position_kernel: 4,
            position_groups: 2,
            pre_norm,
            position_bias: bias.then_some(PositionBiasConfig { buckets: 8, max_distance: 6 }),
            norm_eps: 1e-5,
            layer: None,
        }
    }

    fn samples(lengths: &[usize], seed: u64) -> Ragged {
        let offsets = Offsets::from_lengths(lengths);
        let values = random([offsets.n_rows(), 1], seed).tensor(&Device::flex());
        Ragged { values, offsets }
    }

    #[test]
    fn an_utterance_gives_the_same_bits_alone_as_among_others() {
        for (pre_norm, bias) in [(false, false), (true, false), (false, true), (true, true)] {
            let encoder = config(pre_norm, bias).init(&Init::new(5, &Device::flex()));
            let lengths = [90, 3, 41, 14, 64];
            let all = samples(&lengths, 2);
            let together = encoder.forward(&all, Dropout::OFF);
            let mut alone = Vec::new();
            for rows in all.offsets.iter() {
                let values = all.values.clone().narrow(0, rows.start, rows.len());
                let one = Ragged { values, offsets: Offsets::from_lengths(&[rows.len()]) };
                alone.extend(host(encoder.forward(&one, Dropout::OFF).values));
            }
            assert_eq!(host(together.values), alone, "{pre_norm} {bias}");
        }
    }

    /// In double precision nothing is fused, as on other devices.
    #[test]
    fn composed_operations_give_the_same_frames() {
        struct Double;
        impl ParameterMap for Double {
            fn map<const D: usize>(
                &mut self,
                _: &str,
                param: Param<Tensor<D>>,
            ) -> Param<Tensor<D>> {
                let (id, value, mapper) = param.consume();
                Param::from_mapped_value(id, value.cast(FloatDType::F64), mapper)
            }
        }
        for (pre_norm, bias) in [(false, false), (true, true)] {
            let encoder = config(pre_norm, bias).init(&Init::new(5, &Device::flex()));
            let Ragged { values, offsets } = samples(&[90, 0, 41], 2);
            let doubled =
                Ragged { values: values.clone().cast(FloatDType::F64), offsets: offsets.clone() };
            let found = encoder.forward(&Ragged { values, offsets }, Dropout::OFF);
            let expected = map_parameters(encoder, &mut Double).forward(&doubled, Dropout::OFF);
            assert_eq!(expected.values.dtype(), DType::F64);
            for (found, expected) in host(found.values).iter().zip(host(expected.values)) {
                assert!((found - expected).abs() < 1e-5, "{found} and {expected}");
            }
        }
    }

    #[test]
    fn lengths_are_those_of_the_forward_pass() {
        let config = config(false, false);
        let encoder = config.init(&Init::new(5, &Device::flex()));
        let lengths: Vec<usize> = (0..60).collect();
        let found = encoder.forward(&samples(&lengths, 1), Dropout::OFF);
        let expected: Vec<usize> = lengths.iter().map(|&n| config.n_frames(n)).collect();
        assert_eq!(found.offsets.lengths(), expected);
        assert_eq!(found.values.dims(), [expected.iter().sum(), 8]);
        // Nothing but utterances that are too short.
        let nothing = encoder.forward(&samples(&[3, 0], 1), Dropout::OFF);
        assert_eq!((nothing.offsets.lengths(), nothing.values.dims()), (vec![0, 0], [0, 8]));
        // As published: 25 ms see 400 samples, a second has 49 frames.
        let base: Wav2vec2EncoderConfig = serde_json::from_str(
            r#"{"d_model": 768, "n_layers": 12, "n_heads": 12, "d_ff": 3072}"#,
        )
        .unwrap();
        assert_eq!(base, Wav2vec2EncoderConfig::new(768, 12, 12, 3_072));
        assert_eq!(base.samples_per_frame(), 320);
        assert_eq!([399, 400, 719, 720, 16_000].map(|n| base.n_frames(n)), [0, 1, 1, 2, 49]);
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let check = |change: &dyn Fn(&mut Wav2vec2EncoderConfig), expected: &str| {
            let mut config = config(true, true);
            assert!(config.problems().is_empty());
            change(&mut config);
            let problems = config.problems().join("\n");
            assert!(problems.contains(expected), "{problems:?} lacks {expected:?}");
        };
        check(&|c| c.n_heads = 3, "d_model 8 is not a multiple of n_heads 3");
        check(&|c| c.position_groups = 0, "position_groups 0");
        check(&|c| c.position_kernel = 0, "position_kernel is 0");
        check(&|c| c.conv_dims = vec![4], "1, 2 and 2 entries");
        check(&|c| c.conv_strides = vec![4, 0], "at least 1");
        check(&|c| c.conv_strides = vec![usize::MAX, 2], "samples a frame");
        check(&|c| c.layer = Some(3), "layer is 3, expected at most n_layers, 2");
        check(&|c| c.norm_eps = f64::NAN, "norm_eps is NaN");
        check(&|c| c.d_ff = 0, "d_ff");
        let bias = |buckets, max_distance| Some(PositionBiasConfig { buckets, max_distance });
        check(&|c| c.position_bias = bias(3, 5), "buckets is 3");
        check(&|c| c.position_bias = bias(40, 10), "max_distance is 10, expected more than 10");
    }
}
