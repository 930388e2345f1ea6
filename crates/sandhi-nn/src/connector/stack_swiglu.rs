//! Stack and SwiGLU, the projector of Ultravox (Fixie AI, 2024, <https://github.com/fixie-ai/ultravox>).
//!
//! ```text
//! frames   f0 … f7 | f8 f9                       reduction 8, ten frames
//! stack    [f0 … f7] [f8 f9 0 0 0 0 0 0]         -> norm -> linear -> SwiGLU ─┬─ norm -> linear          mid
//!                                                                             └─ linear -> norm          post
//! ```
//!
//! All norms are RMSNorm and no layer has a bias. The first linear layer gives values in its first half and gates in
//! its second, `silu(gate) * value`.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    Kind, Widths,
    stack::{Remainder, stack},
};
use crate::{
    init::Init,
    layers::{Linear, Norm, NormKind},
    length::Length,
    lora::{Linears, NamedLinears},
    ops,
    ragged::Ragged,
};

/// Where the second norm stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum SecondNorm {
    /// Before the last linear layer.
    #[default]
    Mid,
    /// Behind it, so that all vectors have about one length.
    Post,
}

/// `kind = "stack_swiglu"` in a recipe's `[connector]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StackSwigluConfig {
    /// Encoder frames per output vector: 8 at 50 Hz gives 6.25 vectors a second.
    pub reduction: usize,
    /// Width between the two layers, of values and of gates each: half of Ultravox's `hidden_size`.
    pub d_hidden: usize,
    /// Where the second norm stands.
    #[serde(default)]
    pub norm: SecondNorm,
    /// First value of the weights of both norms; Ultravox has 0.4.
    #[serde(default = "one")]
    pub norm_init: f32,
}

fn one() -> f32 {
    1.0
}

/// What Llama's norms add to the mean square.
const EPS: f64 = 1e-6;

/// Built by [`StackSwigluConfig::init`].
#[derive(Module, Debug)]
pub struct StackSwiglu {
    ln_pre: Norm,
    linear_1: Linear,
    ln_mid: Option<Norm>,
    linear_2: Linear,
    ln_post: Option<Norm>,
    reduction: usize,
}

impl Kind for StackSwigluConfig {
    fn stride(&self) -> Option<usize> {
        Some(self.reduction)
    }
}

impl StackSwigluConfig {
    /// Vectors for `n_frames` frames: none for no frames.
    pub fn length(&self, n_frames: usize) -> Length {
        Length::Exact(Remainder::Pad.n_groups(n_frames, self.reduction))
    }

    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        let mut problems =
            super::zeros(&[("reduction", self.reduction), ("d_hidden", self.d_hidden)]);
        if !(self.norm_init.is_finite() && self.norm_init > 0.0) {
            problems.push(format!("norm_init is {}, expected a number above 0", self.norm_init));
        }
        problems
    }

    /// Builds the connector with random weights.
    pub fn init(&self, widths: Widths, init: &Init) -> StackSwiglu {
        let d_group = self.reduction * widths.d_encoder;
        let norm = |name: &str, d: usize| {
            let place = init.child(name);
            let weight = place.child("weight").constant([d], self.norm_init);
            Norm { weight, ..Norm::new(&place, NormKind::Rms, d, EPS) }
        };
        let linear = |name: &str, d_in, d_out| Linear::new(&init.child(name), d_in, d_out, false);
        StackSwiglu {
            ln_pre: norm("ln_pre", d_group),
            linear_1: linear("linear_1", d_group, 2 * self.d_hidden),
            ln_mid: (self.norm == SecondNorm::Mid).then(|| norm("ln_mid", self.d_hidden)),
            linear_2: linear("linear_2", self.d_hidden, widths.d_model),
            ln_post: (self.norm == SecondNorm::Post).then(|| norm("ln_post", widths.d_model)),
            reduction: self.reduction,
        }
    }
}

impl Linears for StackSwiglu {
    fn linears(&mut self) -> NamedLinears<'_> {
        vec![
            ("linear_1".to_owned(), &mut self.linear_1),
            ("linear_2".to_owned(), &mut self.linear_2),
        ]
    }
}

