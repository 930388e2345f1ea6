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

use std::{ops::Range, sync::Arc};

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    init::Init,
    layers::{Embedding, Linear, Norm, NormKind},
    ops::{self, AttentionLayout, Mask, Rope},
    ragged::{Offsets, Ragged},
};

pub use crate::ops::RopeScaling;

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

/// Which rows attend to which, and where they stand.
#[derive(Debug, Clone)]
pub struct Placement {
    queries: Arc<[Range<usize>]>,
    keys: Arc<[Range<usize>]>,
    /// Position of each query row in its sequence.
    positions: Arc<[usize]>,
    mask: Mask,
    /// Rows of the cache that the new keys go to; empty without a cache.
    written: Arc<[usize]>,
    /// The rows that ask, where not all do; the others are keys and values only.
    asking: Option<Asking>,
}

/// Rows that ask, and where they stand.
#[derive(Debug, Clone)]
struct Asking {
    rows: Arc<[u32]>,
    positions: Arc<[usize]>,
}

impl Placement {
    /// Every sequence attends to itself; positions count from 0.
    pub fn packed(offsets: &Offsets, mask: Mask) -> Self {
        let spans: Arc<[Range<usize>]> =
            (0..offsets.n_sequences()).map(|i| offsets.range(i)).collect();
        let positions = spans.iter().flat_map(|span| 0..span.len()).collect();
        let written = Arc::from([]);
        Self { queries: spans.clone(), keys: spans, positions, mask, written, asking: None }
    }

    /// The same, but that only the last `tails[i]` rows of sequence `i` ask.
    ///
    /// # Panics
    ///
    /// When a sequence has fewer rows, or there are more or fewer sequences than tails.
    pub fn of_tails(&self, tails: &[usize]) -> Self {
        assert_eq!(self.queries.len(), tails.len(), "one tail a sequence");
        let offsets = Offsets::from_lengths(tails);
        let rows: Vec<u32> = self
            .queries
            .iter()
            .zip(tails)
            .flat_map(|(span, &tail)| {
                assert!(tail <= span.len(), "a tail is longer than its sequence");
                (span.end - tail..span.end).map(|row| row as u32)
            })
            .collect();
        let positions = rows.iter().map(|&row| self.positions[row as usize]).collect();
        Self {
            queries: offsets.iter().collect(),
            asking: Some(Asking { rows: rows.into(), positions }),
            ..self.clone()
        }
    }

    /// The rows of `x` that ask.
    fn ask(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.asking {
            None => x,
            Some(asking) => ops::embedding(x, &asking.rows),
        }
    }
}

/// Keys and values of the sequences that are being decoded, at the level of embeddings: it does not
/// know whether a row was a token or a frame of speech.
///
/// Every sequence owns a slot of rows that is as long as it may become.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<Option<(Tensor<2>, Tensor<2>)>>,
    /// Row span of each sequence's slot.
    slots: Vec<Range<usize>>,
    /// Rows in use of each slot.
    lengths: Vec<usize>,
}

impl Cache {
    /// How many rows the sequence `i` has filled.
    pub fn length(&self, i: usize) -> usize {
        self.lengths[i]
    }

    /// A cache whose sequence `i` begins with the rows of sequence `parents[i]` of this one and has room
    /// for `capacities[i]` rows: what several continuations share is read once.
    ///
    /// # Panics
    ///
    /// When a capacity is smaller than what its parent has filled.
    pub fn fork(&self, parents: &[usize], capacities: &[usize]) -> Self {
        assert_eq!(parents.len(), capacities.len());
        let (mut slots, mut order) = (Vec::with_capacity(parents.len()), Vec::new());
        for (&parent, &capacity) in parents.iter().zip(capacities) {
            let (first, length) = (self.slots[parent].start, self.lengths[parent]);
            assert!(length <= capacity, "a sequence is longer than its slot of the cache");
            let start = order.len();
            order.extend((first..first + length).map(|row| row as u32));
            // Rows to come: written before they are read.
            order.resize(start + capacity, 0);
            slots.push(start..order.len());
        }
        let gather = |rows: &Tensor<2>| ops::embedding(rows.clone(), &order);
        let layers = self
            .layers
            .iter()
            .map(|layer| layer.as_ref().map(|(keys, values)| (gather(keys), gather(values))))
            .collect();
        Self { layers, slots, lengths: parents.iter().map(|&i| self.lengths[i]).collect() }
    }

