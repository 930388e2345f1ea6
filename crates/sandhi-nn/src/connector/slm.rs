//! The SLM adapter: reduce time, project, two transformer layers, project
//! ("SLM: Bridge the thin gap between speech and text foundation models", Wang et al., 2023,
//! <https://arxiv.org/abs/2310.00230>).
//!
//! ```text
//! frames   f0 f1 f2 f3 | f4 f5 f6            reduction 4, seven frames
//! stack    [f0 f1 f2 f3] [f4 f5 f6 0]        -> linear -> 2 × block, no mask -> norm -> linear
//! drop      f0            f4
//! ```
//!
//! The paper gives the parameter count (156 M, about 1 % of the two frozen models), not the widths.
//! With frames of 1,536, width 2,432, an inner width of four times that and embeddings of 4,096 the
//! linear layers hold 155.6 M parameters: our inference. Positions are rotary, which the paper does
//! not say.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    Kind, Widths,
    stack::{Remainder, stack},
};
use crate::{
    init::Init,
    layers::{Linear, Norm, NormKind},
    length::Length,
    lora::{Linears, NamedLinears, numbered},
    ops::{self, Mask},
    ragged::{Offsets, Ragged},
    transformer::{Block, BlockConfig, Dropout, Placement},
};

/// How neighbouring frames become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Side by side; the last group is filled with zeros.
    Stack,
    /// The first of each group stays, the others fall out.
    Drop,
}

/// `kind = "slm"` in a recipe's `[connector]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlmConfig {
    /// Encoder frames per output vector: 4 at 25 Hz gives 6.25 vectors a second.
    pub reduction: usize,
    /// How neighbouring frames become one.
    pub reduce: Reduction,
    /// Width of the adapter's transformer.
    pub d_hidden: usize,
    /// Its blocks; the paper has 2.
    pub n_layers: usize,
    /// Its heads; `d_hidden / n_heads` must be even.
    pub n_heads: usize,
    /// Width inside its feed-forward layers.
    pub d_ff: usize,
}

/// Built by [`SlmConfig::init`].
#[derive(Module, Debug)]
pub struct SlmAdapter {
    input: Linear,
    layers: Vec<Block>,
    norm: Norm,
    output: Linear,
    reduction: usize,
    stack: bool,
    recompute: bool,
}

const EPS: f64 = 1e-5;

impl Kind for SlmConfig {
    fn stride(&self) -> Option<usize> {
        Some(self.reduction)
    }
}

impl SlmConfig {
    /// Vectors for `n_frames` frames.
    pub fn length(&self, n_frames: usize) -> Length {
        Length::Exact(n_frames.div_ceil(self.reduction))
    }

    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.reduction == 0 {
            problems.push("reduction is 0, expected at least 1".into());
        }
        if self.n_heads == 0 || !self.d_hidden.is_multiple_of(2 * self.n_heads) {
            problems.push(format!(
                "d_hidden {} over n_heads {} is not an even number",
                self.d_hidden, self.n_heads
            ));
        }
        problems
    }

    /// Builds the adapter with random weights.
    pub fn init(&self, widths: Widths, init: &Init) -> SlmAdapter {
        let block = BlockConfig::plain(self.d_hidden, self.n_heads, self.d_ff, EPS);
        let d_group = match self.reduce {
            Reduction::Stack => self.reduction * widths.d_encoder,
            Reduction::Drop => widths.d_encoder,
        };
        SlmAdapter {
            input: Linear::new(&init.child("input"), d_group, self.d_hidden, true),
            layers: (0..self.n_layers)
                .map(|i| Block::new(&init.child("layers").child(i), &block))
                .collect(),
            norm: Norm::new(&init.child("norm"), NormKind::Layer, self.d_hidden, EPS),
            output: Linear::new(&init.child("output"), self.d_hidden, widths.d_model, true),
            reduction: self.reduction,
            stack: self.reduce == Reduction::Stack,
            recompute: false,
        }
    }
}

impl Linears for SlmAdapter {
    fn linears(&mut self) -> NamedLinears<'_> {
        let ends = [("input".to_owned(), &mut self.input), ("output".to_owned(), &mut self.output)];
        ends.into_iter().chain(numbered("layers", &mut self.layers)).collect()
    }
}

impl SlmAdapter {
    pub(super) fn recompute(&mut self, on: bool) {
        self.recompute = on;
    }

    /// # Shapes
    ///
    /// - `frames.values`: `[n_frames, d_encoder]`
    /// - output: `[n_vectors, d_model]`, `ceil(n / reduction)` vectors an utterance
    pub fn forward(&self, frames: &Ragged, dropout: Dropout) -> Ragged {
        let (groups, offsets) = self.reduce(frames);
        let placement = Placement::packed(&offsets, Mask::Full);
        let x = self.input.forward(groups);
        let x = self.layers.iter().enumerate().fold(x, |x, (i, layer)| {
            let dropout = dropout.branch(&i.to_string());
            layer.forward_or_again(self.recompute, x, &placement, None, dropout)
        });
        Ragged { values: self.output.forward(self.norm.forward(x)), offsets }
    }

    fn reduce(&self, frames: &Ragged) -> (Tensor<2>, Offsets) {
        let k = self.reduction;
        if k == 1 {
            return (frames.values.clone(), frames.offsets.clone());
        }
        if self.stack {
            let groups = stack(frames, k, Remainder::Pad);
            return (groups.values, groups.offsets);
        }
        let kept: Vec<u32> = (0..frames.offsets.n_sequences())
            .flat_map(|i| frames.offsets.range(i).step_by(k))
            .map(|row| row as u32)
            .collect();
        let lengths: Vec<usize> = (0..frames.offsets.n_sequences())
            .map(|i| frames.offsets.range(i).len().div_ceil(k))
            .collect();
        (ops::embedding(frames.values.clone(), &kept), Offsets::from_lengths(&lengths))
    }
}
