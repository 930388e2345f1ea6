//! Weights of frames add up, and every whole number fires: what integrate-and-fire is made of
//! ("CIF: Continuous integrate-and-fire for end-to-end speech recognition", Dong and Xu, 2020,
//! <https://arxiv.org/abs/1905.11235>, section 3.1).
//!
//! ```text
//! frames     f0    f1      f2   f3                alpha = sigmoid(linear(ReLU(convolution(frames))))
//! alpha      ·4    ·8      ·3   ·9
//! sums    0  ·4    1·2    1·5   2·4
//!         |---c0---|----c1----|-- rest            c0 = ·4 f0 + ·6 f1,  c1 = ·2 f1 + ·3 f2 + ·5 f3
//! ```
//!
//! In training the weights are scaled, so that as many fire as tokens are said, at most one for each frame; a frame may
//! then weigh more than 1 and be in several vectors. In use they are not, and a rest of ½ or more fires, too. The number
//! learns from `|sum of alpha - tokens|`. Which frames are in which vector is decided on the host; with the sums `A` of
//! an utterance, vector `i` has of frame `t` the share `min(A[t], i + 1) - max(A[t - 1], i)`, and gradients flow through
//! the `A` in it.

use burn::{
    prelude::*,
    tensor::activation::{relu, sigmoid},
};
use serde::{Deserialize, Serialize};

use super::{Penalty, Per, Widths};
use crate::{
    init::Init,
    layers::Linear,
    lora::{Linears, NamedLinears},
    ops,
    ragged::{Offsets, Ragged},
    weights::host,
};

/// What weighs frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FireConfig {
    /// Frames that a weight looks at: odd, the frame in the middle.
    #[serde(default = "default_kernel")]
    pub kernel: usize,
    /// Channels of the convolution.
    pub d_conv: usize,
    /// Weight of `|sum of alpha - tokens|`, per utterance.
    #[serde(default = "one")]
    pub quantity_weight: f64,
}

pub(super) fn default_kernel() -> usize {
    3
}

pub(super) fn one() -> f64 {
    1.0
}

/// Built by [`FireConfig::init`].
#[derive(Module, Debug)]
pub struct Weigher {
    conv: Linear,
    alpha: Linear,
    kernel: usize,
}

/// What is left of an utterance's weights is a vector from here on.
const TAIL: f32 = 0.5;

/// Weights that sum to less are not scaled up further.
const SMALLEST_SUM: f64 = 1e-6;

impl FireConfig {
    /// The loss on the number of vectors.
    pub(super) fn penalty(&self) -> Penalty {
        Penalty { name: "quantity", weight: self.quantity_weight, per: Per::Utterance }
    }

    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.kernel.is_multiple_of(2) {
            problems.push(format!("kernel is {}, expected an odd number", self.kernel));
        }
        if self.d_conv == 0 {
            problems.push("d_conv is 0, expected at least 1".into());
        }
        let weight = self.quantity_weight;
        if !(weight.is_finite() && weight >= 0.0) {
            problems.push(format!("quantity_weight is {weight}, expected a number of at least 0"));
        }
        problems
    }

    /// Builds it with random weights.
    pub fn init(&self, widths: Widths, init: &Init) -> Weigher {
        let d_window = self.kernel * widths.d_encoder;
        Weigher {
            conv: Linear::new(&init.child("conv"), d_window, self.d_conv, true),
            alpha: Linear::new(&init.child("alpha"), self.d_conv, 1, true),
            kernel: self.kernel,
        }
    }
}

impl Linears for Weigher {
    fn linears(&mut self) -> NamedLinears<'_> {
        vec![("conv".to_owned(), &mut self.conv), ("alpha".to_owned(), &mut self.alpha)]
    }
}

impl Weigher {
    /// The weight of every frame, `[n_frames, 1]`, between 0 and 1.
    ///
    /// # Shapes
    ///
    /// - `frames.values`: `[n_frames, d_encoder]`
    fn weigh(&self, frames: &Ragged) -> Tensor<2> {
        let Ragged { values, offsets } = frames;
        let (windows, _) = ops::unfold(values.clone(), offsets, self.kernel, 1, self.kernel / 2);
        sigmoid(self.alpha.forward(relu(self.conv.forward(windows))))
    }

