//! The three layers that hold parameters: linear, norm and embedding.
//!
//! They call the fused operations of [`crate::ops`] on packed rows `[n_rows, width]`. Their field
//! names are those of Hugging Face checkpoints; [`crate::weights`] transposes `Linear` on the way.

use burn::{module::Param, prelude::*};
use serde::{Deserialize, Serialize};

use crate::{init::Init, lora::Lora, ops};

/// `y = x W + b`, and the branch of a LoRA where there is one.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[d_in, d_out]`; stored as `[d_out, d_in]` in files, as PyTorch does.
    pub weight: Param<Tensor<2>>,
    /// `[d_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// A low-rank branch, given by [`crate::lora::attach`].
    pub lora: Option<Lora>,
}

impl Linear {
    /// Normal weights of variance `1 / d_in`, zero bias.
    pub fn new(init: &Init, d_in: usize, d_out: usize, bias: bool) -> Self {
        Self::scaled(init, d_in, d_out, bias, 1.0)
    }

    /// As [`Linear::new`] with the standard deviation multiplied by `gain`.
    pub fn scaled(init: &Init, d_in: usize, d_out: usize, bias: bool, gain: f64) -> Self {
        Self {
            weight: init.child("weight").normal([d_in, d_out], gain / (d_in as f64).sqrt()),
            bias: bias.then(|| init.child("bias").constant([d_out], 0.0)),
            lora: None,
        }
    }

    /// # Shapes
    ///
    /// - `x`: `[n_rows, d_in]`
    /// - output: `[n_rows, d_out]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let branch = self.lora.as_ref().map(|lora| lora.forward(x.clone()));
        let y = ops::linear(x, self.weight.val(), self.bias.as_ref().map(Param::val));
        match branch {
            Some(branch) => y + branch,
            None => y,
        }
    }
}

/// Which statistics a [`Norm`] removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// Root mean square (Zhang and Sennrich, 2019), weight only.
    #[default]
    Rms,
    /// Mean and variance (Ba et al., 2016), weight and bias.
    Layer,
}

/// RMSNorm, or LayerNorm when it has a bias.
#[derive(Module, Debug)]
pub struct Norm {
    /// `[d]`.
    pub weight: Param<Tensor<1>>,
    /// `[d]`; present in a LayerNorm only.
    pub bias: Option<Param<Tensor<1>>>,
    /// Added to the variance.
    pub eps: f64,
}

impl Norm {
    /// Unit weight, zero bias.
    pub fn new(init: &Init, kind: NormKind, d: usize, eps: f64) -> Self {
        Self {
            weight: init.child("weight").constant([d], 1.0),
            bias: (kind == NormKind::Layer).then(|| init.child("bias").constant([d], 0.0)),
            eps,
        }
    }

    /// # Shapes
    ///
    /// - `x`, output: `[n_rows, d]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.bias {
            None => ops::rms_norm(x, self.weight.val(), self.eps),
            Some(bias) => ops::layer_norm(x, self.weight.val(), bias.val(), self.eps),
        }
    }
}

/// A table of vectors, one per token.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[n_tokens, d]`.
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    /// Normal rows of standard deviation `std`.
    pub fn new(init: &Init, n_tokens: usize, d: usize, std: f64) -> Self {
        Self { weight: init.child("weight").normal([n_tokens, d], std) }
    }

    /// # Shapes
    ///
    /// - `ids`: `[n_rows]`, each below the number of rows of the table
    /// - output: `[n_rows, d]`
    pub fn forward(&self, ids: &[u32]) -> Tensor<2> {
        ops::embedding(self.weight.val(), ids)
    }
}