    /// Claims room for `counts[k]` new rows of sequence `sequences[k]`.
    fn place(&mut self, sequences: &[usize], counts: &[usize], mask: Mask) -> Placement {
        let (mut queries, mut keys) = (Vec::new(), Vec::new());
        let (mut positions, mut written) = (Vec::new(), Vec::new());
        let mut row = 0;
        for (&sequence, &count) in sequences.iter().zip(counts) {
            let (slot, length) = (self.slots[sequence].clone(), self.lengths[sequence]);
            assert!(length + count <= slot.len(), "a sequence outgrew its slot of the cache");
            queries.push(row..row + count);
            keys.push(slot.start..slot.start + length + count);
            positions.extend(length..length + count);
            written.extend(slot.start + length..slot.start + length + count);
            self.lengths[sequence] += count;
            row += count;
        }
        Placement {
            queries: queries.into(),
            keys: keys.into(),
            positions: positions.into(),
            mask,
            written: written.into(),
            asking: None,
        }
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
            mask: placement.mask,
        };
        self.o_proj.forward(ops::ragged_attention(q, k, v, &layout))
    }
}

/// The feed-forward half of a block.
#[derive(Module, Debug)]
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
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: Norm,
    post_attention_layernorm: Norm,
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

/// Counter-based dropout: which entries fall out depends on a key and on their place alone.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    probability: f64,
    key: u64,
}

impl Dropout {
    /// Keeps everything: evaluation.
    pub const OFF: Self = Self { probability: 0.0, key: 0 };

    /// Drops with `probability`; `key` names the step and the replica.
    pub fn new(probability: f64, key: u64) -> Self {
        Self { probability, key }
    }

    /// The same dropout for another place of the model.
    pub fn branch(self, name: &str) -> Self {
        if self.probability == 0.0 {
            return self;
        }
        Self { key: crate::init::stream(self.key, name), ..self }
    }

