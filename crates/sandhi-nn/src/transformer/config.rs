//! Sizes and options of a language model, and the model built from them.

use serde::{Deserialize, Serialize};

use super::{AttentionBias, Block, BlockConfig, CausalLm, MlpKind, Transformer};
use crate::{
    init::Init,
    layers::{Embedding, Linear, Norm, NormKind},
    ops::{Rope, RopeScaling},
};

/// A decoder-only language model: `[language_model]` in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerConfig {
    /// Width of embeddings and residual stream.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; equal to `n_heads` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_kv_heads: Option<usize>,
    /// Width of a head; `d_model / n_heads` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub d_head: Option<usize>,
    /// Width inside the feed-forward layer.
    pub d_ff: usize,
    /// Base of the rotary frequencies.
    #[serde(default = "default_theta")]
    pub rope_theta: f64,
    /// What makes the rotary frequencies slower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Blocks without rotary positions, counted from 0 (SmolLM3).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrotated: Vec<usize>,
    /// Added to the mean square in norms.
    #[serde(default = "default_eps")]
    pub norm_eps: f64,
    /// The output layer is the embedding table.
    #[serde(default)]
    pub tie_embeddings: bool,
    /// RMSNorm over each head of queries and keys.
    #[serde(default)]
    pub qk_norm: bool,
    /// Biases on query, key and value projections (Qwen2).
    #[serde(default)]
    pub attention_bias: bool,
    /// Bias on the attention's output projection (some Llamas).
    #[serde(default, skip_serializing_if = "is_false")]
    pub output_bias: bool,
    /// Each position sees at most this many last positions, itself included; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn default_theta() -> f64 {
    10_000.0
}

fn default_eps() -> f64 {
    1e-5
}

impl TransformerConfig {
    /// Key and value heads.
    pub fn kv_heads(&self) -> usize {
        self.n_kv_heads.unwrap_or(self.n_heads)
    }

    /// Width of a head.
    pub fn head_width(&self) -> usize {
        self.d_head.unwrap_or(self.d_model / self.n_heads.max(1))
    }

    /// Whether the same numbers come of both: what is left out is what it stands for.
    pub fn computes_as(&self, other: &Self) -> bool {
        let said = |config: &Self| Self {
            n_kv_heads: Some(config.kv_heads()),
            d_head: Some(config.head_width()),
            ..config.clone()
        };
        said(self) == said(other)
    }

    /// What is wrong with the sizes, as sentences that name the fields.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, value) in [
            ("d_model", self.d_model),
            ("n_layers", self.n_layers),
            ("n_heads", self.n_heads),
            ("d_ff", self.d_ff),
        ] {
            if value == 0 {
                problems.push(format!("{name} is 0, expected at least 1"));
            }
        }
        let divides = self.n_heads > 0 && self.d_model.is_multiple_of(self.n_heads);
        if self.d_head.is_none() && self.n_heads > 0 && !divides {
            problems.push(format!(
                "d_model {} is not a multiple of n_heads {}",
                self.d_model, self.n_heads
            ));
        } else if !self.head_width().is_multiple_of(2) {
            problems.push(format!(
                "head width {} is odd, rotary positions need pairs",
                self.head_width()
            ));
        }
        if self.kv_heads() == 0 || !self.n_heads.is_multiple_of(self.kv_heads()) {
            problems.push(format!(
                "n_heads {} is not a multiple of n_kv_heads {}",
                self.n_heads,
                self.kv_heads()
            ));
        }
        if let Some(i) = self.unrotated.iter().find(|&&i| i >= self.n_layers) {
            problems.push(format!("unrotated has block {i}, there are {} from 0", self.n_layers));
        }
        let rope = Rope { theta: self.rope_theta, scaling: self.rope_scaling };
        problems.extend(rope.problems());
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            problems.push(format!("norm_eps is {}, expected a finite number", self.norm_eps));
        }
        if self.window == Some(0) {
            problems.push("window is 0, expected at least 1".into());
        }
        problems
    }

    /// A model for tests.
    #[cfg(test)]
    pub(crate) fn tiny() -> Self {
        Self {
            d_model: 8,
            n_layers: 2,
            n_heads: 2,
            n_kv_heads: Some(1),
            d_head: None,
            d_ff: 12,
            rope_theta: default_theta(),
            rope_scaling: None,
            unrotated: Vec::new(),
            norm_eps: default_eps(),
            tie_embeddings: true,
            qk_norm: true,
            attention_bias: false,
            output_bias: false,
            window: None,
        }
    }

    /// Which projections have a bias.
    pub fn bias(&self) -> AttentionBias {
        let qkv = self.attention_bias;
        AttentionBias { q: qkv, k: qkv, v: qkv, o: self.output_bias }
    }

    /// The shape of block `i`.
    pub(crate) fn block(&self, i: usize) -> BlockConfig {
        let rope = Rope { theta: self.rope_theta, scaling: self.rope_scaling };
        BlockConfig {
            d_model: self.d_model,
            n_heads: self.n_heads,
            n_kv_heads: self.kv_heads(),
            d_head: self.head_width(),
            d_ff: self.d_ff,
            norm: NormKind::Rms,
            mlp: MlpKind::SwiGlu,
            bias: self.bias(),
            qk_norm: self.qk_norm,
            norm_eps: self.norm_eps,
            rope: (!self.unrotated.contains(&i)).then_some(rope),
        }
    }

    /// Builds the model with random weights for a vocabulary of `n_tokens`.
    pub fn init(&self, n_tokens: usize, init: &Init) -> CausalLm {
        let inner = init.child("model");
        CausalLm {
            model: Transformer {
                embed_tokens: Embedding::new(
                    &inner.child("embed_tokens"),
                    n_tokens,
                    self.d_model,
                    1.0 / (self.d_model as f64).sqrt(),
                ),
                layers: (0..self.n_layers)
                    .map(|i| Block::new(&inner.child("layers").child(i), &self.block(i)))
                    .collect(),
                norm: Norm::new(&inner.child("norm"), NormKind::Rms, self.d_model, self.norm_eps),
            },
            lm_head: (!self.tie_embeddings)
                .then(|| Linear::new(&init.child("lm_head"), self.d_model, n_tokens, false)),
            window: self.window,
            recompute: false,
        }
    }
}
