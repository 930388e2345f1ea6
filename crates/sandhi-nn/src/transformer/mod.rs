//! The one transformer of the project.
//!
//! It takes packed embeddings with their offsets, a mask and positions, and gives hidden states of
//! any depth. The language model uses it causally with a key-value cache, the SLM adapter without a
//! mask. Names are those of Hugging Face's Llama layout.
//!
//! ```text
//! rows  a0 a1 a2 | b0 b1 | c0 c1 c2 c3        three sequences, no padding
//!       └─ each attends within its own span ─┘
//! x ─ norm ─ attention ─ + ─ norm ─ mlp ─ + ─> next block
//! └───────────────────────┘└────────────────┘
//! ```

mod attention;
mod block;
mod config;
mod dropout;
mod placement;
#[cfg(test)]
mod tests;

use burn::prelude::*;

pub(crate) use self::block::run_blocks;
pub use self::{
    attention::{Attention, AttentionBias},
    block::{Block, BlockConfig, Gelu, Mlp, MlpKind, SwiGlu},
    config::TransformerConfig,
    dropout::Dropout,
    placement::{Cache, Placement},
};
use crate::{
    layers::{Embedding, Linear, Norm},
    lora::{Linears, NamedLinears, numbered},
    ops::{self, Mask},
    ragged::Ragged,
};

/// Embeddings, blocks and the last norm.
#[derive(Module, Debug)]
pub struct Transformer {
    embed_tokens: Embedding,
    layers: Vec<Block>,
    norm: Norm,
}

/// A decoder-only language model over packed sequences of embeddings.
#[derive(Module, Debug)]
pub struct CausalLm {
    model: Transformer,
    /// Absent when the embedding table is the output layer too.
    lm_head: Option<Linear>,
    window: Option<usize>,
    recompute: bool,
}

/// Hidden states of a forward pass.
#[derive(Debug)]
pub struct Hidden {
    /// After the last block and its norm, `[n_rows, d_model]`.
    pub last: Tensor<2>,
    /// The residual stream at the depths that were asked for, in that order; depth 0 is the input,
    /// depth `n_layers` what leaves the last block before its norm.
    pub depths: Vec<Tensor<2>>,
}

impl Linears for CausalLm {
    fn linears(&mut self) -> NamedLinears<'_> {
        let head = self.lm_head.as_mut().map(|head| ("lm_head".to_owned(), head));
        numbered("model.layers", &mut self.model.layers).chain(head).collect()
    }
}

impl CausalLm {
    /// Rows of the embedding table.
    pub fn n_tokens(&self) -> usize {
        self.model.embed_tokens.weight.dims()[0]
    }

    /// Width of the embeddings.
    pub fn d_model(&self) -> usize {
        self.model.embed_tokens.weight.dims()[1]
    }

    /// The device that the weights are on.
    pub fn device(&self) -> Device {
        self.model.norm.weight.device()
    }

    /// The embedding table, `[n_tokens, d_model]`.
    pub fn embedding_table(&self) -> Tensor<2> {
        self.model.embed_tokens.weight.val()
    }

    /// Embeddings of tokens, `[n_rows, d_model]`.
    pub fn embed(&self, ids: &[u32]) -> Tensor<2> {
        self.model.embed_tokens.forward(ids)
    }

    /// Whether blocks run again in the backward pass instead of keeping what they computed.
    pub fn recompute(&mut self, on: bool) {
        self.recompute = on;
    }

    fn mask(&self) -> Mask {
        self.window.map_or(Mask::Causal, Mask::Window)
    }

    /// Runs whole sequences. `depths` asks for hidden states besides the last.
    ///
    /// # Shapes
    ///
    /// - `input.values`: `[n_rows, d_model]`
    pub fn forward(&self, input: &Ragged, depths: &[usize], dropout: Dropout) -> Hidden {
        let placement = Placement::packed(&input.offsets, self.mask());
        self.run(input.values.clone(), &placement, None, None, depths, dropout)
    }

    /// Runs whole sequences for the hidden states of their last `tails[i]` rows: the last block does not
    /// work on the others.
    ///
    /// # Shapes
    ///
    /// - `input.values`: `[n_rows, d_model]`
    /// - output: `[sum of tails, d_model]`
    pub fn forward_tails(&self, input: &Ragged, tails: &[usize], dropout: Dropout) -> Tensor<2> {
        self.forward_tails_at(input, tails, &[], dropout).last
    }

