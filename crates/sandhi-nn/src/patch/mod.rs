//! A language model over latent patches: tokens become patches, a large transformer works on patches, and tokens are
//! predicted from the patches before them (LST, Yen-Ju Lu et al., 2025, <https://arxiv.org/abs/2510.06195>, after the byte
//! latent transformer, Pagnoni et al., 2024, <https://arxiv.org/abs/2412.09871>).
//!
//! ```text
//! tokens      B  S  a  b  c  d  T  w        text and markers alone, units of speech in patches
//!             └──┴──┴──┴──┴──┴──┴──┴ encoder: causal, over tokens
//! patches     0  1  └─ 2 ─────┘  3  4       the maximum of a patch's states asks all of them (gather)
//!             └──┴──────┴────────┴──┴ global transformer: causal, over patches
//! memory      m0 m1     m2       m3 m4
//! decoder     every token reads the memory of the last patch that is whole (read), then sees tokens before it
//! logits      of the next token
//! ```
//!
//! Patches are given with the data ([`Closing`] says of every token what ended with it), or learned
//! ([`router`]). Either way a position depends on tokens up to itself alone, and so the same tokens give the same logits
//! all at once and one by one ([`State`]). The global transformer may be a language model of text, with its own table and
//! head around the patches ([`PatchLmConfig::text`]). Residuals are plain: the reference adds the input of its attention between
//! tokens and patches twice.

mod config;
mod cross;
mod layout;
mod router;
mod state;
#[cfg(test)]
mod tests;
mod text;

use burn::prelude::*;

pub use self::{
    config::{PatchLmConfig, StackConfig},
    layout::{Closing, members},
    router::RouterConfig,
    state::State,
};
use self::{
    cross::CrossAttention,
    layout::{Heads, Layout},
    router::{Routed, Router},
    state::{Pass, Place, Tokens},
    text::TextSide,
};
use crate::{
    layers::{Embedding, Linear, Norm},
    ops::{self, Mask},
    ragged::Offsets,
    transformer::{Block, Dropout, run_blocks},
};

/// A stack of blocks.
#[derive(Module, Debug)]
pub struct Stack {
    layers: Vec<Block>,
}

/// A block of the decoder, which reads patches before it sees tokens.
#[derive(Module, Debug)]
pub struct ReadingBlock {
    read: CrossAttention,
    block: Block,
}

/// The blocks of the decoder.
#[derive(Module, Debug)]
pub struct Decoder {
    layers: Vec<ReadingBlock>,
}

/// Built by [`PatchLmConfig::init`].
#[derive(Module, Debug)]
pub struct PatchLm {
    embed_tokens: Embedding,
    encoder: Stack,
    router: Option<Router>,
    pool_proj: Linear,
    gather: CrossAttention,
    widen: Option<Linear>,
    global: Stack,
    memory_proj: Linear,
    decoder: Decoder,
    norm: Norm,
    lm_head: Option<Linear>,
    text: Option<TextSide>,
    n_queries: usize,
    cross_window: usize,
    /// Of encoder, global transformer and decoder; 0 sees all.
    windows: [usize; 3],
    units_per_patch: f64,
    recompute: bool,
}

/// Where the patches of tokens end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boundaries<'a> {
    /// Known: one for every token.
    Given(&'a [Closing]),
    /// The model finds them; for every token whether it is a patch of its own in any case.
    Learned {
        /// One for every token.
        alone: &'a [bool],
    },
}

/// Documents, or parts of them that follow what a [`State`] has read.
#[derive(Debug, Clone)]
pub struct Documents<'a> {
    /// All tokens.
    pub ids: &'a [u32],
    /// The tokens of each document.
    pub offsets: Offsets,
    /// Where their patches end.
    pub boundaries: Boundaries<'a>,
}

/// What a pass gives.
#[derive(Debug)]
pub struct PatchOutput {
    /// State of every token, `[n_tokens, d_local]`, and where there is a text model that of its patch, `d_global` columns
    /// more; see [`PatchLm::logits`].
    pub hidden: Tensor<2>,
    /// Patches that became whole in every document.
    pub n_patches: Vec<usize>,
    /// What every one of them is to the global transformer, `[n_patches, d_global]`; none where none became whole.
    pub patches: Option<Tensor<2>>,
    /// The ratio loss, summed over units, where boundaries are learned.
    pub ratio: Option<Tensor<1>>,
    /// Where patches ended.
    pub closings: Vec<Closing>,
}

