//! Q-Former: a number of learned queries ask all frames of an utterance ("BLIP-2: Bootstrapping language-image
//! pre-training with frozen image encoders and large language models", Li et al., 2023,
//! <https://arxiv.org/abs/2301.12597>; for speech with 64 queries in SLAM-LLM, <https://arxiv.org/abs/2402.08846>).
//!
//! ```text
//! queries  q0 q1 … q63 ─ norm ─ n × layer ─ linear ─ norm ─> as many vectors, however long the utterance
//! frames   f0 f1 f2 … fn ─────────┘ keys and values
//!
//! layer:   x ─ attention to the queries ─ + norm ─ attention to the frames ─ + norm ─ mlp ─ + norm
//!          └──────────────────────────────┘└──────────────────────────────┘└────────┘
//! ```
//!
//! The layers are BERT's: norms stand behind the residuals, all projections have biases. There are no positions: what
//! the frames know of their places is all there is. Queries that see no frame, those of an utterance without any, have
//! the bias of the output projection as their answer.

use std::{ops::Range, sync::Arc};

use burn::{module::Param, prelude::*};
use serde::{Deserialize, Serialize};

use super::{Kind, Widths};
use crate::{
    init::Init,
    layers::{Linear, Norm, NormKind},
    length::Length,
    lora::{Linears, NamedLinears, below, numbered},
    ops::{self, AttentionLayout, Mask},
    ragged::{Offsets, Ragged},
    transformer::{Dropout, Mlp, MlpKind},
};

/// `kind = "q_former"` in a recipe's `[connector]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QFormerConfig {
    /// Vectors of an utterance, whatever its length; SLAM-LLM has 64.
    pub n_queries: usize,
    /// Width of the queries; BERT's is 768.
    pub d_hidden: usize,
    /// Layers; SLAM-LLM has 8.
    pub n_layers: usize,
    /// Heads of every attention; divides `d_hidden`.
    pub n_heads: usize,
    /// Width inside the feed-forward layers.
    pub d_ff: usize,
    /// The first of every so many layers asks the frames, the others only the queries; BLIP-2 has 2.
    #[serde(default = "one")]
    pub cross_attention_frequency: usize,
}

pub(super) fn one() -> usize {
    1
}

/// What both Q-Formers are made from.
pub(super) struct Sizes {
    pub(super) n_queries: usize,
    pub(super) d_hidden: usize,
    pub(super) n_layers: usize,
    pub(super) n_heads: usize,
    pub(super) d_ff: usize,
    pub(super) cross_attention_frequency: usize,
    /// Frames that a set of queries asks; all where absent.
    pub(super) window: Option<usize>,
    /// A LayerNorm on the frames.
    pub(super) input_norm: bool,
    /// A LayerNorm on the vectors.
    pub(super) output_norm: bool,
}

/// Built by [`QFormerConfig::init`] and [`super::WindowQFormerConfig::init`].
#[derive(Module, Debug)]
pub struct QFormer {
    input_norm: Option<Norm>,
    /// `[n_queries, d_hidden]`.
    queries: Param<Tensor<2>>,
    query_norm: Norm,
    layers: Vec<QFormerLayer>,
    output: Linear,
    output_norm: Option<Norm>,
    n_heads: usize,
    #[module(skip)]
    window: Option<usize>,
    recompute: bool,
}

/// Attention among queries, to frames where the layer asks them, and feed-forward.
#[derive(Module, Debug)]
pub struct QFormerLayer {
    self_attn: QueryAttention,
    cross_attn: Option<QueryAttention>,
    mlp: Mlp,
    layer_norm: Norm,
}

/// `norm(x + o_proj(attention(x, memory)))`.
#[derive(Module, Debug)]
struct QueryAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    layer_norm: Norm,
}

/// Which rows ask which.
#[derive(Debug, Clone)]
struct Layouts {
    /// The query that each row begins as.
    ids: Arc<[u32]>,
    among_queries: AttentionLayout,
    to_frames: AttentionLayout,
}

