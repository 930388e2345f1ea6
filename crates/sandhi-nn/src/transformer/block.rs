//! A block: attention and feed-forward, each behind a norm and around a residual.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Attention, AttentionBias, Cache, Dropout, Placement};
use crate::{
    init::Init,
    layers::{Linear, Norm, NormKind},
    lora::{Linears, NamedLinears, below},
    ops::{self, Rope},
};

/// How a feed-forward layer bends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum MlpKind {
    /// `down(silu(gate(x)) * up(x))`, without biases.
    #[default]
    SwiGlu,
    /// `fc2(gelu(fc1(x)))`, with biases.
    Gelu,
}

/// The shape of a stack of blocks, as both the language model and the adapter use it.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head; even, because rotary positions pair its entries.
    pub d_head: usize,
    /// Width inside the feed-forward layer.
    pub d_ff: usize,
    /// Which norm stands before attention and feed-forward.
    pub norm: NormKind,
    /// Which feed-forward layer.
    pub mlp: MlpKind,
    /// Biases on the attention's projections.
    pub bias: AttentionBias,
    /// RMSNorm over each head of queries and keys (Qwen3).
    pub qk_norm: bool,
    /// Added to variances.
    pub norm_eps: f64,
    /// Rotary positions; none where absent.
    pub rope: Option<Rope>,
}

impl BlockConfig {
    /// The block of an encoder or adapter of ours: as many heads for keys as for queries, LayerNorm, GELU, biases on
    /// queries, keys and values, rotary positions.
    pub fn plain(d_model: usize, n_heads: usize, d_ff: usize, norm_eps: f64) -> Self {
        Self {
            d_model,
            n_heads,
            n_kv_heads: n_heads,
            d_head: d_model / n_heads,
            d_ff,
            norm: NormKind::Layer,
            mlp: MlpKind::Gelu,
            bias: AttentionBias::QKV,
            qk_norm: false,
            norm_eps,
            rope: Some(Rope::new(10_000.0)),
        }
    }
}

/// The feed-forward half of a block.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // handles of tensors, not tensors
pub enum Mlp {
    /// Gated, as in Llama.
    SwiGlu(SwiGlu),
    /// Two layers with GELU between, as in BERT and Whisper.
    Gelu(Gelu),
}

/// `down(silu(gate(x)) * up(x))`.
#[derive(Module, Debug)]
pub struct SwiGlu {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

/// `fc2(gelu(fc1(x)))`.
#[derive(Module, Debug)]
pub struct Gelu {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    /// Builds the chosen layer with random weights.
    pub fn new(init: &Init, kind: MlpKind, d_model: usize, d_ff: usize) -> Self {
        let linear =
            |name: &str, d_in, d_out, bias| Linear::new(&init.child(name), d_in, d_out, bias);
        match kind {
            MlpKind::SwiGlu => Self::SwiGlu(SwiGlu {
                gate_proj: linear("gate_proj", d_model, d_ff, false),
                up_proj: linear("up_proj", d_model, d_ff, false),
                down_proj: linear("down_proj", d_ff, d_model, false),
            }),
            MlpKind::Gelu => Self::Gelu(Gelu {
                fc1: linear("fc1", d_model, d_ff, true),
                fc2: linear("fc2", d_ff, d_model, true),
            }),
        }
    }

    /// # Shapes
    ///
    /// - `x`, output: `[n_rows, d_model]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::SwiGlu(mlp) => {
                let gate = mlp.gate_proj.forward(x.clone());
                mlp.down_proj.forward(ops::swiglu(gate, mlp.up_proj.forward(x)))
            }
            Self::Gelu(mlp) => mlp.fc2.forward(ops::gelu(mlp.fc1.forward(x))),
        }
    }
}

/// Attention and feed-forward, each behind a norm and around a residual.
#[derive(Module, Debug)]
pub struct Block {
    pub(super) self_attn: Attention,
    mlp: Mlp,
    input_layernorm: Norm,
    post_attention_layernorm: Norm,
}

impl Linears for Mlp {
    fn linears(&mut self) -> NamedLinears<'_> {
        match self {
            Self::SwiGlu(mlp) => vec![
                ("gate_proj".to_owned(), &mut mlp.gate_proj),
                ("up_proj".to_owned(), &mut mlp.up_proj),
                ("down_proj".to_owned(), &mut mlp.down_proj),
            ],
            Self::Gelu(mlp) => {
                vec![("fc1".to_owned(), &mut mlp.fc1), ("fc2".to_owned(), &mut mlp.fc2)]
            }
        }
    }
}

impl Linears for Block {
    fn linears(&mut self) -> NamedLinears<'_> {
        let attention = below("self_attn", self.self_attn.linears());
        attention.chain(below("mlp", self.mlp.linears())).collect()
    }
}

/// Runs a stack of blocks, each in its entry of the cache where there is one.
pub(crate) fn run_blocks(
    blocks: &[Block],
    mut x: Tensor<2>,
    placement: &Placement,
    mut cache: Option<&mut Cache>,
    again: bool,
    dropout: Dropout,
) -> Tensor<2> {
    for (i, block) in blocks.iter().enumerate() {
        let entry = cache.as_deref_mut().map(|cache| &mut cache.layers[i]);
        x = block.forward_or_again(again, x, placement, entry, dropout.branch(&i.to_string()));
    }
    x
}

impl Block {
    /// Builds a block with random weights.
    pub fn new(init: &Init, config: &BlockConfig) -> Self {
        let norm =
            |name: &str| Norm::new(&init.child(name), config.norm, config.d_model, config.norm_eps);
        Self {
            self_attn: Attention::new(&init.child("self_attn"), config),
            mlp: Mlp::new(&init.child("mlp"), config.mlp, config.d_model, config.d_ff),
            input_layernorm: norm("input_layernorm"),
            post_attention_layernorm: norm("post_attention_layernorm"),
        }
    }

    /// As [`Block::forward`]; with `again`, what is computed is computed again in the backward pass, and not kept.
    /// What is written into a cache is not learned from, and so not run again.
    pub(crate) fn forward_or_again(
        &self,
        again: bool,
        x: Tensor<2>,
        placement: &Placement,
        cache: Option<&mut Option<(Tensor<2>, Tensor<2>)>>,
        dropout: Dropout,
    ) -> Tensor<2> {
        if !again || cache.is_some() {
            return self.forward(x, placement, cache, dropout);
        }
        let placement = placement.clone();
        ops::recompute(self, x, move |block, x| block.forward(x, &placement, None, dropout))
    }

    /// # Shapes
    ///
    /// - `x`: `[n_rows, d_model]`; output: `[n_asking, d_model]`
    pub fn forward(
        &self,
        x: Tensor<2>,
        placement: &Placement,
        cache: Option<&mut Option<(Tensor<2>, Tensor<2>)>>,
        dropout: Dropout,
    ) -> Tensor<2> {
        let attended =
            self.self_attn.forward(self.input_layernorm.forward(x.clone()), placement, cache);
        let x = placement.ask(x) + dropout.branch("attn").apply(attended);
        let bent = self.mlp.forward(self.post_attention_layernorm.forward(x.clone()));
        x + dropout.branch("mlp").apply(bent)
    }
}
