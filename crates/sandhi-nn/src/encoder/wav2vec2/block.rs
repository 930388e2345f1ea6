//! A block: attention and feed-forward, with the norms after or before them.
//!
//! ```text
//! after    norm(x + attention(x)) = y     norm(y + ff(y))          base models
//! before   x + attention(norm(x)) = y     y + ff(norm(y))          large models
//! ```

use burn::{module::Param, prelude::*, tensor::activation};

use super::Wav2vec2EncoderConfig;
use crate::{
    init::Init,
    layers::{Linear, Norm, NormKind},
    lora::{Linears, NamedLinears},
    ops::{self, AttentionLayout, Mask},
    ragged::Offsets,
    transformer::Dropout,
};

/// What all blocks of a batch share.
#[derive(Clone)]
pub(super) struct Batch {
    pub(super) offsets: Offsets,
    /// The bias of each utterance before it is gated, `[n_heads, n, n]`; none outside of WavLM.
    pub(super) bias: Vec<Tensor<3>>,
}

#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    gate: Option<Gate>,
    n_heads: usize,
}

/// How much each query heeds the bias of positions (WavLM, section III-B, equations 4 to 6).
#[derive(Module, Debug)]
struct Gate {
    /// Two gates of a head's part of a row, each the sum of four outputs.
    linear: Linear,
    /// `[n_heads]`.
    scale: Param<Tensor<1>>,
}

impl Attention {
    fn new(init: &Init, config: &Wav2vec2EncoderConfig) -> Self {
        let d = config.d_model;
        let linear = |name: &str| Linear::new(&init.child(name), d, d, true);
        let gate = |init: &Init| Gate {
            linear: Linear::new(&init.child("linear"), d / config.n_heads, 8, true),
            scale: init.child("scale").constant([config.n_heads], 1.0),
        };
        Self {
            q_proj: linear("q_proj"),
            k_proj: linear("k_proj"),
            v_proj: linear("v_proj"),
            out_proj: linear("out_proj"),
            gate: config.position_bias.as_ref().map(|_| gate(&init.child("gate"))),
            n_heads: config.n_heads,
        }
    }

    fn forward(&self, x: Tensor<2>, batch: &Batch) -> Tensor<2> {
        let [_, d] = x.dims();
        let q = self.q_proj.forward(x.clone());
        let k = self.k_proj.forward(x.clone());
        let v = self.v_proj.forward(x.clone());
        let attended = match &self.gate {
            None => {
                let (n, d_head) = (self.n_heads, d / self.n_heads);
                let layout =
                    AttentionLayout::of_sequences(n, n, d_head, &batch.offsets, Mask::Full);
                ops::ragged_attention(q, k, v, &layout)
            }
            Some(gate) => biased(q, k, v, gate.forward(x, self.n_heads), batch),
        };
        self.out_proj.forward(attended)
    }
}

impl Gate {
    /// `[n_rows, d]` to `[n_rows, n_heads]`.
    fn forward(&self, x: Tensor<2>, n_heads: usize) -> Tensor<2> {
        let [n_rows, d] = x.dims();
        let heads = self.linear.forward(x.reshape([n_rows * n_heads, d / n_heads]));
        let sums = heads.reshape([n_rows, n_heads, 2, 4]).sum_dim(3).reshape([n_rows, n_heads, 2]);
        let gates = activation::sigmoid(sums);
        let gate = |i| gates.clone().narrow(2, i, 1).reshape([n_rows, n_heads]);
        gate(0) * (gate(1) * self.scale.val().unsqueeze() - 1.0) + 2.0
    }
}