    /// What fires in frames, and the loss on its number where what is `said` is given: as many vectors then.
    pub(super) fn fire(
        &self,
        frames: &Ragged,
        said: Option<&[Vec<u32>]>,
    ) -> (Fired, Option<Tensor<1>>) {
        let alpha = self.weigh(frames);
        let counts: Option<Vec<usize>> = said.map(|said| said.iter().map(Vec::len).collect());
        let fired = fire(alpha.clone(), &frames.offsets, counts.as_deref());
        (fired, counts.map(|counts| quantity(alpha, &frames.offsets, &counts)))
    }
}

/// The spans of utterances that have frames.
fn spoken(offsets: &Offsets) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> + '_ {
    offsets.iter().enumerate().filter(|(_, span)| !span.is_empty())
}

/// `sum over utterances of |sum of alpha - count|`, `[1]`.
fn quantity(alpha: Tensor<2>, offsets: &Offsets, counts: &[usize]) -> Tensor<1> {
    let device = alpha.device();
    let unheard: usize =
        offsets.iter().zip(counts).filter(|(span, _)| span.is_empty()).map(|(_, n)| n).sum();
    let apart = spoken(offsets).map(|(i, span)| {
        let sum = alpha.clone().narrow(0, span.start, span.len()).sum_dim(0);
        (sum - counts[i] as f64).abs()
    });
    let unheard = Tensor::<2>::full([1, 1], unheard as f32, (&device, alpha.dtype()));
    Tensor::cat(apart.chain([unheard]).collect(), 0).sum()
}

/// What fired.
pub(super) struct Fired {
    /// The last frame in each vector, utterance by utterance; one frame may end several.
    pub ends: Vec<Vec<u32>>,
    /// Which frames are in which vector.
    members: Members,
    /// How much of each member is, `[n_members, 1]`.
    shares: Tensor<2>,
}

impl Fired {
    /// Sums of rows by their shares.
    ///
    /// # Shapes
    ///
    /// - `rows`: `[n_frames, width]`
    /// - output: `[n_fired, width]`
    pub(super) fn integrate(&self, rows: Tensor<2>) -> Ragged {
        let of_vectors = Offsets::from_lengths(&self.members.lengths);
        let values = ops::pool(rows, self.shares.clone(), &self.members.rows, &of_vectors);
        let lengths: Vec<usize> = self.ends.iter().map(Vec::len).collect();
        Ragged { values, offsets: Offsets::from_lengths(&lengths) }
    }
}

/// Lets weights fire. With `counts` those of an utterance are scaled to sum to its count, or to its number of frames
/// where that is smaller.
///
/// # Shapes
///
/// - `alpha`: `[n_frames, 1]`, at least 0
pub(super) fn fire(alpha: Tensor<2>, offsets: &Offsets, counts: Option<&[usize]>) -> Fired {
    let (device, n_frames) = (alpha.device(), offsets.n_rows());
    let count = |i: usize, n: usize| counts.map(|counts| counts[i].min(n));
    let sums = spoken(offsets).map(|(i, span)| {
        let sums = alpha.clone().narrow(0, span.start, span.len()).cumsum(0);
        match count(i, span.len()) {
            None => sums,
            Some(count) => {
                let total = sums.clone().narrow(0, span.len() - 1, 1).clamp_min(SMALLEST_SUM);
                sums * (total.recip() * count as f64)
            }
        }
    });
    let mut sums: Vec<Tensor<2>> = sums.collect();
    let on_host: Vec<f32> = sums.iter().flat_map(|sums| host(sums.clone().detach())).collect();

    let mut members = Members { n_frames, ..Members::default() };
    let mut ends = Vec::with_capacity(offsets.n_sequences());
    for (i, span) in offsets.iter().enumerate() {
        let sums = &on_host[span.clone()];
        let total = sums.last().copied().unwrap_or(0.0);
        let n_fired = count(i, span.len())
            .unwrap_or_else(|| total as usize + usize::from(total.fract() >= TAIL));
        ends.push(members.utterance(span.start, sums, n_fired));
    }
    // The whole numbers that vectors begin and end at stand behind the sums.
    let most = ends.iter().map(Vec::len).max().unwrap_or(0);
    let whole: Vec<f32> = (0..=most).map(|n| n as f32).collect();
    let whole = TensorData::new(whole, [most + 1, 1]);
    sums.push(Tensor::from_data(whole, (&device, alpha.dtype())));
    let bounds = Tensor::cat(sums, 0);
    let shares =
        ops::embedding(bounds.clone(), &members.upper) - ops::embedding(bounds, &members.lower);
    Fired { ends, members, shares }
}

