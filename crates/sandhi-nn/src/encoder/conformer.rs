//! Conformer (Gulati et al., 2020, <https://arxiv.org/abs/2005.08100>), on packed utterances.
//!
//! ```text
//! log-mel 100 Hz ─ conv k3 s2 ─ gelu ─ conv k3 s2 ─ gelu ─ linear ─ n × block ─> frames 25 Hz
//! block: x + ½ ff ─ + attention ─ + convolution ─ + ½ ff ─ norm
//! ```
//!
//! What differs from the paper: rotary instead of relative positions, and LayerNorm instead of batch
//! norm in the convolution, because an utterance's frames must not depend on its neighbours in the
//! batch.

use burn::{module::Param, prelude::*};
use serde::{Deserialize, Serialize};

use crate::{
    init::Init,
    layers::{Linear, Norm, NormKind},
    lora::{Linears, NamedLinears, below, numbered},
    ops::{self, Mask},
    ragged::{Offsets, Ragged},
    transformer::{Attention, BlockConfig, Dropout, Placement},
};

/// `kind = "conformer"` in a recipe's `[encoder]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConformerConfig {
    /// Width of the frames.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Attention heads; `d_model / n_heads` must be even.
    pub n_heads: usize,
    /// Width inside the two feed-forward layers of a block.
    pub d_ff: usize,
    /// Frames that the depthwise convolution sees, odd: 15 at 25 Hz is 0.6 s.
    pub kernel: usize,
}

/// Feature frames to encoder frames: two convolutions of stride 2, each `ceil(n / 2)`.
pub fn subsampled(n_frames: usize) -> usize {
    n_frames.div_ceil(2).div_ceil(2)
}

/// Built by [`ConformerConfig::init`].
#[derive(Module, Debug)]
pub struct Conformer {
    conv1: Linear,
    conv2: Linear,
    input: Linear,
    layers: Vec<ConformerBlock>,
    recompute: bool,
}

/// One block: half feed-forward, attention, convolution, half feed-forward, norm.
#[derive(Module, Debug)]
pub struct ConformerBlock {
    ff1: FeedForward,
    attn_norm: Norm,
    self_attn: Attention,
    conv: Convolution,
    ff2: FeedForward,
    final_norm: Norm,
}

#[derive(Module, Debug)]
struct FeedForward {
    norm: Norm,
    up: Linear,
    down: Linear,
}

#[derive(Module, Debug)]
struct Convolution {
    norm: Norm,
    pointwise1: Linear,
    /// `[kernel, d]`.
    depthwise: Param<Tensor<2>>,
    depthwise_norm: Norm,
    pointwise2: Linear,
}

const EPS: f64 = 1e-5;

impl FeedForward {
    fn new(init: &Init, config: &ConformerConfig) -> Self {
        Self {
            norm: Norm::new(&init.child("norm"), NormKind::Layer, config.d_model, EPS),
            up: Linear::new(&init.child("up"), config.d_model, config.d_ff, true),
            down: Linear::new(&init.child("down"), config.d_ff, config.d_model, true),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.down.forward(ops::silu(self.up.forward(self.norm.forward(x))))
    }
}

impl Convolution {
    fn new(init: &Init, config: &ConformerConfig) -> Self {
        let d = config.d_model;
        Self {
            norm: Norm::new(&init.child("norm"), NormKind::Layer, d, EPS),
            pointwise1: Linear::new(&init.child("pointwise1"), d, 2 * d, true),
            depthwise: init
                .child("depthwise")
                .normal([config.kernel, d], 1.0 / (config.kernel as f64).sqrt()),
            depthwise_norm: Norm::new(&init.child("depthwise_norm"), NormKind::Layer, d, EPS),
            pointwise2: Linear::new(&init.child("pointwise2"), d, d, true),
        }
    }

    fn forward(&self, x: Tensor<2>, offsets: &Offsets) -> Tensor<2> {
        let gated = ops::glu(self.pointwise1.forward(self.norm.forward(x)));
        let mixed = ops::depthwise_conv(gated, self.depthwise.val(), offsets);
        self.pointwise2.forward(ops::silu(self.depthwise_norm.forward(mixed)))
    }
}

impl ConformerConfig {
    fn attention(&self) -> BlockConfig {
        BlockConfig::plain(self.d_model, self.n_heads, self.d_ff, EPS)
    }

    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let heads = self.n_heads;
        if heads == 0 || !self.d_model.is_multiple_of(2 * heads) {
            problems.push(format!(
                "d_model {} over n_heads {heads} is not an even number, rotary positions need pairs",
                self.d_model
            ));
        }
        if self.kernel.is_multiple_of(2) {
            problems.push(format!("kernel {} is even, expected an odd number", self.kernel));
        }
        if self.n_layers == 0 || self.d_ff == 0 {
            problems.push("n_layers and d_ff must be at least 1".into());
        }
        problems
    }

