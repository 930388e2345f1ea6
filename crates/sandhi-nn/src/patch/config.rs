//! Sizes and options of a model over patches, and the model built from them.

use serde::{Deserialize, Serialize};

use super::{
    Decoder, PatchLm, ReadingBlock, Stack,
    cross::CrossAttention,
    router::{Router, RouterConfig},
    text::TextSide,
};
use crate::{
    init::Init,
    layers::{Embedding, Linear, Norm, NormKind},
    ops::Rope,
    transformer::{AttentionBias, Block, BlockConfig, MlpKind, TransformerConfig},
};

/// A stack of blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StackConfig {
    /// Blocks.
    pub n_layers: usize,
    /// Heads of queries, keys and values.
    pub n_heads: usize,
    /// Width inside the feed-forward layers; two thirds of four times the width, rounded up to a multiple of 256, where
    /// absent, as in Llama.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub d_ff: Option<usize>,
    /// How many last rows a row sees, itself included; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
}

impl StackConfig {
    /// Width inside the feed-forward layers of a stack of width `d`.
    pub fn feed_forward(&self, d: usize) -> usize {
        self.d_ff.unwrap_or_else(|| (8 * d).div_ceil(3).next_multiple_of(256))
    }

    fn problems(&self, name: &str, d: usize) -> Vec<String> {
        let mut problems = Vec::new();
        for (field, value) in
            [("n_layers", self.n_layers), ("d_ff", self.feed_forward(d)), ("n_heads", self.n_heads)]
        {
            if value == 0 {
                problems.push(format!("{name}.{field} is 0, expected at least 1"));
            }
        }
        let n_heads = self.n_heads.max(1);
        if !d.is_multiple_of(n_heads) || !(d / n_heads).is_multiple_of(2) {
            problems.push(format!(
                "{name}.n_heads is {n_heads}, expected one that divides the width, {d}, into even parts"
            ));
        }
        if self.window == Some(0) {
            problems.push(format!("{name}.window is 0, expected at least 1"));
        }
        problems
    }
}

/// A language model over patches: `network = { kind = "patch", … }` in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchLmConfig {
    /// Width of tokens.
    pub d_local: usize,
    /// Width of patches; that of `text` where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub d_global: Option<usize>,
    /// From tokens to patches.
    pub encoder: StackConfig,
    /// Over patches; `text` where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global: Option<StackConfig>,
    /// A language model of text in the place of `global`, with a table and a head around the patches, so that the model
    /// can begin as it. Its table and head have rows for units too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TransformerConfig>,
    /// From patches to tokens.
    pub decoder: StackConfig,
    /// Rows that stand for a patch among tokens, each of width `d_local`: more carry more.
    pub n_queries: usize,
    /// Heads of the attention between tokens and patches.
    pub cross_heads: usize,
    /// Patches that a patch gathers tokens from and a token reads: 1 is its own and the last.
    #[serde(default = "one")]
    pub cross_window: usize,
    /// Where patches end is learned; given with the data where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<RouterConfig>,
    /// Base of the rotary frequencies.
    #[serde(default = "theta")]
    pub rope_theta: f64,
    /// Added to mean squares in norms.
    #[serde(default = "eps")]
    pub norm_eps: f64,
    /// The output layer is the embedding table.
    #[serde(default)]
    pub tie_embeddings: bool,
}

fn one() -> usize {
    1
}

fn theta() -> f64 {
    500_000.0
}

fn eps() -> f64 {
    1e-5
}