/// `softmax(q kᵀ / sqrt(d_head) + gate * bias) v`, utterance by utterance. Ordinary tensor operations: the fused
/// attention takes no bias.
///
/// # Shapes
///
/// - `q`, `k`, `v` and output: `[n_rows, d]`
/// - `gate`: `[n_rows, n_heads]`
fn biased(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, gate: Tensor<2>, batch: &Batch) -> Tensor<2> {
    let ([_, d], [_, n_heads]) = (q.dims(), gate.dims());
    let d_head = d / n_heads;
    let utterances = batch.offsets.iter().zip(&batch.bias).filter(|(rows, _)| !rows.is_empty());
    let parts = utterances.map(|(rows, bias)| {
        let n = rows.len();
        let heads = |x: &Tensor<2>| {
            x.clone().narrow(0, rows.start, n).reshape([n, n_heads, d_head]).swap_dims(0, 1)
        };
        let gate = gate.clone().narrow(0, rows.start, n).transpose().reshape([n_heads, n, 1]);
        let scores = heads(&q).matmul(heads(&k).swap_dims(1, 2)) / (d_head as f64).sqrt();
        let weights = activation::softmax(scores + gate * bias.clone(), 2);
        weights.matmul(heads(&v)).swap_dims(0, 1).reshape([n, d])
    });
    Tensor::cat(parts.collect(), 0)
}

#[derive(Module, Debug)]
struct FeedForward {
    intermediate_dense: Linear,
    output_dense: Linear,
}

/// Attention and feed-forward.
#[derive(Module, Debug)]
pub(super) struct Wav2vec2Block {
    attention: Attention,
    layer_norm: Norm,
    feed_forward: FeedForward,
    final_layer_norm: Norm,
    pre_norm: bool,
}

impl Linears for Wav2vec2Block {
    fn linears(&mut self) -> NamedLinears<'_> {
        let Attention { q_proj, k_proj, v_proj, out_proj, gate, .. } = &mut self.attention;
        let FeedForward { intermediate_dense, output_dense } = &mut self.feed_forward;
        let gate = gate.as_mut().map(|gate| ("attention.gate.linear", &mut gate.linear));
        [
            ("attention.q_proj", q_proj),
            ("attention.k_proj", k_proj),
            ("attention.v_proj", v_proj),
            ("attention.out_proj", out_proj),
            ("feed_forward.intermediate_dense", intermediate_dense),
            ("feed_forward.output_dense", output_dense),
        ]
        .into_iter()
        .chain(gate)
        .map(|(name, linear)| (name.to_owned(), linear))
        .collect()
    }
}

impl Wav2vec2Block {
    pub(super) fn new(init: &Init, config: &Wav2vec2EncoderConfig) -> Self {
        let (d, d_ff) = (config.d_model, config.d_ff);
        let norm = |name: &str| Norm::new(&init.child(name), NormKind::Layer, d, config.norm_eps);
        let ff = init.child("feed_forward");
        Self {
            attention: Attention::new(&init.child("attention"), config),
            layer_norm: norm("layer_norm"),
            feed_forward: FeedForward {
                intermediate_dense: Linear::new(&ff.child("intermediate_dense"), d, d_ff, true),
                output_dense: Linear::new(&ff.child("output_dense"), d_ff, d, true),
            },
            final_layer_norm: norm("final_layer_norm"),
            pre_norm: config.pre_norm,
        }
    }

    /// # Shapes
    ///
    /// - `x`, output: `[n_rows, d]`
    pub(super) fn forward(&self, x: Tensor<2>, batch: &Batch, dropout: Dropout) -> Tensor<2> {
        let attend = |x| dropout.branch("attn").apply(self.attention.forward(x, batch));
        let bend = |x| {
            let inner = ops::gelu(self.feed_forward.intermediate_dense.forward(x));
            dropout.branch("mlp").apply(self.feed_forward.output_dense.forward(inner))
        };
        if self.pre_norm {
            let x = x.clone() + attend(self.layer_norm.forward(x));
            x.clone() + bend(self.final_layer_norm.forward(x))
        } else {
            let x = self.layer_norm.forward(x.clone() + attend(x));
            self.final_layer_norm.forward(x.clone() + bend(x))
        }
    }
}
