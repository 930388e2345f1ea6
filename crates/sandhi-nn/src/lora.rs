//! LoRA: a low-rank branch beside a frozen linear layer ("LoRA: Low-rank adaptation of large language models",
//! Hu et al., 2021, <https://arxiv.org/abs/2106.09685>, equation 3).
//!
//! ```text
//! x ─┬─ W ──────────────────────────+─> y        W frozen, [d_in, d_out]
//!    └─ A [d_in, r] ─ · s ─ B [r, d_out] ─┘      s = alpha / r, or alpha / √r (rsLoRA, arXiv 2312.03732)
//! ```
//!
//! `B` is zero at first, so that a model with branches computes what it computed without. In files and names
//! the factors are `….q_proj.lora_a.weight`, `[r, d_in]`, and `….q_proj.lora_b.weight`, `[d_out, r]`: PEFT's
//! tensors in lower case. There is no dropout on a branch's input.

use burn::{module::Param, prelude::*};
use serde::{Deserialize, Serialize};

use crate::{init::Init, layers::Linear, ops, pattern, weights};

/// Which linear layers get a branch, and of what size: `[model.lora]` in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of the branch's matrix.
    pub rank: usize,
    /// The branch is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Names and patterns of linear layers ([`crate::pattern`]), e.g. `["language_model.*.q_proj"]`.
    pub targets: Vec<String>,
    /// Multiply by `alpha / √rank` instead, so that a high rank learns as fast as a low one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rslora: bool,
}

impl LoraConfig {
    /// What is wrong with the sizes, as sentences that name the fields.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.rank == 0 {
            problems.push("rank is 0, expected at least 1".into());
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            problems.push(format!("alpha is {}, expected a number above 0", self.alpha));
        }
        if self.targets.is_empty() {
            problems.push("targets is empty, expected patterns such as \"*.q_proj\"".into());
        }
        problems
    }
}

/// One factor of a branch.
#[derive(Module, Debug)]
pub struct Factor {
    /// `[d_in, r]` or `[r, d_out]`; turned in files, as the weight of a [`Linear`].
    pub weight: Param<Tensor<2>>,
}

/// The branch of one linear layer.
#[derive(Module, Debug)]
pub struct Lora {
    lora_a: Factor,
    lora_b: Factor,
    alpha: f64,
    rslora: bool,
}

impl Lora {
    /// `A` uniform within `±1/√d_in`, which is Kaiming's with a slope of √5 as in PEFT; `B` zero.
    fn new(init: &Init, d_in: usize, d_out: usize, config: &LoraConfig) -> Self {
        let bound = 1.0 / (d_in.max(1) as f64).sqrt();
        let weight = |name: &str| init.child(name).child("weight");
        Self {
            lora_a: Factor { weight: weight("lora_a").uniform([d_in, config.rank], bound) },
            lora_b: Factor { weight: weight("lora_b").constant([config.rank, d_out], 0.0) },
            alpha: config.alpha,
            rslora: config.rslora,
        }
    }

    /// `A` and `B`, as they are held: `[d_in, r]` and `[r, d_out]`.
    pub fn factors(&self) -> [&Param<Tensor<2>>; 2] {
        [&self.lora_a.weight, &self.lora_b.weight]
    }

    fn rank(&self) -> usize {
        self.lora_a.weight.dims()[1]
    }

    /// What the branch is multiplied by.
    pub fn scale(&self) -> f64 {
        let rank = self.rank() as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// # Shapes
    ///
    /// - `x`: `[n_rows, d_in]`
    /// - output: `[n_rows, d_out]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let low = ops::linear(x, self.lora_a.weight.val(), None) * self.scale();
        ops::linear(low, self.lora_b.weight.val(), None)
    }

    /// `s A B`, `[d_in, d_out]`: what the branch adds to the weight.
    fn product(&self) -> Tensor<2> {
        let [a, b] = [&self.lora_a, &self.lora_b].map(|f| f.weight.val().inner_or_self());
        ops::linear(a * self.scale(), b, None)
    }
}