/// Which frames are in which vectors; a share is the difference of two bounds.
#[derive(Debug, Default)]
struct Members {
    /// Rows of the batch's frames; the bounds behind them are 0, 1, 2, ….
    n_frames: usize,
    rows: Vec<u32>,
    upper: Vec<u32>,
    lower: Vec<u32>,
    /// Entries of every vector.
    lengths: Vec<usize>,
}

impl Members {
    /// The vectors of an utterance whose frames begin at row `first`, given the sums of their weights. Returns the
    /// last frame in each.
    fn utterance(&mut self, first: usize, sums: &[f32], n_fired: usize) -> Vec<u32> {
        let mut ends = vec![sums.len().saturating_sub(1) as u32; n_fired];
        let mut lengths = vec![0; n_fired];
        let mut before = 0.0;
        for (frame, &sum) in sums.iter().enumerate() {
            let row = first + frame;
            let mut vector = before as usize;
            while vector < n_fired && sum > before && (vector as f32) < sum {
                let whole = |n: usize| (self.n_frames + n) as u32;
                let ends_within = sum < (vector + 1) as f32;
                let begins_within = (vector as f32) < before;
                self.rows.push(row as u32);
                self.upper.push(if ends_within { row as u32 } else { whole(vector + 1) });
                self.lower.push(if begins_within { row as u32 - 1 } else { whole(vector) });
                ends[vector] = frame as u32;
                lengths[vector] += 1;
                vector += 1;
            }
            before = sum;
        }
        self.lengths.extend(lengths);
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, Matrix, cpu, random};

    /// Vectors and ends of one column of frames.
    fn fired(
        frames: &[f32],
        alpha: &[f32],
        lengths: &[usize],
        counts: Option<&[usize]>,
    ) -> (Vec<f32>, Vec<Vec<u32>>) {
        let column = |values: &[f32]| {
            let shape = [values.len(), 1];
            Matrix { values: values.to_vec(), shape }.tensor(&cpu())
        };
        let frames = Ragged { values: column(frames), offsets: Offsets::from_lengths(lengths) };
        let fired = fire(column(alpha), &frames.offsets, counts);
        let (found, ends) = (fired.integrate(frames.values), fired.ends);
        assert_eq!(found.offsets.lengths(), ends.iter().map(Vec::len).collect::<Vec<_>>());
        (host(found.values), ends)
    }

    fn close(found: &[f32], expected: &[f32]) {
        let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(found.len() == expected.len() && near, "{found:?}, not {expected:?}");
    }

    #[test]
    fn whole_numbers_fire() {
        let frames = [1.0, 2.0, 3.0, 4.0];
        // ·4 1 + ·6 2 and ·2 2 + ·3 3 + ·5 4; a rest of ·4 is too small.
        let (found, ends) = fired(&frames, &[0.4, 0.8, 0.3, 0.9], &[4], None);
        close(&found, &[1.6, 3.3]);
        assert_eq!(ends, [vec![1, 3]]);
        // A rest of ·6 fires with what there is: ·6 4.
        let (found, ends) = fired(&frames, &[0.4, 0.8, 0.4, 1.0], &[4], None);
        close(&found, &[1.6, 0.2 * 2.0 + 0.4 * 3.0 + 0.4 * 4.0, 2.4]);
        assert_eq!(ends, [vec![1, 3, 3]]);
        // Weights of 1 are the frames themselves; utterances do not share.
        let (found, ends) = fired(&frames, &[1.0, 1.0, 0.3, 1.0], &[2, 0, 1, 1], None);
        close(&found, &[1.0, 2.0, 4.0]);
        assert_eq!(ends, [vec![0, 1], vec![], vec![], vec![0]]);
    }

