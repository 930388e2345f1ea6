//! Boundaries that are learned: a unit that is unlike the one before it ends a patch.
//!
//! ```text
//! states      h0    h1    h2    h3
//! cosine         .9    .9   -.4           of W_q h(t-1) and W_k h(t)
//! p = (1 - cosine) / 2   .05   .05   .7
//! ends a patch            ·     ·    yes    where p >= 1/2
//! ```
//!
//! The routing of H-Net (Hwang, Wang and Gu, 2025, <https://arxiv.org/abs/2507.07955>, equation 4), with its ratio loss
//! (equation 10). There the unlike row begins a chunk and stands for it alone, so that what the main network gives at a row is of
//! rows up to it. Here it ends a patch, whose vector is made of all its tokens, for the same reason: a patch that began with it
//! would be whole only where the next one begins. Only units are routed: text, markers and the ends of a document are patches of their own.
//! `p` depends on tokens up to `t` alone, so that what is learned can be used while generating.

use burn::{prelude::*, tensor::TensorData};
use serde::{Deserialize, Serialize};

use super::layout::Closing;
use crate::{init::Init, layers::Linear, ragged::Offsets, weights::host};

/// Settings of learned boundaries.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterConfig {
    /// Units a patch that the ratio loss aims at.
    #[serde(default = "four")]
    pub units_per_patch: f64,
    /// Weight of the ratio loss, a unit; 0.03 in H-Net, per sequence.
    #[serde(default = "ratio_weight")]
    pub ratio_weight: f64,
}

fn four() -> f64 {
    4.0
}

fn ratio_weight() -> f64 {
    0.03
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self { units_per_patch: four(), ratio_weight: ratio_weight() }
    }
}

impl RouterConfig {
    /// What is wrong with the settings.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let Self { units_per_patch, ratio_weight } = *self;
        if !(units_per_patch.is_finite() && units_per_patch > 1.0) {
            problems.push(format!("units_per_patch is {units_per_patch}, expected more than 1"));
        }
        if !(ratio_weight.is_finite() && ratio_weight >= 0.0) {
            problems.push(format!("ratio_weight is {ratio_weight}, expected at least 0"));
        }
        problems
    }
}

/// Finds boundaries.
#[derive(Module, Debug)]
pub struct Router {
    q_proj: Linear,
    k_proj: Linear,
}

/// What a router says of tokens.
#[derive(Debug, Clone)]
pub(super) struct Routed {
    /// How much each token is unlike the one before it, `[n_tokens, 1]` in 0 to 1; 1 for tokens that stand alone.
    pub p: Tensor<2>,
    /// Where patches end.
    pub closings: Vec<Closing>,
}

/// The square of a length below which a vector has no direction.
const SHORTEST: f32 = 1e-6;

impl Router {
    /// Both projections begin as the identity, as in H-Net.
    pub fn new(init: &Init, d: usize) -> Self {
        let linear = |name: &str| {
            let identity = (0..d * d).map(|i| f32::from(u8::from(i % (d + 1) == 0))).collect();
            let weight = init.child(name).child("weight").values(identity, [d, d]);
            Linear { weight, bias: None, lora: None }
        };
        Self { q_proj: linear("q_proj"), k_proj: linear("k_proj") }
    }

    /// # Shapes
    ///
    /// - `before`: `[n_tokens, d]`, for each token the state of the one before it; any for a token that stands alone
    /// - `states`: `[n_tokens, d]`
    pub(super) fn route(&self, before: Tensor<2>, states: Tensor<2>, alone: &[bool]) -> Routed {
        let (q, k) = (self.q_proj.forward(before), self.k_proj.forward(states));
        let length = |x: &Tensor<2>| x.clone().square().sum_dim(1).clamp_min(SHORTEST).sqrt();
        let cosine = (q.clone() * k.clone()).sum_dim(1) / (length(&q) * length(&k));
        let p = (cosine.neg() + 1.0) * 0.5;
        let column = |f: fn(bool) -> f32| {
            let values: Vec<f32> = alone.iter().map(|&alone| f(alone)).collect();
            let values = TensorData::new(values, [alone.len(), 1]);
            Tensor::<2>::from_data(values, (&p.device(), p.dtype()))
        };
        let p = p.clone() * column(|alone| f32::from(u8::from(!alone)))
            + column(|alone| f32::from(u8::from(alone)));
        let on_host = host(p.clone().detach());
        let closings = alone
            .iter()
            .zip(on_host)
            .map(|(&before, p)| Closing { before, after: before || p >= 0.5 })
            .collect();
        Routed { p, closings }
    }
}