/// BERT's.
const QUERY_EPS: f64 = 1e-12;
/// Of the norms around the Q-Former.
const EPS: f64 = 1e-5;
/// Of the first queries, as in BLIP-2; the norm behind them makes it a matter of the learning rate.
const QUERY_STD: f64 = 0.02;

impl Kind for QFormerConfig {}

impl QFormerConfig {
    fn sizes(&self) -> Sizes {
        Sizes {
            n_queries: self.n_queries,
            d_hidden: self.d_hidden,
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            d_ff: self.d_ff,
            cross_attention_frequency: self.cross_attention_frequency,
            window: None,
            input_norm: false,
            output_norm: true,
        }
    }

    /// `n_queries` vectors, also for no frames.
    pub fn length(&self, _n_frames: usize) -> Length {
        Length::Exact(self.n_queries)
    }

    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        self.sizes().problems()
    }

    /// Builds the connector with random weights.
    pub fn init(&self, widths: Widths, init: &Init) -> QFormer {
        self.sizes().init(widths, init)
    }
}

impl Sizes {
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = super::zeros(&[
            ("n_queries", self.n_queries),
            ("d_hidden", self.d_hidden),
            ("n_layers", self.n_layers),
            ("d_ff", self.d_ff),
            ("cross_attention_frequency", self.cross_attention_frequency),
        ]);
        if self.n_heads == 0 || !self.d_hidden.is_multiple_of(self.n_heads) {
            problems.push(format!(
                "d_hidden {} is not a multiple of n_heads {}",
                self.d_hidden, self.n_heads
            ));
        }
        problems
    }

    pub(super) fn init(&self, widths: Widths, init: &Init) -> QFormer {
        let d = self.d_hidden;
        let norm = |init: &Init, name: &str, d: usize, eps: f64| {
            Norm::new(&init.child(name), NormKind::Layer, d, eps)
        };
        let attention = |init: Init, d_memory: usize| {
            let linear = |name: &str, d_in: usize| Linear::new(&init.child(name), d_in, d, true);
            QueryAttention {
                q_proj: linear("q_proj", d),
                k_proj: linear("k_proj", d_memory),
                v_proj: linear("v_proj", d_memory),
                o_proj: linear("o_proj", d),
                layer_norm: norm(&init, "layer_norm", d, QUERY_EPS),
            }
        };
        let layer = |i: usize| {
            let init = init.child("layers").child(i);
            QFormerLayer {
                self_attn: attention(init.child("self_attn"), d),
                cross_attn: i
                    .is_multiple_of(self.cross_attention_frequency)
                    .then(|| attention(init.child("cross_attn"), widths.d_encoder)),
                mlp: Mlp::new(&init.child("mlp"), MlpKind::Gelu, d, self.d_ff),
                layer_norm: norm(&init, "layer_norm", d, QUERY_EPS),
            }
        };
        let around = |name: &str, d| norm(init, name, d, EPS);
        QFormer {
            input_norm: self.input_norm.then(|| around("input_norm", widths.d_encoder)),
            queries: init.child("queries").normal([self.n_queries, d], QUERY_STD),
            query_norm: norm(init, "query_norm", d, QUERY_EPS),
            layers: (0..self.n_layers).map(layer).collect(),
            output: Linear::new(&init.child("output"), d, widths.d_model, true),
            output_norm: self.output_norm.then(|| around("output_norm", widths.d_model)),
            n_heads: self.n_heads,
            window: self.window,
            recompute: false,
        }
    }
}

impl Linears for QueryAttention {
    fn linears(&mut self) -> NamedLinears<'_> {
        vec![
            ("q_proj".to_owned(), &mut self.q_proj),
            ("k_proj".to_owned(), &mut self.k_proj),
            ("v_proj".to_owned(), &mut self.v_proj),
            ("o_proj".to_owned(), &mut self.o_proj),
        ]
    }
}

impl Linears for QFormerLayer {
    fn linears(&mut self) -> NamedLinears<'_> {
        let cross = self.cross_attn.as_mut().map_or_else(Vec::new, QueryAttention::linears);
        below("self_attn", self.self_attn.linears())
            .chain(below("cross_attn", cross))
            .chain(below("mlp", self.mlp.linears()))
            .collect()
    }
}