impl PatchLmConfig {
    /// What is wrong with the sizes, as sentences that name the fields.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, value) in [
            ("d_local", self.d_local),
            ("n_queries", self.n_queries),
            ("cross_heads", self.cross_heads),
            ("cross_window", self.cross_window),
        ] {
            if value == 0 {
                problems.push(format!("{name} is 0, expected at least 1"));
            }
        }
        problems.extend(self.encoder.problems("encoder", self.d_local));
        match (&self.text, self.d_global, &self.global) {
            (Some(text), None, None) => {
                problems
                    .extend(text.problems().into_iter().map(|problem| format!("text.{problem}")));
                if self.tie_embeddings {
                    problems.push(
                        "tie_embeddings is true beside text: the head of tokens begins at 0 and has weights of its own; \
                         text.tie_embeddings is for the text model's"
                            .into(),
                    );
                }
            }
            (Some(_), ..) => problems
                .push("d_global or global is given beside text, which has their place".into()),
            (None, Some(d_global), Some(global)) => {
                if d_global == 0 {
                    problems.push("d_global is 0, expected at least 1".into());
                }
                problems.extend(global.problems("global", d_global));
            }
            (None, d_global, _) => {
                let missing = if d_global.is_none() { "d_global" } else { "global" };
                problems.push(format!("{missing} is missing, expected it or text"));
            }
        }
        problems.extend(self.decoder.problems("decoder", self.d_local));
        if !self.d_local.is_multiple_of(self.cross_heads.max(1)) {
            let (d_local, heads) = (self.d_local, self.cross_heads);
            problems.push(format!("d_local {d_local} is not a multiple of cross_heads {heads}"));
        }
        problems.extend(Rope::new(self.rope_theta).problems());
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            problems.push(format!("norm_eps is {}, expected a finite number", self.norm_eps));
        }
        let router = self.router.iter().flat_map(RouterConfig::problems);
        problems.extend(router.map(|problem| format!("router.{problem}")));
        problems
    }

    /// Width of all rows that stand for a patch.
    pub fn gathered_width(&self) -> usize {
        self.n_queries * self.d_local
    }

    /// Width of patches; 0 where nothing says it.
    pub fn d_global(&self) -> usize {
        match &self.text {
            Some(text) => text.d_model,
            None => self.d_global.unwrap_or_default(),
        }
    }

    /// Blocks over patches.
    pub fn n_global_layers(&self) -> usize {
        match (&self.text, &self.global) {
            (Some(text), _) => text.n_layers,
            (None, global) => global.as_ref().map_or(0, |global| global.n_layers),
        }
    }

    /// The blocks over patches, and how many last rows a row sees.
    fn global(&self) -> (Vec<BlockConfig>, Option<usize>) {
        match (&self.text, &self.global) {
            (Some(text), _) => ((0..text.n_layers).map(|i| text.block(i)).collect(), text.window),
            (None, Some(stack)) => {
                (vec![self.block(stack, self.d_global()); stack.n_layers], stack.window)
            }
            (None, None) => (Vec::new(), None),
        }
    }

    fn block(&self, stack: &StackConfig, d: usize) -> BlockConfig {
        BlockConfig {
            d_model: d,
            n_heads: stack.n_heads,
            n_kv_heads: stack.n_heads,
            d_head: d / stack.n_heads,
            d_ff: stack.feed_forward(d),
            norm: NormKind::Rms,
            mlp: MlpKind::SwiGlu,
            bias: AttentionBias::default(),
            qk_norm: false,
            norm_eps: self.norm_eps,
            rope: Some(Rope::new(self.rope_theta)),
        }
    }

    /// Builds the model with random weights for a vocabulary of `n_tokens`.
    ///
    /// # Panics
    ///
    /// When there are [`PatchLmConfig::problems`].
    pub fn init(&self, n_tokens: usize, init: &Init) -> PatchLm {
        let problems = self.problems();
        assert!(problems.is_empty(), "{}", problems.join("; "));
        let (d_local, d_global, gathered) = (self.d_local, self.d_global(), self.gathered_width());
        let layer = |name: &str, i: usize| init.child(name).child("layers").child(i);
        let stack = |name: &str, blocks: &[BlockConfig]| Stack {
            layers: (0..)
                .zip(blocks)
                .map(|(i, block)| Block::new(&layer(name, i), block))
                .collect(),
        };
        let local = self.block(&self.encoder, d_local);
        let (global, window) = self.global();
        let linear = |name: &str, d_in, d_out| Linear::new(&init.child(name), d_in, d_out, false);
        let cross =
            |init: &Init| CrossAttention::new(init, d_local, self.cross_heads, self.norm_eps);
        let block = self.block(&self.decoder, d_local);
        let reading = |i: usize| {
            let init = layer("decoder", i);
            let block = Block::new(&init.child("block"), &block);
            ReadingBlock { read: cross(&init.child("read")), block }
        };
        PatchLm {
            embed_tokens: Embedding::new(
                &init.child("embed_tokens"),
                n_tokens,
                d_local,
                1.0 / (d_local as f64).sqrt(),
            ),
            encoder: stack("encoder", &vec![local; self.encoder.n_layers]),
            router: self.router.map(|_| Router::new(&init.child("router"), d_local)),
            pool_proj: linear("pool_proj", d_local, gathered),
            gather: cross(&init.child("gather")),
            widen: (gathered != d_global).then(|| linear("widen", gathered, d_global)),
            global: stack("global", &global),
            memory_proj: linear("memory_proj", d_global, gathered),
            decoder: Decoder { layers: (0..self.decoder.n_layers).map(reading).collect() },
            norm: Norm::new(&init.child("norm"), NormKind::Rms, d_local, self.norm_eps),
            lm_head: (!self.tie_embeddings).then(|| {
                // Beside a text model, which is the one that predicts at first.
                let gain = if self.text.is_some() { 0.0 } else { 1.0 };
                Linear::scaled(&init.child("lm_head"), d_local, n_tokens, false, gain)
            }),
            text: self.text.as_ref().map(|text| TextSide::new(&init.child("text"), text, n_tokens)),
            n_queries: self.n_queries,
            cross_window: self.cross_window,
            windows: [self.encoder.window, window, self.decoder.window]
                .map(|window| window.unwrap_or(0)),
            units_per_patch: self.router.unwrap_or_default().units_per_patch,
            recompute: false,
        }
    }
}