    /// As [`CausalLm::forward_tails`], with the hidden states of all rows at `depths` besides.
    ///
    /// # Panics
    ///
    /// When a depth is that of the last block or beyond, which does not work on all rows.
    pub fn forward_tails_at(
        &self,
        input: &Ragged,
        tails: &[usize],
        depths: &[usize],
        dropout: Dropout,
    ) -> Hidden {
        let n_layers = self.model.layers.len();
        assert!(depths.iter().all(|&depth| depth < n_layers), "depths {depths:?} of {n_layers}");
        let placement = Placement::packed(&input.offsets, self.mask());
        self.run(input.values.clone(), &placement, Some(tails), None, depths, dropout)
    }

    /// Runs whole sequences up to the deepest of `depths` and gives the hidden states there, in their order.
    ///
    /// # Shapes
    ///
    /// - `input.values` and output: `[n_rows, d_model]`
    ///
    /// # Panics
    ///
    /// When a depth is beyond the last block.
    pub fn forward_depths(&self, input: &Ragged, depths: &[usize]) -> Vec<Tensor<2>> {
        let placement = Placement::packed(&input.offsets, self.mask());
        let deepest = depths.iter().copied().max().unwrap_or(0);
        let mut states = vec![input.values.clone()];
        for layer in &self.model.layers[..deepest] {
            let x = states[states.len() - 1].clone();
            states.push(layer.forward_or_again(self.recompute, x, &placement, None, Dropout::OFF));
        }
        depths.iter().map(|&depth| states[depth].clone()).collect()
    }

    fn run(
        &self,
        mut x: Tensor<2>,
        placement: &Placement,
        tails: Option<&[usize]>,
        mut cache: Option<&mut Cache>,
        depths: &[usize],
        dropout: Dropout,
    ) -> Hidden {
        let last = tails.map(|tails| placement.of_tails(tails));
        let n_layers = self.model.layers.len();
        let mut kept: Vec<Option<Tensor<2>>> = vec![None; depths.len()];
        let mut keep = |depth: usize, x: &Tensor<2>| {
            for (slot, _) in kept.iter_mut().zip(depths).filter(|(_, d)| **d == depth) {
                *slot = Some(x.clone());
            }
        };
        keep(0, &x);
        for (i, layer) in self.model.layers.iter().enumerate() {
            let entry = cache.as_deref_mut().map(|cache| &mut cache.layers[i]);
            let placement = last.as_ref().filter(|_| i + 1 == n_layers).unwrap_or(placement);
            x = layer.forward_or_again(
                self.recompute,
                x,
                placement,
                entry,
                dropout.branch(&i.to_string()),
            );
            keep(i + 1, &x);
        }
        let depths = kept
            .into_iter()
            .zip(depths)
            .map(|(x, d)| x.unwrap_or_else(|| panic!("depth {d} is beyond the last block")))
            .collect();
        Hidden { last: self.model.norm.forward(x), depths }
    }

    /// Scores of the next token at every row.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[n_rows, d_model]`
    /// - output: `[n_rows, n_tokens]`
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => ops::linear(hidden, self.embedding_table().transpose(), None),
        }
    }

    /// An empty cache with room for `capacities[i]` rows of sequence `i`.
    pub fn cache(&self, capacities: &[usize]) -> Cache {
        let layers: Vec<&Block> = self.model.layers.iter().collect();
        Cache::new(&layers, capacities, &self.device())
    }

    /// Appends rows to the sequences `sequences` (indices into the cache) and gives the hidden state
    /// of every new row.
    ///
    /// # Shapes
    ///
    /// - `input.values`: `[n_rows, d_model]`, one span per entry of `sequences`
    /// - output: `[n_rows, d_model]`
    pub fn extend(&self, input: &Ragged, sequences: &[usize], cache: &mut Cache) -> Tensor<2> {
        self.append(input, sequences, None, cache)
    }

    /// As [`CausalLm::extend`], for the hidden state of the last new row of every sequence.
    ///
    /// # Shapes
    ///
    /// - `input.values`: `[n_rows, d_model]`, one span per entry of `sequences`
    /// - output: `[n_sequences, d_model]`
    pub fn extend_to_last(
        &self,
        input: &Ragged,
        sequences: &[usize],
        cache: &mut Cache,
    ) -> Tensor<2> {
        self.append(input, sequences, Some(&vec![1; sequences.len()]), cache)
    }

    fn append(
        &self,
        input: &Ragged,
        sequences: &[usize],
        tails: Option<&[usize]>,
        cache: &mut Cache,
    ) -> Tensor<2> {
        assert_eq!(input.offsets.n_sequences(), sequences.len());
        let counts = input.offsets.lengths();
        let placement = cache.place(sequences, &counts, self.mask());
        self.run(input.values.clone(), &placement, tails, Some(cache), &[], Dropout::OFF).last
    }
}