    /// Applies it; kept entries are scaled by `1 / (1 - probability)`.
    pub fn apply(self, x: Tensor<2>) -> Tensor<2> {
        if self.probability == 0.0 { x } else { ops::dropout(x, self.probability, self.key) }
    }
}

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

    /// Which projections have a bias.
    pub fn bias(&self) -> AttentionBias {
        let qkv = self.attention_bias;
        AttentionBias { q: qkv, k: qkv, v: qkv, o: self.output_bias }
    }

    /// The shape of block `i`.
    fn block(&self, i: usize) -> BlockConfig {
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
        }
    }
}

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
        let placement = Placement::packed(&input.offsets, self.mask());
        self.run(input.values.clone(), &placement, Some(tails), None, &[], dropout).last
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
            x = layer.forward(x, placement, entry, dropout.branch(&i.to_string()));
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
        let mut start = 0;
        let slots: Vec<_> = capacities
            .iter()
            .map(|&n| {
                let slot = start..start + n;
                start += n;
                slot
            })
            .collect();
        let device = self.device();
        let layers = self
            .model
            .layers
            .iter()
            .map(|layer| {
                let width = layer.self_attn.n_kv_heads * layer.self_attn.d_head;
                let zeros = || Tensor::zeros([start, width], &device);
                Some((zeros(), zeros()))
            })
            .collect();
        Cache { layers, lengths: vec![0; slots.len()], slots }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::host;

    fn model(window: Option<usize>) -> CausalLm {
        let config: TransformerConfig = serde_json::from_value(serde_json::json!({
            "d_model": 16, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "d_ff": 24,
            "qk_norm": true, "window": window,
        }))
        .unwrap();
        config.init(30, &Init::new(5, &Device::flex()))
    }

    fn packed(lm: &CausalLm, sequences: &[&[u32]]) -> Ragged {
        let lengths: Vec<usize> = sequences.iter().map(|ids| ids.len()).collect();
        Ragged { values: lm.embed(&sequences.concat()), offsets: Offsets::from_lengths(&lengths) }
    }

    fn rows(hidden: Tensor<2>) -> Vec<Vec<f32>> {
        let [_, width] = hidden.dims();
        host(hidden).chunks(width).map(<[f32]>::to_vec).collect()
    }

    fn assert_close(a: &[Vec<f32>], b: &[Vec<f32>]) {
        assert_eq!(a.len(), b.len());
        for (a, b) in a.concat().into_iter().zip(b.concat()) {
            assert!((a - b).abs() < 1e-5, "{a} and {b}");
        }
    }

    #[test]
    fn tails_are_the_last_rows_of_whole_sequences() {
        for window in [None, Some(3)] {
            let lm = model(window);
            let input = packed(&lm, &[&[1, 2, 3, 4, 5], &[6], &[7, 8, 9]]);
            let whole = rows(lm.forward(&input, &[], Dropout::OFF).last);
            let tails = rows(lm.forward_tails(&input, &[2, 1, 3], Dropout::OFF));
            let expected: Vec<Vec<f32>> =
                [3, 4, 5, 6, 7, 8].map(|i: usize| whole[i].clone()).into();
            assert_close(&tails, &expected);
        }
    }

    #[test]
    #[should_panic(expected = "a tail is longer than its sequence")]
    fn a_tail_beyond_its_sequence_is_refused() {
        let lm = model(None);
        lm.forward_tails(&packed(&lm, &[&[1, 2]]), &[3], Dropout::OFF);
    }

    #[test]
    fn forks_of_a_cache_go_on_as_whole_sequences_do() {
        for window in [None, Some(3)] {
            let lm = model(window);
            let heads: [&[u32]; 2] = [&[1, 2, 3, 4], &[5, 6]];
            let mut cache = lm.cache(&[4, 2]);
            lm.extend_to_last(&packed(&lm, &heads), &[0, 1], &mut cache);
            // Two go on from the second head, one from the first, one of them with room to spare.
            let (parents, tails): ([usize; 3], [&[u32]; 3]) =
                ([1, 0, 1], [&[7, 8, 9], &[10], &[11, 12]]);
            let mut forks = cache.fork(&parents, &[5, 7, 4]);
            assert_eq!([0, 1, 2].map(|i| forks.length(i)), [2, 4, 2]);
            let found = rows(lm.extend(&packed(&lm, &tails), &[0, 1, 2], &mut forks));
            let whole: Vec<Vec<u32>> =
                parents.iter().zip(tails).map(|(&i, tail)| [heads[i], tail].concat()).collect();
            let whole: Vec<&[u32]> = whole.iter().map(Vec::as_slice).collect();
            let n_tails = tails.map(<[u32]>::len);
            let expected = rows(lm.forward_tails(&packed(&lm, &whole), &n_tails, Dropout::OFF));
            assert_close(&found, &expected);
            // The parent goes on as if nobody had left.
            let mut cache = lm.cache(&[6, 4]);
            lm.extend_to_last(&packed(&lm, &heads), &[0, 1], &mut cache);
            let mut forks = cache.fork(&parents, &[5, 7, 4]);
            let more: [&[u32]; 2] = [&[13], &[14, 15]];
            lm.extend(&packed(&lm, &tails), &[0, 1, 2], &mut forks);
            let found = rows(lm.extend(&packed(&lm, &more), &[0, 1], &mut cache));
            let whole = [[heads[0], more[0]].concat(), [heads[1], more[1]].concat()];
            let whole = [whole[0].as_slice(), whole[1].as_slice()];
            let expected = rows(lm.forward_tails(&packed(&lm, &whole), &[1, 2], Dropout::OFF));
            assert_close(&found, &expected);
        }
    }

    #[test]
    fn gradients_through_tails_are_those_through_all_rows() {
        let lm = model(None);
        let lm = crate::weights::to_autodiff(lm);
        let input = packed(&lm, &[&[1, 2, 3], &[4, 5]]);
        let leaf =
            Tensor::<2>::from_data(input.values.inner().into_data(), &lm.device()).require_grad();
        let input = Ragged { values: leaf.clone(), offsets: input.offsets };
        let slope = |hidden: Tensor<2>| {
            let gradients = hidden.powf_scalar(2.0).sum().backward();
            rows(leaf.grad(&gradients).expect("a leaf"))
        };
        let tails = slope(lm.forward_tails(&input, &[1, 2], Dropout::OFF));
        let all = lm.forward(&input, &[], Dropout::OFF).last;
        assert_close(&tails, &slope(ops::embedding(all, &[2, 3, 4])));
    }
}
