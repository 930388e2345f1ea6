//! Attention between tokens and patches.
//!
//! ```text
//! asking rows ─ norm ─ queries ──────┐
//! kept rows ─── norm ─ keys, values ─┴─ attention ─ output        no positions: ranges say who sees whom
//! ```

use burn::prelude::*;

use super::layout::Heads;
use crate::{
    init::Init,
    layers::{Linear, Norm, NormKind},
    ops::{self, AttentionLayout},
};

/// Multi-head attention of one kind of rows to another.
#[derive(Module, Debug)]
pub struct CrossAttention {
    q_norm: Norm,
    kv_norm: Norm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    n_heads: usize,
}

impl CrossAttention {
    /// Builds the layer with random weights, for rows of width `d` on both sides.
    pub fn new(init: &Init, d: usize, n_heads: usize, norm_eps: f64) -> Self {
        let norm = |name: &str| Norm::new(&init.child(name), NormKind::Rms, d, norm_eps);
        let linear = |name: &str| Linear::new(&init.child(name), d, d, false);
        Self {
            q_norm: norm("q_norm"),
            kv_norm: norm("kv_norm"),
            q_proj: linear("q_proj"),
            k_proj: linear("k_proj"),
            v_proj: linear("v_proj"),
            o_proj: linear("o_proj"),
            n_heads,
        }
    }

    pub(super) fn heads(&self, n_queries: usize) -> Heads {
        let [width, _] = self.q_proj.weight.dims();
        Heads { n_heads: self.n_heads, d_head: width / self.n_heads, n_queries }
    }

    /// Keys and values of rows that may be asked, `[n_rows, d]` each.
    pub fn keys(&self, rows: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let rows = self.kv_norm.forward(rows);
        (self.k_proj.forward(rows.clone()), self.v_proj.forward(rows))
    }

    /// What is to be added to the asking rows.
    ///
    /// # Shapes
    ///
    /// - `x`, output: `[n_asking, d]`
    /// - `keys`, `values`: `[n_kept, d]`
    pub fn forward(
        &self,
        x: Tensor<2>,
        (keys, values): (Tensor<2>, Tensor<2>),
        layout: &AttentionLayout,
    ) -> Tensor<2> {
        let queries = self.q_proj.forward(self.q_norm.forward(x));
        self.o_proj.forward(ops::ragged_attention(queries, keys, values, layout))
    }
}