/// A tensor without its history.
trait Inner {
    fn inner_or_self(self) -> Self;
}

impl Inner for Tensor<2> {
    fn inner_or_self(self) -> Self {
        if self.device().is_autodiff() { self.inner() } else { self }
    }
}

/// The linear layers of a module with their names in it.
pub type NamedLinears<'a> = Vec<(String, &'a mut Linear)>;

/// What consists of linear layers, which can then be given branches.
pub trait Linears {
    /// All of them, in a fixed order.
    fn linears(&mut self) -> NamedLinears<'_>;
}

/// The layers of a child under its name.
pub(crate) fn below<'a>(
    name: impl std::fmt::Display,
    child: NamedLinears<'a>,
) -> impl Iterator<Item = (String, &'a mut Linear)> {
    child.into_iter().map(move |(inner, linear)| (format!("{name}.{inner}"), linear))
}

/// The layers of numbered children.
pub(crate) fn numbered<'a, M: Linears>(
    name: &str,
    children: &'a mut [M],
) -> impl Iterator<Item = (String, &'a mut Linear)> {
    let children = children.iter_mut().enumerate();
    children.flat_map(move |(i, child)| {
        below(format_args!("{name}.{i}"), child.linears()).collect::<Vec<_>>()
    })
}

/// Gives a branch to every layer that the targets name; `part` stands before the names, unless it is empty.
/// First values depend on the seed and the name alone.
///
/// # Panics
///
/// When a layer has a branch already.
pub fn attach<M: Linears>(module: &mut M, part: &str, config: &LoraConfig, seed: u64) {
    for (name, linear) in module.linears() {
        let name = if part.is_empty() { name } else { format!("{part}.{name}") };
        if pattern::selects(&config.targets, &name) {
            assert!(linear.lora.is_none(), "{name} has a branch already");
            let [d_in, d_out] = linear.weight.dims();
            let init = Init::new(seed, &linear.weight.device()).child(&name);
            linear.lora = Some(Lora::new(&init, d_in, d_out, config));
        }
    }
}

/// The configuration that would make the branches of a module, with every layer by its name; none where no
/// layer has one.
pub fn describe<M: Linears + Clone>(module: &M) -> Option<LoraConfig> {
    let mut module = module.clone();
    let mut found: Option<LoraConfig> = None;
    for (name, linear) in module.linears() {
        if let Some(lora) = &linear.lora {
            let config = found.get_or_insert_with(|| LoraConfig {
                rank: lora.rank(),
                alpha: lora.alpha,
                targets: Vec::new(),
                rslora: lora.rslora,
            });
            config.targets.push(name);
        }
    }
    found
}

/// Adds every branch to the weight beside it, `W + s A B`, and removes it. The sum is rounded to the weight's
/// type.
pub fn merge<M: Linears>(module: &mut M) {
    for (_, linear) in module.linears() {
        let Some(lora) = linear.lora.take() else { continue };
        let (id, weight, mapper) = linear.weight.clone().consume();
        let (trained, dtype) = (weight.is_require_grad(), weight.dtype());
        let tracked = weight.device().is_autodiff();
        let product = lora.product();
        let sum = (weight.inner_or_self().cast(product.dtype()) + product).cast(dtype);
        let sum = if tracked { sum.autodiff().set_require_grad(trained) } else { sum };
        linear.weight = Param::from_mapped_value(id, sum, mapper);
    }
}

/// Whether a parameter belongs to a branch.
pub fn is_lora(name: &str) -> bool {
    name.ends_with(".lora_a.weight") || name.ends_with(".lora_b.weight")
}

