//! Multi-head attention with grouped keys.

use burn::prelude::*;

use super::{BlockConfig, Placement};
use crate::{
    init::Init,
    layers::{Linear, Norm, NormKind},
    lora::{Linears, NamedLinears},
    ops::{self, AttentionLayout, Rope},
};

/// Which projections of an attention have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttentionBias {
    /// Of queries.
    pub q: bool,
    /// Of keys.
    pub k: bool,
    /// Of values.
    pub v: bool,
    /// Of what comes out.
    pub o: bool,
}

impl AttentionBias {
    /// All but the output, as in Qwen2.
    pub const QKV: Self = Self { q: true, k: true, v: true, o: false };
}

/// Multi-head attention with grouped keys and rotary positions.
#[derive(Module, Debug)]
pub struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
    n_heads: usize,
    n_kv_heads: usize,
    d_head: usize,
    #[module(skip)]
    rope: Option<Rope>,
}

impl Linears for Attention {
    fn linears(&mut self) -> NamedLinears<'_> {
        vec![
            ("q_proj".to_owned(), &mut self.q_proj),
            ("k_proj".to_owned(), &mut self.k_proj),
            ("v_proj".to_owned(), &mut self.v_proj),
            ("o_proj".to_owned(), &mut self.o_proj),
        ]
    }
}

impl Attention {
    /// Builds the layer with random weights.
    pub fn new(init: &Init, config: &BlockConfig) -> Self {
        let d_q = config.n_heads * config.d_head;
        let d_kv = config.n_kv_heads * config.d_head;
        let linear =
            |name: &str, d_in, d_out, bias| Linear::new(&init.child(name), d_in, d_out, bias);
        let head_norm = |name: &str| {
            config.qk_norm.then(|| {
                Norm::new(&init.child(name), NormKind::Rms, config.d_head, config.norm_eps)
            })
        };
        Self {
            q_proj: linear("q_proj", config.d_model, d_q, config.bias.q),
            k_proj: linear("k_proj", config.d_model, d_kv, config.bias.k),
            v_proj: linear("v_proj", config.d_model, d_kv, config.bias.v),
            o_proj: linear("o_proj", d_q, config.d_model, config.bias.o),
            q_norm: head_norm("q_norm"),
            k_norm: head_norm("k_norm"),
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            d_head: config.d_head,
            rope: config.rope,
        }
    }

    /// Width of a row's keys, and of its values.
    pub(super) fn kv_width(&self) -> usize {
        self.n_kv_heads * self.d_head
    }

    /// # Shapes
    ///
    /// - `x`: `[n_rows, d_model]`; output: `[n_asking, d_model]`
    /// - `cache`: keys and values of this layer, `[n_slots, n_kv_heads * d_head]` each
    pub fn forward(
        &self,
        x: Tensor<2>,
        placement: &Placement,
        cache: Option<&mut Option<(Tensor<2>, Tensor<2>)>>,
    ) -> Tensor<2> {
        let heads = |x: Tensor<2>, norm: &Option<Norm>, n: usize| match norm {
            None => x,
            Some(norm) => {
                let [n_rows, width] = x.dims();
                norm.forward(x.reshape([n_rows * n, self.d_head])).reshape([n_rows, width])
            }
        };
        let rotate = |x, positions: &[usize], n| match self.rope {
            Some(rope) => ops::rotary(x, positions, n, rope),
            None => x,
        };
        let asking = placement.asking.as_ref().map_or(&placement.positions, |a| &a.positions);
        let q = self.q_proj.forward(placement.ask(x.clone()));
        let q = rotate(heads(q, &self.q_norm, self.n_heads), asking, self.n_heads);
        let k = heads(self.k_proj.forward(x.clone()), &self.k_norm, self.n_kv_heads);
        let k = rotate(k, &placement.positions, self.n_kv_heads);
        let v = self.v_proj.forward(x);

        let (k, v) = match cache {
            None => (k, v),
            Some(entry) => {
                // Taken out, so that each buffer has one owner and is written in place.
                let (keys, values) = entry.take().expect("the cache was made for this stack");
                let keys = ops::write_rows(keys, k, &placement.written);
                let values = ops::write_rows(values, v, &placement.written);
                *entry = Some((keys.clone(), values.clone()));
                (keys, values)
            }
        };
        let layout = AttentionLayout {
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            d_head: self.d_head,
            queries: placement.queries.clone(),
            keys: placement.keys.clone(),
            mask: placement.mask.clone(),
        };
        self.o_proj.forward(ops::ragged_attention(q, k, v, &layout))
    }
}