fn mask(window: usize) -> Mask {
    if window == 0 { Mask::Causal } else { Mask::Window(window) }
}

impl PatchLm {
    /// Rows of the embedding table.
    pub fn n_tokens(&self) -> usize {
        self.embed_tokens.weight.dims()[0]
    }

    /// Whether it finds boundaries itself.
    pub fn learns_boundaries(&self) -> bool {
        self.router.is_some()
    }

    /// The device that the weights are on.
    pub fn device(&self) -> Device {
        self.norm.weight.device()
    }

    /// Whether blocks run again in the backward pass instead of keeping what they computed.
    pub fn recompute(&mut self, on: bool) {
        self.recompute = on;
    }

    /// Scores of the next token at every row.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[n_rows, d_local]`, `[n_rows, d_local + d_global]` with a text model
    /// - output: `[n_rows, n_tokens]`
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let of_tokens = |hidden| match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => ops::linear(hidden, self.embed_tokens.weight.val().transpose(), None),
        };
        let Some(text) = &self.text else { return of_tokens(hidden) };
        let d_local = self.norm.weight.dims()[0];
        let of_patches = hidden.clone().narrow(1, d_local, text.d_global());
        of_tokens(hidden.narrow(1, 0, d_local)) + text.logits(of_patches)
    }

    /// Runs whole documents.
    ///
    /// # Panics
    ///
    /// When boundaries are not those that the model wants, do not fit the tokens, or the first token of a document is no
    /// patch.
    pub fn forward(&self, documents: &Documents, dropout: Dropout) -> PatchOutput {
        self.run(documents, Pass::Whole, dropout)
    }

    /// Nothing read yet of sequences that may have `capacities[i]` tokens.
    pub fn start(&self, capacities: &[usize]) -> State {
        State::new(self, capacities)
    }

    /// Reads tokens that follow what the sequences `sequences` of a state have: one span of `documents` for each.
    ///
    /// # Panics
    ///
    /// As [`PatchLm::forward`], and when a sequence outgrows its capacity.
    pub fn extend(
        &self,
        documents: &Documents,
        sequences: &[usize],
        state: &mut State,
    ) -> PatchOutput {
        self.run(documents, Pass::Kept { state, sequences }, Dropout::OFF)
    }

    fn run(&self, documents: &Documents, mut pass: Pass, dropout: Dropout) -> PatchOutput {
        let tokens = &documents.offsets;
        let mut progress = pass.progress(tokens.n_sequences());
        let again = self.recompute;

        // Tokens.
        let placement = pass.place(Place::Encoder, tokens, mask(self.windows[0]));
        let x = self.embed_tokens.forward(documents.ids);
        let of_encoder = dropout.branch("encoder");
        let states = run_blocks(
            &self.encoder.layers,
            x,
            &placement,
            pass.cache(Place::Encoder),
            again,
            of_encoder,
        );
        let keys = self.gather.keys(states.clone());
        let kept = pass.keep_tokens((tokens, documents.ids), &progress, states.clone(), keys);

        // Patches.
        let (closings, routed) = self.boundaries(documents, &states, &kept.states, &kept.previous);
        let layout = Layout::new(&mut progress, &closings, tokens, &kept.spans);
        pass.put(progress);
        let new = (layout.patches.n_rows() > 0).then(|| {
            let gathered = self.gathered(&kept, &layout);
            let gathered = match &self.text {
                Some(text) => {
                    let (ids, members) = pass.members_ids(documents.ids, &layout.members);
                    text.enter(gathered, &ids, &members)
                }
                None => gathered,
            };
            let placement = pass.place(Place::Global, &layout.patches, mask(self.windows[1]));
            let (cache, dropout) = (pass.cache(Place::Global), dropout.branch("global"));
            let x = run_blocks(
                &self.global.layers,
                gathered.clone(),
                &placement,
                cache,
                again,
                dropout,
            );
            let smooth = match &routed {
                Some(routed) => pass.smooth(x.clone(), routed, &layout),
                None => x.clone(),
            };
            (gathered, x, self.memory(smooth))
        });

        // Tokens from patches.
        let placement = pass.place(Place::Decoder, tokens, mask(self.windows[2]));
        let confidence = routed.as_ref().map(Routed::confidence);
        let spans = pass.memory_spans(&layout, self.n_queries);
        let reading = layout.reading(tokens, &spans, self.heads(), self.cross_window);
        let mut x = states;
        for (i, ReadingBlock { read, block }) in self.decoder.layers.iter().enumerate() {
            let keys = new.as_ref().map(|(.., memory)| read.keys(memory.clone()));
            let keys = pass.keep_memory(i, &layout, keys);
            let mut heard = read.forward(x.clone(), keys, &reading);
            if let Some(confidence) = &confidence {
                heard = heard * confidence.clone();
            }
            let dropout = dropout.branch("decoder").branch(&i.to_string());
            let entry = pass.cache(Place::Decoder).map(|cache| cache.entry(i));
            x = block.forward_or_again(again, x + heard, &placement, entry, dropout);
        }
        let ratio = match (&routed, &documents.boundaries) {
            (Some(routed), Boundaries::Learned { alone }) => {
                Some(routed.ratio_loss(tokens, alone, self.units_per_patch))
            }
            _ => None,
        };
        let (gathered, patches) = new.map(|(gathered, x, _)| (gathered, x)).unzip();
        let x = self.norm.forward(x);
        PatchOutput {
            hidden: match &self.text {
                Some(text) => Tensor::cat(vec![x, text.leave(patches, &layout)], 1),
                None => x,
            },
            n_patches: layout.patches.lengths(),
            patches: gathered,
            ratio,
            closings,
        }
    }

    /// Where patches end, and how the model knows where it finds that out.
    ///
    /// `kept` are states of which the row `previous[i]` is that of the token before token `i`.
    fn boundaries(
        &self,
        documents: &Documents,
        states: &Tensor<2>,
        kept: &Tensor<2>,
        previous: &[u32],
    ) -> (Vec<Closing>, Option<Routed>) {
        let n_tokens = documents.offsets.n_rows();
        assert_eq!(documents.ids.len(), n_tokens, "the offsets cover the tokens");
        match (&self.router, &documents.boundaries) {
            (None, Boundaries::Given(closings)) => {
                assert_eq!(closings.len(), n_tokens, "every token says what it ends");
                (closings.to_vec(), None)
            }
            (Some(router), Boundaries::Learned { alone }) => {
                assert_eq!(alone.len(), n_tokens, "of every token it is known whether it is alone");
                let before = ops::embedding(kept.clone(), previous);
                let routed = router.route(before, states.clone(), alone);
                (routed.closings.clone(), Some(routed))
            }
            (None, Boundaries::Learned { .. }) => panic!("the model learns no boundaries"),
            (Some(_), Boundaries::Given(_)) => panic!("the model finds boundaries itself"),
        }
    }

    /// New patches from the states of their tokens, `[n_patches, d_global]`.
    fn gathered(&self, kept: &Tokens, layout: &Layout) -> Tensor<2> {
        let pooled = self.pool_proj.forward(ops::max_pool(kept.states.clone(), &layout.members));
        let [n_patches, width] = pooled.dims();
        let queries = pooled.reshape([n_patches * self.n_queries, width / self.n_queries]);
        let asked = layout.gathering(&kept.spans, self.heads(), self.cross_window);
        let answer = self.gather.forward(queries.clone(), kept.keys.clone(), &asked);
        let gathered = (queries + answer).reshape([n_patches, width]);
        match &self.widen {
            Some(widen) => widen.forward(gathered),
            None => gathered,
        }
    }

    fn heads(&self) -> Heads {
        self.gather.heads(self.n_queries)
    }

    /// What tokens read of patches, `n_queries` rows of width `d_local` each.
    fn memory(&self, patches: Tensor<2>) -> Tensor<2> {
        let memory = self.memory_proj.forward(patches);
        let [n_patches, width] = memory.dims();
        memory.reshape([n_patches * self.n_queries, width / self.n_queries])
    }
}