impl Routed {
    /// How sure the router is of what it did, 1 for every token; its slope is that of the probability it had.
    pub fn confidence(&self) -> Tensor<2> {
        let p = self.p.clone();
        let ends: Vec<f32> = self.closings.iter().map(|c| f32::from(u8::from(c.after))).collect();
        let ends = TensorData::new(ends, [self.closings.len(), 1]);
        let ends = Tensor::<2>::from_data(ends, (&p.device(), p.dtype()));
        // p where a patch ends, 1 - p elsewhere.
        let sure = p.clone() * (ends.clone() * 2.0 - 1.0) + (ends.neg() + 1.0);
        sure.clone() + (sure.neg() + 1.0).detach()
    }

    /// The sum over units of the ratio loss of their document, `[1]`: with `F` the share of units that end a patch and
    /// `G` the mean of `p`, `N / (N - 1) ((N - 1) F G + (1 - F) (1 - G))`, which is 1 where both are `1 / N`.
    pub fn ratio_loss(
        &self,
        documents: &Offsets,
        alone: &[bool],
        units_per_patch: f64,
    ) -> Tensor<1> {
        let n = units_per_patch;
        let (mut constant, mut factors) = (0.0, vec![0.0_f32; alone.len()]);
        for span in documents.iter() {
            let units = || span.clone().filter(|&i| !alone[i]);
            let n_units = units().count() as f64;
            let f = units().filter(|&i| self.closings[i].after).count() as f64 / n_units.max(1.0);
            constant += n / (n - 1.0) * (1.0 - f) * n_units;
            // Of the sum of p, which is G times the number of units.
            let factor = n / (n - 1.0) * ((n - 1.0) * f - (1.0 - f));
            units().for_each(|i| factors[i] = factor as f32);
        }
        let factors = TensorData::new(factors, [alone.len(), 1]);
        let factors = Tensor::<2>::from_data(factors, (&self.p.device(), self.p.dtype()));
        (self.p.clone() * factors).sum() + constant
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{cpu, to_vec};

    fn rows(values: &[[f32; 2]]) -> Tensor<2> {
        let n = values.len();
        Tensor::from_data(TensorData::new(values.concat(), [n, 2]), &cpu())
    }

    #[test]
    fn unlike_units_end_patches() {
        let router = Router::new(&Init::new(1, &cpu()), 2);
        // A marker, then angles of 0, 90 and 180 degrees to the unit before; one without direction.
        let states = [[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, -1.0], [0.0, 0.0]];
        let before = [states[0], states[0], states[1], states[2], states[3]];
        let routed =
            router.route(rows(&before), rows(&states), &[true, false, false, false, false]);
        for (found, expected) in to_vec(routed.p.clone()).into_iter().zip([1.0, 0.0, 0.5, 1.0, 0.5])
        {
            assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
        }
        let ends: Vec<bool> = routed.closings.iter().map(|closing| closing.after).collect();
        assert_eq!(ends, [true, false, true, true, true]);
        assert!(routed.closings[0].before && !routed.closings[1].before);
        assert!(to_vec(routed.confidence()).iter().all(|&sure| (sure - 1.0).abs() < 1e-6));
    }

    #[test]
    fn confidence_learns_what_the_router_did() {
        let p = Tensor::<2>::from_floats([[0.9], [0.2]], &cpu().autodiff()).require_grad();
        let closings = vec![Closing { before: false, after: true }, Closing::default()];
        let slopes = Routed { p: p.clone(), closings }.confidence().sum().backward();
        assert_eq!(to_vec(p.grad(&slopes).unwrap()), [1.0, -1.0]);
    }

    #[test]
    fn the_ratio_loss_by_hand() {
        let of = |p: &[f32], ends: &[bool], lengths: &[usize]| {
            let closing = |&after: &bool| Closing { before: false, after };
            let closings: Vec<Closing> = ends.iter().map(closing).collect();
            let p = Tensor::from_data(TensorData::new(p.to_vec(), [p.len(), 1]), &cpu());
            let alone = vec![false; ends.len()];
            let routed = Routed { p, closings };
            to_vec(routed.ratio_loss(&Offsets::from_lengths(lengths), &alone, 4.0))[0]
        };
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-5, "{a}, not {b}");
        // One of four ends a patch and p is 1/4 on average: 1 a unit.
        near(of(&[0.7, 0.1, 0.1, 0.1], &[true, false, false, false], &[4]), 4.0);
        // All end patches: F is 1, so 4/3 * 3 G = 4 G a unit.
        near(of(&[0.9, 0.6], &[true, true], &[2]), 2.0 * 4.0 * 0.75);
        // None does: 4/3 (1 - G) a unit. Documents have their own shares.
        near(
            of(&[0.4, 0.2, 0.9, 0.6], &[false, false, true, true], &[2, 2]),
            2.0 * (4.0 / 3.0 * 0.7) + 6.0,
        );
        near(of(&[0.4], &[false], &[1, 0]), 4.0 / 3.0 * 0.6);
    }
}