    #[test]
    fn in_training_there_are_as_many_vectors_as_tokens() {
        let frames = [1.0, 2.0, 3.0, 4.0];
        // Scaled by 3 / 2.5 to ·48, ·96, ·36, 1·2: sums ·48, 1·44, 1·8, 3.
        let (found, ends) = fired(&frames, &[0.4, 0.8, 0.3, 1.0], &[4], Some(&[3]));
        close(&found, &[0.48 + 0.52 * 2.0, 0.44 * 2.0 + 0.36 * 3.0 + 0.2 * 4.0, 4.0]);
        assert_eq!(ends, [vec![1, 3, 3]]);
        // A frame of 1·6 is in both vectors, and one of 2·4 ends three.
        let (found, ends) = fired(&frames[..3], &[0.1, 0.8, 0.1], &[3], Some(&[2]));
        close(&found, &[0.2 + 0.8 * 2.0, 0.8 * 2.0 + 0.2 * 3.0]);
        assert_eq!(ends, [vec![1, 2]]);
        let (found, ends) = fired(&frames[..3], &[0.1, 0.1, 0.8], &[3], Some(&[3]));
        close(&found, &[0.3 + 0.3 * 2.0 + 0.4 * 3.0, 3.0, 3.0]);
        assert_eq!(ends, [vec![2, 2, 2]]);
        // More tokens than frames: one vector a frame at most.
        let (found, _) = fired(&frames[..2], &[0.5, 0.5], &[2], Some(&[7]));
        close(&found, &[1.0, 2.0]);
        // No weight at all gives vectors of nothing, and no frames none.
        assert_eq!(fired(&frames[..2], &[0.0, 0.0], &[2], Some(&[2])).0, [0.0, 0.0]);
        assert!(fired(&[], &[], &[0], Some(&[2])).1[0].is_empty());
    }

    #[test]
    fn gradients_match_differences() {
        let lengths = [5, 0, 1, 4];
        let offsets = Offsets::from_lengths(&lengths);
        // Sums keep away from whole numbers, where a share has a kink.
        let alpha = Matrix {
            values: vec![0.4, 0.8, 0.5, 0.7, 0.2, 0.6, 0.3, 0.9, 0.55, 0.5],
            shape: [10, 1],
        };
        let case = || Case::new().input(random([10, 3], 1)).input(alpha.clone());
        for counts in [None, Some([2, 0, 1, 3]), Some([3, 1, 0, 1])] {
            case().check_differences(|t| {
                let counts = counts.as_ref().map(|counts| &counts[..]);
                fire(t.rows(1), &offsets, counts).integrate(t.rows(0)).values
            });
        }
    }

    #[test]
    fn the_number_of_vectors_is_learned() {
        // |1.2 - 3| + |·5 - 0| + |0 - 2|, of which the last cannot be helped.
        let device = cpu().autodiff();
        let alpha = Tensor::<2>::from_floats([[0.4], [0.8], [0.5]], &device).require_grad();
        let offsets = Offsets::from_lengths(&[2, 1, 0]);
        let loss = quantity(alpha.clone(), &offsets, &[3, 0, 2]);
        assert!((host(loss.clone().inner())[0] - 4.3).abs() < 1e-5);
        let gradient = host(alpha.grad(&loss.backward()).unwrap());
        assert_eq!(gradient, [-1.0, -1.0, 1.0]);
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let wrong = FireConfig { kernel: 2, d_conv: 0, quantity_weight: -1.0 };
        assert_eq!(
            wrong.problems(),
            [
                "kernel is 2, expected an odd number",
                "d_conv is 0, expected at least 1",
                "quantity_weight is -1, expected a number of at least 0"
            ]
        );
    }
}