impl Linears for QFormer {
    fn linears(&mut self) -> NamedLinears<'_> {
        let output = [("output".to_owned(), &mut self.output)];
        numbered("layers", &mut self.layers).chain(output).collect()
    }
}

impl QueryAttention {
    /// # Shapes
    ///
    /// - `x`, output: `[n_query_rows, d_hidden]`; `memory`: `[n_rows, d_memory]`
    fn forward(
        &self,
        x: Tensor<2>,
        memory: Tensor<2>,
        layout: &AttentionLayout,
        dropout: Dropout,
    ) -> Tensor<2> {
        let q = self.q_proj.forward(x.clone());
        let k = self.k_proj.forward(memory.clone());
        let v = self.v_proj.forward(memory);
        let answer = self.o_proj.forward(ops::ragged_attention(q, k, v, layout));
        self.layer_norm.forward(x + dropout.apply(answer))
    }
}

impl QFormerLayer {
    fn forward(
        &self,
        x: Tensor<2>,
        frames: &Tensor<2>,
        layouts: &Layouts,
        dropout: Dropout,
    ) -> Tensor<2> {
        let among = &layouts.among_queries;
        let x = self.self_attn.forward(x.clone(), x, among, dropout.branch("self_attn"));
        let x = match &self.cross_attn {
            None => x,
            Some(cross) => {
                let dropout = dropout.branch("cross_attn");
                cross.forward(x, frames.clone(), &layouts.to_frames, dropout)
            }
        };
        let bent = dropout.branch("mlp").apply(self.mlp.forward(x.clone()));
        self.layer_norm.forward(x + bent)
    }
}

impl QFormer {
    /// Whether all layers together run again in the backward pass: they keep the frames alone.
    pub(super) fn recompute(&mut self, on: bool) {
        self.recompute = on;
    }

    /// # Shapes
    ///
    /// - `frames.values`: `[n_frames, d_encoder]`
    /// - output: `[n_vectors, d_model]`, the vectors of the first window of an utterance first
    pub fn forward(&self, frames: &Ragged, dropout: Dropout) -> Ragged {
        let windows = |span: Range<usize>| match self.window {
            None => vec![span],
            Some(window) => super::window_q_former::windows(span, window),
        };
        self.ask_spans(frames, frames.offsets.iter().map(windows).collect(), dropout)
    }

    /// As [`QFormer::forward`], of given windows: rows of the batch's frames, for every utterance.
    pub(super) fn ask_spans(
        &self,
        frames: &Ragged,
        spans: Vec<Vec<Range<usize>>>,
        dropout: Dropout,
    ) -> Ragged {
        let [n_queries, d_hidden] = self.queries.dims();
        let lengths: Vec<usize> = spans.iter().map(|spans| spans.len() * n_queries).collect();
        let spans: Arc<[Range<usize>]> = spans.into_iter().flatten().collect();
        let asking: Arc<[Range<usize>]> =
            Offsets::from_lengths(&vec![n_queries; spans.len()]).iter().collect();
        let layout = |keys: Arc<[Range<usize>]>| AttentionLayout {
            n_heads: self.n_heads,
            n_kv_heads: self.n_heads,
            d_head: d_hidden / self.n_heads,
            queries: asking.clone(),
            keys,
            mask: Mask::Full,
        };
        let layouts = Layouts {
            ids: spans.iter().flat_map(|_| 0..n_queries as u32).collect(),
            among_queries: layout(asking.clone()),
            to_frames: layout(spans.clone()),
        };
        let x = frames.values.clone();
        let values = if self.recompute {
            ops::recompute(self, x, move |this, frames| this.ask(frames, &layouts, dropout))
        } else {
            self.ask(x, &layouts, dropout)
        };
        Ragged { values, offsets: Offsets::from_lengths(&lengths) }
    }

