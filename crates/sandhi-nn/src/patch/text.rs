//! A text model around the global transformer: what lets a model over patches begin as a language model of text.
//!
//! ```text
//! tokens      B  w  a  b  c  d  T  v
//! patches     0  1  └─ 2 ─────┘  3  4      + the sum of their tokens' rows in the text model's table
//!             └──┴──────┴────────┴──┴ the text model's blocks
//! logits      0  1           2   3  4      + the text model's head, at the token that made a patch whole
//! ```
//!
//! What the patch encoder gives is multiplied by a gate that begins at 0, and the decoder's head begins at 0: at the first
//! step every token that is a patch of its own is predicted as the text model does, to the last operation, and tokens in
//! larger patches are learned from there. (After byte models that begin as models of pieces: Pagnoni et al., 2024,
//! <https://arxiv.org/abs/2412.09871>, section 5.2; the gate is that of ReZero, Bachlechner et al., 2020,
//! <https://arxiv.org/abs/2003.04887>.)

use burn::{module::Param, prelude::*};

use super::layout::Layout;
use crate::{
    init::Init,
    layers::{Embedding, Linear, Norm, NormKind},
    ops,
    ragged::Offsets,
    transformer::TransformerConfig,
};

/// What a text model has besides its blocks.
#[derive(Module, Debug)]
pub struct TextSide {
    embed_tokens: Embedding,
    /// How much of what the encoder gives goes into a patch, `[d_global]`.
    pub(super) gate: Param<Tensor<1>>,
    norm: Norm,
    lm_head: Option<Linear>,
}

fn ones(n: usize, device: &Device) -> Tensor<2> {
    Tensor::ones([n, 1], device)
}

impl TextSide {
    pub(super) fn new(init: &Init, config: &TransformerConfig, n_tokens: usize) -> Self {
        let d = config.d_model;
        let std = 1.0 / (d as f64).sqrt();
        Self {
            embed_tokens: Embedding::new(&init.child("embed_tokens"), n_tokens, d, std),
            gate: init.child("gate").constant([d], 0.0),
            norm: Norm::new(&init.child("norm"), NormKind::Rms, d, config.norm_eps),
            lm_head: (!config.tie_embeddings)
                .then(|| Linear::new(&init.child("lm_head"), d, n_tokens, false)),
        }
    }

    /// Patches with the rows of their tokens.
    ///
    /// # Shapes
    ///
    /// - `gathered`, output: `[n_patches, d_global]`
    /// - `ids`: the tokens of the patches, `members` those of each
    pub(super) fn enter(&self, gathered: Tensor<2>, ids: &[u32], members: &Offsets) -> Tensor<2> {
        let table = self.embed_tokens.weight.val();
        let sums = ops::pool(table, ones(ids.len(), &gathered.device()), ids, members);
        sums + gathered * self.gate.val().unsqueeze()
    }

    /// For every new token the state of the patch that it made whole; zeros where it made none whole that it is in.
    ///
    /// # Shapes
    ///
    /// - `patches`: `[n_patches, d_global]`, the new ones; none where none became whole
    /// - output: `[n_tokens, d_global]`
    pub(super) fn leave(&self, patches: Option<Tensor<2>>, layout: &Layout) -> Tensor<2> {
        let made = layout.made_whole();
        let [d] = self.norm.weight.dims();
        let Some(patches) = patches else {
            return Tensor::zeros([made.len(), d], &self.norm.weight.device());
        };
        let rows: Vec<u32> = made.iter().flatten().copied().collect();
        let lengths: Vec<usize> = made.iter().map(|patch| usize::from(patch.is_some())).collect();
        let weights = ones(rows.len(), &patches.device());
        ops::pool(self.norm.forward(patches), weights, &rows, &Offsets::from_lengths(&lengths))
    }

    /// # Shapes
    ///
    /// - `states`: `[n_rows, d_global]`
    /// - output: `[n_rows, n_tokens]`
    pub(super) fn logits(&self, states: Tensor<2>) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.forward(states),
            None => ops::linear(states, self.embed_tokens.weight.val().transpose(), None),
        }
    }

    pub(super) fn d_global(&self) -> usize {
        self.norm.weight.dims()[0]
    }
}