/// The parameters of the branches of a module, by name.
pub fn lora_weights<M: Module>(module: &M) -> weights::Weights {
    weights::weights_where(module, is_lora)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        connector::{ConnectorConfig, Widths},
        encoder::{
            ConformerConfig, CtcHeadConfig, EncoderConfig, Wav2vec2EncoderConfig,
            WhisperEncoderConfig, wav2vec2::PositionBiasConfig,
        },
        ops::testing::{random, to_vec},
        ragged::{Offsets, Ragged},
        transformer::{CausalLm, Dropout, TransformerConfig},
        weights::{host, parameters},
    };

    fn config() -> TransformerConfig {
        let tie_embeddings = false;
        TransformerConfig { tie_embeddings, attention_bias: true, ..TransformerConfig::tiny() }
    }

    fn lora() -> LoraConfig {
        let targets = ["*.q_proj", "lm.*.down_proj", "lm.lm_head"].map(str::to_owned).to_vec();
        LoraConfig { rank: 3, alpha: 6.0, targets, rslora: false }
    }

    fn model(device: &Device) -> CausalLm {
        config().init(11, &Init::new(1, device))
    }

    /// With branches that do something.
    fn adapted(device: &Device) -> CausalLm {
        let mut lm = model(device);
        attach(&mut lm, "lm", &lora(), 7);
        for (i, (_, linear)) in lm.linears().into_iter().enumerate() {
            if let Some(lora) = &mut linear.lora {
                let [rank, d_out] = lora.lora_b.weight.dims();
                let values = random([rank, d_out], i as u64).values;
                let init = Init::new(0, device).child(i);
                lora.lora_b.weight = init.values(values, [rank, d_out]);
            }
        }
        lm
    }

    fn logits(lm: &CausalLm, sequences: &[&[u32]]) -> Vec<f32> {
        let ids: Vec<u32> = sequences.concat();
        let lengths: Vec<usize> = sequences.iter().map(|s| s.len()).collect();
        let input = Ragged { values: lm.embed(&ids), offsets: Offsets::from_lengths(&lengths) };
        let logits = lm.logits(lm.forward(&input, &[], Dropout::OFF).last);
        host(logits.inner_or_self())
    }

    const ONE: &[u32] = &[1, 5, 3, 10, 0, 7];
    const OTHER: &[u32] = &[2, 2, 9];

    #[test]
    fn every_linear_layer_is_listed_once() {
        #[track_caller]
        fn check<M: Module + Linears>(mut module: M) {
            let matrices = parameters(&module).into_iter().filter(|p| p.shape.len() == 2);
            let mut expected: Vec<String> = matrices
                .filter_map(|p| Some(p.name.strip_suffix(".weight")?.to_owned()))
                .filter(|name| {
                    !["embed_tokens", "rel_attn_embed"].iter().any(|t| name.ends_with(t))
                })
                .collect();
            let mut listed: Vec<String> = module.linears().into_iter().map(|(n, _)| n).collect();
            expected.sort();
            listed.sort();
            assert_eq!(listed, expected);
        }
        let init = Init::new(1, &Device::flex());
        let (d_model, n_layers, n_heads, d_ff) = (8, 2, 2, 12);
        check(model(&Device::flex()));
        let conformer = ConformerConfig { d_model, n_layers, n_heads, d_ff, kernel: 3 };
        check(EncoderConfig::Conformer(conformer).init(4, &init));
        let whisper = WhisperEncoderConfig { d_model, n_layers, n_heads, d_ff, max_frames: 5 };
        check(EncoderConfig::Whisper(whisper).init(4, &init));
        for (position_bias, layer) in [(None, None), (Some(PositionBiasConfig::default()), Some(1))]
        {
            let (position_kernel, position_groups) = (4, 2);
            let wav2vec2 = Wav2vec2EncoderConfig {
                position_kernel,
                position_groups,
                position_bias,
                layer,
                ..Wav2vec2EncoderConfig::new(d_model, n_layers, n_heads, d_ff)
            };
            check(EncoderConfig::Wav2vec2(wav2vec2).init(1, &init));
        }
        check(CtcHeadConfig { steps_per_frame: 2 }.init(8, 5, &init));
        let connectors = [
            serde_json::json!({
                "kind": "slm", "reduction": 2, "reduce": "stack", "d_hidden": 8, "n_layers": 2, "n_heads": 2, "d_ff": 12,
            }),
            serde_json::json!({ "kind": "stack_mlp", "reduction": 2, "d_hidden": 8 }),
            serde_json::json!({ "kind": "stack_swiglu", "reduction": 2, "d_hidden": 8 }),
            serde_json::json!({ "kind": "conv", "n_layers": 2, "kernel": 3, "d_bottleneck": 4 }),
            serde_json::json!({
                "kind": "q_former", "n_queries": 3, "d_hidden": 8, "n_layers": 2, "n_heads": 2, "d_ff": 12,
                "cross_attention_frequency": 2,
            }),
            serde_json::json!({
                "kind": "window_q_former", "window": 2, "d_hidden": 8, "n_layers": 2, "n_heads": 2, "d_ff": 12,
            }),
        ];
        for config in connectors {
            let config: ConnectorConfig = serde_json::from_value(config).unwrap();
            check(config.init(Widths { d_encoder: 8, d_model: 6 }, &init));
        }
    }

    #[test]
    fn branches_have_the_names_shapes_and_first_values_of_the_paper() {
        let mut lm = model(&Device::flex());
        let before = parameters(&lm);
        attach(&mut lm, "lm", &lora(), 7);
        let after = parameters(&lm);
        let (branches, rest): (Vec<_>, Vec<_>) = after.into_iter().partition(|p| is_lora(&p.name));
        assert_eq!(rest, before);
        let found: Vec<_> = branches.iter().map(|p| (p.name.as_str(), p.shape.clone())).collect();
        let expected = [
            ("model.layers.0.self_attn.q_proj.lora_a.weight", vec![3, 8]),
            ("model.layers.0.self_attn.q_proj.lora_b.weight", vec![8, 3]),
            ("model.layers.0.mlp.down_proj.lora_a.weight", vec![3, 12]),
            ("model.layers.0.mlp.down_proj.lora_b.weight", vec![8, 3]),
            ("model.layers.1.self_attn.q_proj.lora_a.weight", vec![3, 8]),
            ("model.layers.1.self_attn.q_proj.lora_b.weight", vec![8, 3]),
            ("model.layers.1.mlp.down_proj.lora_a.weight", vec![3, 12]),
            ("model.layers.1.mlp.down_proj.lora_b.weight", vec![8, 3]),
            ("lm_head.lora_a.weight", vec![3, 8]),
            ("lm_head.lora_b.weight", vec![11, 3]),
        ];
        assert_eq!(found, expected);
        let ids: std::collections::BTreeSet<u64> =
            parameters(&lm).iter().map(|p| p.id.val()).collect();
        assert_eq!(ids.len(), parameters(&lm).len());
        for (name, tensor) in lora_weights(&lm) {
            let largest = tensor.values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            if name.ends_with("lora_b.weight") {
                assert_eq!(largest, 0.0);
            } else {
                let bound = 1.0 / (tensor.shape[1] as f32).sqrt();
                assert!(largest <= bound && largest > 0.7 * bound, "{name}: {largest}");
            }
        }
    }

    #[test]
    fn a_model_with_new_branches_is_the_model() {
        let plain = model(&Device::flex());
        let mut lm = plain.clone();
        attach(&mut lm, "lm", &lora(), 7);
        assert_eq!(logits(&lm, &[ONE, OTHER]), logits(&plain, &[ONE, OTHER]));
    }

    #[test]
    fn a_branch_by_hand() {
        let device = Device::flex();
        let mut linear = Linear::new(&Init::new(1, &device), 2, 1, true);
        linear.weight = Init::new(1, &device).values(vec![1.0, 2.0], [2, 1]);
        let mut config = LoraConfig { rank: 4, alpha: 8.0, targets: vec![], rslora: false };
        let rows = |values: Vec<f32>, shape| Init::new(1, &device).values(values, shape);
        let with = |config: &LoraConfig| {
            let mut lora = Lora::new(&Init::new(1, &device), 2, 1, config);
            // x A = (3, 4, 0, 0), (x A) B = 3 + 40.
            lora.lora_a.weight = rows(vec![1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0], [2, 4]);
            lora.lora_b.weight = rows(vec![1.0, 10.0, 100.0, 100.0], [4, 1]);
            let linear = Linear { lora: Some(lora), ..linear.clone() };
            to_vec(linear.forward(Tensor::from_floats([[3.0, 4.0]], &device)))
        };
        assert_eq!(with(&config), [11.0 + 8.0 / 4.0 * 43.0]);
        config.rslora = true;
        assert_eq!(with(&config), [11.0 + 8.0 / 2.0 * 43.0]);
    }

    #[test]
    fn a_merged_model_says_the_same_and_has_no_branches() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let lm = adapted(&device);
            let config = describe(&lm).unwrap();
            assert_eq!((config.rank, config.alpha, config.targets.len()), (3, 6.0, 5));
            let mut merged = lm.clone();
            merge(&mut merged);
            assert!(describe(&merged).is_none());
            assert_eq!(parameters(&merged), parameters(&model(&device)));
            let (expected, found) = (logits(&lm, &[ONE, OTHER]), logits(&merged, &[ONE, OTHER]));
            assert_ne!(expected, logits(&model(&device), &[ONE, OTHER]));
            for (a, b) in expected.iter().zip(&found) {
                assert!((a - b).abs() < 1e-5 * a.abs().max(1.0), "{a} and {b}");
            }
        }
    }

    #[test]
    fn a_sequence_gives_the_same_bits_alone_and_in_a_batch() {
        let lm = adapted(&Device::flex());
        let alone = [logits(&lm, &[ONE]), logits(&lm, &[OTHER])].concat();
        assert_eq!(logits(&lm, &[ONE, OTHER]), alone);
    }

    #[test]
    fn gradients_match_differences() {
        let device = Device::flex().autodiff();
        let mut lm = weights::set_trained(adapted(&device), is_lora);
        let loss = |lm: &CausalLm| {
            let ids: Vec<u32> = ONE.to_vec();
            let input =
                Ragged { values: lm.embed(&ids), offsets: Offsets::from_lengths(&[ids.len()]) };
            let logits = lm.logits(lm.forward(&input, &[], Dropout::OFF).last);
            ops::cross_entropy(logits, OTHER.repeat(2).as_slice(), &[1.0; 6])
        };
        let grads = loss(&lm).backward();
        let mut n_checked = 0;
        for i in 0..lm.linears().len() {
            assert!(lm.linears()[i].1.weight.val().grad(&grads).is_none(), "{i} is frozen");
            for which in 0..2 {
                let Some(found) = factor(&mut lm, i, which) else { continue };
                let value = found.weight.val();
                let gradient = to_vec(value.grad(&grads).expect("a branch learns"));
                let shape = value.dims();
                let values = to_vec(value.inner());
                for at in [0, gradient.len() / 2, gradient.len() - 1] {
                    let moved = |by: f32| {
                        let mut values = values.clone();
                        values[at] += by;
                        let mut other = lm.clone();
                        let param = Init::new(0, &device).child("moved").values(values, shape);
                        factor(&mut other, i, which).unwrap().weight = param;
                        f64::from(host(loss(&other).inner())[0])
                    };
                    let step = 4e-3;
                    let slope = (moved(step) - moved(-step)) / f64::from(2.0 * step);
                    let found = f64::from(gradient[at]);
                    assert!(
                        (slope - found).abs() < 2e-2 * found.abs().max(1.0),
                        "{slope}, {found}"
                    );
                    n_checked += 1;
                }
            }
        }
        assert_eq!(n_checked, 5 * 2 * 3);
    }

    /// A factor of the branch of layer `i`, if it has one.
    fn factor(lm: &mut CausalLm, i: usize, which: usize) -> Option<&mut Factor> {
        let lora = lm.linears().remove(i).1.lora.as_mut()?;
        Some(if which == 0 { &mut lora.lora_a } else { &mut lora.lora_b })
    }

    #[test]
    fn wrong_sizes_are_told() {
        let wrong = LoraConfig { rank: 0, alpha: -1.0, targets: vec![], rslora: false };
        assert_eq!(wrong.problems().len(), 3);
        assert!(lora().problems().is_empty());
    }
}