    /// Builds the encoder with random weights.
    pub fn init(&self, n_mels: usize, init: &Init) -> Conformer {
        let d = self.d_model;
        Conformer {
            conv1: Linear::new(&init.child("conv1"), 3 * n_mels, d, true),
            conv2: Linear::new(&init.child("conv2"), 3 * d, d, true),
            input: Linear::new(&init.child("input"), d, d, true),
            layers: (0..self.n_layers)
                .map(|i| ConformerBlock::new(&init.child("layers").child(i), self))
                .collect(),
            recompute: false,
        }
    }
}

impl Linears for FeedForward {
    fn linears(&mut self) -> NamedLinears<'_> {
        vec![("up".to_owned(), &mut self.up), ("down".to_owned(), &mut self.down)]
    }
}

impl Linears for Convolution {
    fn linears(&mut self) -> NamedLinears<'_> {
        vec![
            ("pointwise1".to_owned(), &mut self.pointwise1),
            ("pointwise2".to_owned(), &mut self.pointwise2),
        ]
    }
}

impl Linears for ConformerBlock {
    fn linears(&mut self) -> NamedLinears<'_> {
        below("ff1", self.ff1.linears())
            .chain(below("self_attn", self.self_attn.linears()))
            .chain(below("conv", self.conv.linears()))
            .chain(below("ff2", self.ff2.linears()))
            .collect()
    }
}

impl Linears for Conformer {
    fn linears(&mut self) -> NamedLinears<'_> {
        let first = [
            ("conv1".to_owned(), &mut self.conv1),
            ("conv2".to_owned(), &mut self.conv2),
            ("input".to_owned(), &mut self.input),
        ];
        first.into_iter().chain(numbered("layers", &mut self.layers)).collect()
    }
}

impl ConformerBlock {
    fn new(init: &Init, config: &ConformerConfig) -> Self {
        let norm = |name: &str| Norm::new(&init.child(name), NormKind::Layer, config.d_model, EPS);
        Self {
            ff1: FeedForward::new(&init.child("ff1"), config),
            attn_norm: norm("attn_norm"),
            self_attn: Attention::new(&init.child("self_attn"), &config.attention()),
            conv: Convolution::new(&init.child("conv"), config),
            ff2: FeedForward::new(&init.child("ff2"), config),
            final_norm: norm("final_norm"),
        }
    }

    fn forward(
        &self,
        x: Tensor<2>,
        placement: &Placement,
        offsets: &Offsets,
        dropout: Dropout,
    ) -> Tensor<2> {
        let x = x.clone() + dropout.branch("ff1").apply(self.ff1.forward(x)) * 0.5;
        let attended = self.self_attn.forward(self.attn_norm.forward(x.clone()), placement, None);
        let x = x + dropout.branch("attn").apply(attended);
        let x = x.clone() + dropout.branch("conv").apply(self.conv.forward(x, offsets));
        let x = x.clone() + dropout.branch("ff2").apply(self.ff2.forward(x)) * 0.5;
        self.final_norm.forward(x)
    }
}

impl Conformer {
    pub(super) fn recompute(&mut self, on: bool) {
        self.recompute = on;
    }

    /// # Shapes
    ///
    /// - `features.values`: `[n_rows, n_mels]`
    /// - output: `[n_frames, d_model]`, [`subsampled`] frames an utterance
    pub fn forward(&self, features: &Ragged, dropout: Dropout) -> Ragged {
        let (x, offsets) = ops::unfold(features.values.clone(), &features.offsets, 3, 2, 1);
        let (x, offsets) = ops::unfold(ops::gelu(self.conv1.forward(x)), &offsets, 3, 2, 1);
        let x = dropout.branch("input").apply(self.input.forward(ops::gelu(self.conv2.forward(x))));
        let placement = Placement::packed(&offsets, Mask::Full);
        let values = self.layers.iter().enumerate().fold(x, |x, (i, layer)| {
            let dropout = dropout.branch(&i.to_string());
            if !self.recompute {
                return layer.forward(x, &placement, &offsets, dropout);
            }
            let (placement, offsets) = (placement.clone(), offsets.clone());
            ops::recompute(layer, x, move |layer, x| {
                layer.forward(x, &placement, &offsets, dropout)
            })
        });
        Ragged { values, offsets }
    }
}