    fn ask(&self, frames: Tensor<2>, layouts: &Layouts, dropout: Dropout) -> Tensor<2> {
        let frames = match &self.input_norm {
            Some(norm) => norm.forward(frames),
            None => frames,
        };
        let queries = ops::embedding(self.queries.val(), &layouts.ids);
        let x = dropout.branch("queries").apply(self.query_norm.forward(queries));
        let x = self.layers.iter().enumerate().fold(x, |x, (i, layer)| {
            layer.forward(x, &frames, layouts, dropout.branch(&i.to_string()))
        });
        let vectors = self.output.forward(x);
        match &self.output_norm {
            Some(norm) => norm.forward(vectors),
            None => vectors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ops::testing::{cpu, random, to_vec},
        weights::{parameters, weights},
    };

    fn config() -> QFormerConfig {
        QFormerConfig {
            n_queries: 3,
            d_hidden: 8,
            n_layers: 3,
            n_heads: 2,
            d_ff: 12,
            cross_attention_frequency: 2,
        }
    }

    /// A matrix product and so on, row by row in double precision.
    mod plain {
        use crate::weights::{NamedTensor, Weights};

        pub type Rows = Vec<Vec<f64>>;

        pub fn linear(weights: &Weights, name: &str, x: &Rows) -> Rows {
            let NamedTensor { shape, values } = &weights[&format!("{name}.weight")];
            let bias = &weights[&format!("{name}.bias")].values;
            let row = |x: &Vec<f64>| {
                let dot = |o: usize| {
                    let w = &values[o * shape[1]..(o + 1) * shape[1]];
                    x.iter().zip(w).map(|(x, &w)| x * f64::from(w)).sum::<f64>()
                };
                (0..shape[0]).map(|o| dot(o) + f64::from(bias[o])).collect()
            };
            x.iter().map(row).collect()
        }

        pub fn norm(weights: &Weights, name: &str, x: &Rows, eps: f64) -> Rows {
            let [gamma, beta] =
                ["weight", "bias"].map(|part| &weights[&format!("{name}.{part}")].values);
            let row = |x: &Vec<f64>| {
                let n = x.len() as f64;
                let mean = x.iter().sum::<f64>() / n;
                let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
                let scale = (variance + eps).sqrt().recip();
                let entry =
                    |i: usize| (x[i] - mean) * scale * f64::from(gamma[i]) + f64::from(beta[i]);
                (0..x.len()).map(entry).collect()
            };
            x.iter().map(row).collect()
        }

        pub fn add(a: &Rows, b: &Rows) -> Rows {
            a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
        }

        /// Softmax attention with `n_heads` heads, dense.
        pub fn attention(w: &Weights, name: &str, x: &Rows, memory: &Rows, n_heads: usize) -> Rows {
            let of = |part: &str, x: &Rows| linear(w, &format!("{name}.{part}"), x);
            let (q, k, v) = (of("q_proj", x), of("k_proj", memory), of("v_proj", memory));
            let d = q[0].len() / n_heads;
            let answer = |q: &Vec<f64>| {
                let mut out = vec![0.0; q.len()];
                for at in (0..n_heads).map(|head| head * d) {
                    let score = |k: &Vec<f64>| {
                        (at..at + d).map(|i| q[i] * k[i]).sum::<f64>() / (d as f64).sqrt()
                    };
                    let weights: Vec<f64> = k.iter().map(|k| score(k).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    for (weight, v) in weights.iter().zip(&v) {
                        (at..at + d).for_each(|i| out[i] += weight / sum * v[i]);
                    }
                }
                out
            };
            let answers = of("o_proj", &q.iter().map(answer).collect());
            norm(w, &format!("{name}.layer_norm"), &add(x, &answers), 1e-12)
        }
    }

    #[test]
    fn vectors_are_those_of_a_dense_softmax() {
        let config = config();
        let connector = config.init(Widths { d_encoder: 5, d_model: 6 }, &Init::new(3, &cpu()));
        let w = weights(&connector);
        let lengths = [4, 1, 7];
        let x = random([12, 5], 9);
        let frames = Ragged { values: x.tensor(&cpu()), offsets: Offsets::from_lengths(&lengths) };
        let found = connector.forward(&frames, Dropout::OFF);
        assert_eq!(found.offsets.lengths(), [3, 3, 3]);
        let rows = |values: &[f32], width: usize| -> plain::Rows {
            values.chunks(width).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect()
        };
        let gelu = |x: f64| {
            // The exact GELU to about 1e-7, by Simpson's rule over the density.
            let n = 2000;
            let h = x / f64::from(n);
            let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let inner =
                (1..n).map(|i| density(h * f64::from(i)) * if i % 2 == 1 { 4.0 } else { 2.0 });
            x * (0.5 + h / 3.0 * (density(0.0) + inner.sum::<f64>() + density(x)))
        };
        let mut expected = Vec::new();
        for span in frames.offsets.iter() {
            let memory = rows(&x.rows(span).values, 5);
            let queries = rows(&w["queries"].values, 8);
            let mut x = plain::norm(&w, "query_norm", &queries, 1e-12);
            for i in 0..3 {
                let name = format!("layers.{i}");
                x = plain::attention(&w, &format!("{name}.self_attn"), &x, &x.clone(), 2);
                if i != 1 {
                    x = plain::attention(&w, &format!("{name}.cross_attn"), &x, &memory, 2);
                }
                let mut hidden = plain::linear(&w, &format!("{name}.mlp.fc1"), &x);
                hidden.iter_mut().flatten().for_each(|x| *x = gelu(*x));
                let bent = plain::linear(&w, &format!("{name}.mlp.fc2"), &hidden);
                x = plain::norm(&w, &format!("{name}.layer_norm"), &plain::add(&x, &bent), 1e-12);
            }
            let vectors = plain::linear(&w, "output", &x);
            expected.extend(plain::norm(&w, "output_norm", &vectors, 1e-5).concat());
        }
        let found = to_vec(found.values);
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!((f64::from(*found) - expected).abs() < 1e-4, "{i}: {found} and {expected}");
        }
    }

    #[test]
    fn queries_without_frames_have_an_answer() {
        let connector = config().init(Widths { d_encoder: 5, d_model: 6 }, &Init::new(3, &cpu()));
        let offsets = Offsets::from_lengths(&[0, 2, 0]);
        let frames = Ragged { values: random([2, 5], 9).tensor(&cpu()), offsets };
        let vectors = to_vec(connector.forward(&frames, Dropout::OFF).values);
        assert!(vectors.iter().all(|x| x.is_finite()));
        assert_eq!(vectors[..18], vectors[36..], "they know nothing of their neighbours");
        assert_ne!(vectors[..18], vectors[18..36]);
    }

    #[test]
    fn parameters_at_published_sizes() {
        // SLAM-LLM: 8 layers of BERT's width behind Whisper-large, before a width of 4,096. A layer has 7.09 M without
        // its attention to the frames, which is four matrices more, two of them from 1,280.
        let config = QFormerConfig {
            n_queries: 64,
            d_hidden: 768,
            n_layers: 8,
            n_heads: 12,
            d_ff: 3072,
            cross_attention_frequency: 2,
        };
        let connector =
            config.init(Widths { d_encoder: 1280, d_model: 4096 }, &Init::blank(&cpu()));
        let (d, norm) = (768, 2 * 768);
        let among = 4 * (d * d + d) + norm;
        let to_frames = 2 * (d * d + d) + 2 * (1280 * d + d) + norm;
        let mlp = 2 * d * 3072 + 3072 + d + norm;
        let ends = 64 * d + norm + d * 4096 + 4096 + 2 * 4096;
        let n: usize = parameters(&connector).iter().map(|p| p.n_values()).sum();
        assert_eq!(n, 8 * (among + mlp) + 4 * to_frames + ends);
    }

    #[test]
    fn sizes_that_fit_nothing_are_refused() {
        let config =
            QFormerConfig { n_queries: 0, n_heads: 3, cross_attention_frequency: 0, ..config() };
        let expected = [
            "n_queries is 0, expected at least 1",
            "cross_attention_frequency is 0, expected at least 1",
            "d_hidden 8 is not a multiple of n_heads 3",
        ];
        assert_eq!(config.problems(), expected);
    }
}