impl StackSwiglu {
    /// # Shapes
    ///
    /// - `frames.values`: `[n_frames, d_encoder]`
    /// - output: `[n_vectors, d_model]`, `ceil(n / reduction)` vectors an utterance
    pub fn forward(&self, frames: &Ragged) -> Ragged {
        let groups = stack(frames, self.reduction, Remainder::Pad);
        let normed = |norm: &Option<Norm>, x: Tensor<2>| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let both = self.linear_1.forward(self.ln_pre.forward(groups.values));
        let d_hidden = both.dims()[1] / 2;
        let [value, gate] = [0, d_hidden].map(|at| both.clone().narrow(1, at, d_hidden));
        let hidden = normed(&self.ln_mid, ops::swiglu(gate, value));
        let values = normed(&self.ln_post, self.linear_2.forward(hidden));
        Ragged { values, offsets: groups.offsets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ops::testing::{cpu, to_vec},
        ragged::Offsets,
        weights::parameters,
    };

    #[test]
    fn vectors_by_hand() {
        // One frame (3, 4), stacked alone: the mean square is 12.5, so the first norm gives (3, 4) / √12.5.
        let init = Init::new(1, &cpu());
        let mut config =
            StackSwigluConfig { reduction: 1, d_hidden: 1, norm: SecondNorm::Mid, norm_init: 0.5 };
        let widths = Widths { d_encoder: 2, d_model: 1 };
        let values = Tensor::from_floats([[3.0, 4.0]], &cpu());
        let frames = Ragged { values, offsets: Offsets::from_lengths(&[1]) };
        let vector = |config: &StackSwigluConfig| {
            let mut connector = config.init(widths, &init);
            // The value is the first entry, the gate the second; the last layer doubles.
            connector.linear_1.weight = init.values(vec![1.0, 0.0, 0.0, 1.0], [2, 2]);
            connector.linear_2.weight = init.values(vec![2.0], [1, 1]);
            f64::from(to_vec(connector.forward(&frames).values)[0])
        };
        let [value, gate] = [3.0, 4.0].map(|x: f64| 0.5 * x / 12.5_f64.sqrt());
        let hidden = value * gate / (1.0 + (-gate).exp());
        // A row of one number becomes its sign, but for what is added to its square.
        let normed = |x: f64| 0.5 * x / (x * x + EPS).sqrt();
        assert!((vector(&config) - 2.0 * normed(hidden)).abs() < 1e-5);
        config.norm = SecondNorm::Post;
        assert!((vector(&config) - normed(2.0 * hidden)).abs() < 1e-5);
    }

    #[test]
    fn parameters_at_published_sizes() {
        // Ultravox 0.5 on Llama 3.1 8B: Whisper-large-v3-turbo, stack_factor 8, hidden_size 4096, projector_ln_mid.
        let config = StackSwigluConfig {
            reduction: 8,
            d_hidden: 2048,
            norm: SecondNorm::Mid,
            norm_init: 0.4,
        };
        let widths = Widths { d_encoder: 1280, d_model: 4096 };
        let connector = config.init(widths, &Init::blank(&cpu()));
        let shapes: Vec<_> =
            parameters(&connector).into_iter().map(|p| (p.name, p.shape)).collect();
        let expected = [
            ("ln_pre.weight", vec![10_240]),
            ("linear_1.weight", vec![4096, 10_240]),
            ("ln_mid.weight", vec![2048]),
            ("linear_2.weight", vec![4096, 2048]),
        ];
        assert_eq!(shapes, expected.map(|(name, shape)| (name.to_owned(), shape)));
    }

    #[test]
    fn a_first_value_that_is_no_weight_is_refused() {
        let config =
            StackSwigluConfig { reduction: 0, d_hidden: 1, norm: SecondNorm::Mid, norm_init: -1.0 };
        let expected =
            ["reduction is 0, expected at least 1", "norm_init is -1, expected a number above 0"];
        assert_eq!(config.problems(), expected);
    }
}
