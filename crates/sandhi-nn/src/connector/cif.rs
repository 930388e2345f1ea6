//! Continuous integrate-and-fire: weights of frames add up, and every whole number is a vector
//! ("CIF: Continuous integrate-and-fire for end-to-end speech recognition", Dong and Xu, 2020,
//! <https://arxiv.org/abs/1905.11235>, section 3.1; before language models as in CFormer,
//! <https://arxiv.org/abs/2405.19041>, and Wav2Prompt, <https://arxiv.org/abs/2406.00522>).
//!
//! Losses are taken with weights scaled to the number of tokens, on the dev half too: how well the unscaled weights
//! count is told by the quantity loss, and by what is measured in use.
//!
//! ```text
//! frames     f0    f1      f2   f3                alpha = sigmoid(linear(ReLU(convolution(frames))))
//! alpha      ·4    ·8      ·3   ·9
//! sums    0  ·4    1·2    1·5   2·4
//!         |---c0---|----c1----|-- rest            c0 = ·4 f0 + ·6 f1,  c1 = ·2 f1 + ·3 f2 + ·5 f3
//! ```
//!
//! In training the weights are scaled, so that there are as many vectors as tokens are said, at most one for each
//! frame; a frame may then weigh more than 1 and be in several vectors. In use they are not, and a rest of ½ or
//! more is a vector, too. The number of vectors learns from `|sum of alpha - tokens|`. Which frames are in which
//! vector is decided on the host; with the sums `A` of an utterance, vector `i` has of frame `t` the share
//! `min(A[t], i + 1) - max(A[t - 1], i)`, and gradients flow through the `A` in it.

use burn::{
    prelude::*,
    tensor::activation::{relu, sigmoid},
};
use serde::{Deserialize, Serialize};

use super::{ConnectorOutput, Kind, Needs, Penalty, Per, Projector, ProjectorConfig, Widths};
use crate::{
    init::Init,
    layers::Linear,
    length::Length,
    lora::{Linears, NamedLinears, below},
    ops,
    ragged::{Offsets, Ragged},
    transformer::Dropout,
    weights::host,
};

/// `kind = "cif"` in a recipe's `[connector]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CifConfig {
    /// Frames that a weight looks at: odd, the frame in the middle.
    #[serde(default = "default_kernel")]
    pub kernel: usize,
    /// Channels of the convolution.
    pub d_conv: usize,
    /// From fired vectors to those of the language model.
    #[serde(default)]
    pub projector: ProjectorConfig,
    /// Weight of `|sum of alpha - tokens|`, per utterance.
    #[serde(default = "one")]
    pub quantity_weight: f64,
}

fn default_kernel() -> usize {
    3
}

fn one() -> f64 {
    1.0
}

/// Built by [`CifConfig::init`].
#[derive(Module, Debug)]
pub struct Cif {
    conv: Linear,
    alpha: Linear,
    projector: Projector,
    kernel: usize,
}

/// What is left of an utterance's weights is a vector from here on.
const TAIL: f32 = 0.5;

/// Weights that sum to less are not scaled up further.
const SMALLEST_SUM: f64 = 1e-6;

impl Kind for CifConfig {
    fn needs(&self) -> Needs {
        Needs { said: true, ..Needs::default() }
    }

    /// The loss on the number of vectors.
    fn penalties(&self) -> Vec<Penalty> {
        vec![Penalty { name: "quantity", weight: self.quantity_weight, per: Per::Utterance }]
    }

    fn is_per_token(&self) -> bool {
        true
    }
}

impl CifConfig {
    /// Vectors for `n_frames` frames.
    pub fn length(&self, n_frames: usize) -> Length {
        Length::AtMost(n_frames)
    }

    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.projector.problems();
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

    /// Builds the connector with random weights.
    pub fn init(&self, widths: Widths, init: &Init) -> Cif {
        let d_window = self.kernel * widths.d_encoder;
        Cif {
            conv: Linear::new(&init.child("conv"), d_window, self.d_conv, true),
            alpha: Linear::new(&init.child("alpha"), self.d_conv, 1, true),
            projector: self.projector.init(widths, &init.child("projector")),
            kernel: self.kernel,
        }
    }
}

impl Linears for Cif {
    fn linears(&mut self) -> NamedLinears<'_> {
        let own = [("conv".to_owned(), &mut self.conv), ("alpha".to_owned(), &mut self.alpha)];
        own.into_iter().chain(below("projector", self.projector.linears())).collect()
    }
}

impl Cif {
    pub(super) fn recompute(&mut self, on: bool) {
        self.projector.recompute(on);
    }

    /// Vectors, the frame that each fired at, and the loss on their number where `said` is given.
    ///
    /// # Shapes
    ///
    /// - `frames.values`: `[n_frames, d_encoder]`
    /// - `said`: tokens of every utterance, in training
    /// - output: `[n_vectors, d_model]`
    pub fn forward(
        &self,
        frames: &Ragged,
        said: Option<&[Vec<u32>]>,
        dropout: Dropout,
    ) -> ConnectorOutput {
        let alpha = self.weigh(frames);
        let counts: Option<Vec<usize>> = said.map(|said| said.iter().map(Vec::len).collect());
        let (x, ends) = integrate_and_fire(frames, alpha.clone(), counts.as_deref());
        let vectors = self.projector.forward(x, dropout);
        let quantity = counts.map(|counts| quantity(alpha, &frames.offsets, &counts));
        let penalties = quantity.into_iter().collect();
        ConnectorOutput { vectors, ends: Some(ends), penalties }
    }

    /// The weight of every frame, `[n_frames, 1]`.
    fn weigh(&self, frames: &Ragged) -> Tensor<2> {
        let Ragged { values, offsets } = frames;
        let (windows, _) = ops::unfold(values.clone(), offsets, self.kernel, 1, self.kernel / 2);
        sigmoid(self.alpha.forward(relu(self.conv.forward(windows))))
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

/// Vectors, and the last frame in each. With `counts` the weights of an utterance are scaled to sum to its count, or
/// to its number of frames where that is smaller.
///
/// # Shapes
///
/// - `frames.values`: `[n_frames, width]`
/// - `alpha`: `[n_frames, 1]`, at least 0
/// - output: `[n_fired, width]`
fn integrate_and_fire(
    frames: &Ragged,
    alpha: Tensor<2>,
    counts: Option<&[usize]>,
) -> (Ragged, Vec<Vec<u32>>) {
    let offsets = &frames.offsets;
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

    let mut fired = Fired { n_frames, ..Fired::default() };
    let mut ends = Vec::with_capacity(offsets.n_sequences());
    for (i, span) in offsets.iter().enumerate() {
        let sums = &on_host[span.clone()];
        let total = sums.last().copied().unwrap_or(0.0);
        let n_fired = count(i, span.len())
            .unwrap_or_else(|| total as usize + usize::from(total.fract() >= TAIL));
        ends.push(fired.utterance(span.start, sums, n_fired));
    }
    // The whole numbers that vectors begin and end at stand behind the sums.
    let most = ends.iter().map(Vec::len).max().unwrap_or(0);
    let whole: Vec<f32> = (0..=most).map(|n| n as f32).collect();
    let whole = TensorData::new(whole, [most + 1, 1]);
    sums.push(Tensor::from_data(whole, (&device, alpha.dtype())));
    let bounds = Tensor::cat(sums, 0);
    let shares =
        ops::embedding(bounds.clone(), &fired.upper) - ops::embedding(bounds, &fired.lower);
    let of_vectors = Offsets::from_lengths(&fired.lengths);
    let values = ops::pool(frames.values.clone(), shares, &fired.rows, &of_vectors);
    let lengths: Vec<usize> = ends.iter().map(Vec::len).collect();
    (Ragged { values, offsets: Offsets::from_lengths(&lengths) }, ends)
}

/// Which frames are in which vectors; a share is the difference of two bounds.
#[derive(Debug, Default)]
struct Fired {
    /// Rows of the batch's frames; the bounds behind them are 0, 1, 2, ….
    n_frames: usize,
    rows: Vec<u32>,
    upper: Vec<u32>,
    lower: Vec<u32>,
    /// Entries of every vector.
    lengths: Vec<usize>,
}

impl Fired {
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
    use crate::{
        connector::{ConnectorConfig, LayersConfig, MlpConfig, testing::obeys},
        ops::testing::{Case, Matrix, cpu, random},
    };

    fn config() -> CifConfig {
        CifConfig { kernel: 3, d_conv: 7, projector: ProjectorConfig::Linear, quantity_weight: 1.0 }
    }

    #[test]
    fn it_is_a_connector() {
        let mlp = ProjectorConfig::Mlp(MlpConfig { d_hidden: 10 });
        let layers = LayersConfig { d_hidden: 8, n_layers: 1, n_heads: 2, d_ff: 12 };
        let transformer = ProjectorConfig::Transformer(layers);
        for (kernel, projector) in [(3, ProjectorConfig::Linear), (1, mlp), (5, transformer)] {
            obeys(&ConnectorConfig::Cif(CifConfig { kernel, projector, ..config() }));
        }
    }

    /// Vectors and ends of one column of frames.
    fn fire(
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
        let (found, ends) = integrate_and_fire(&frames, column(alpha), counts);
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
        let (found, ends) = fire(&frames, &[0.4, 0.8, 0.3, 0.9], &[4], None);
        close(&found, &[1.6, 3.3]);
        assert_eq!(ends, [vec![1, 3]]);
        // A rest of ·6 fires with what there is: ·6 4.
        let (found, ends) = fire(&frames, &[0.4, 0.8, 0.4, 1.0], &[4], None);
        close(&found, &[1.6, 0.2 * 2.0 + 0.4 * 3.0 + 0.4 * 4.0, 2.4]);
        assert_eq!(ends, [vec![1, 3, 3]]);
        // Weights of 1 are the frames themselves; utterances do not share.
        let (found, ends) = fire(&frames, &[1.0, 1.0, 0.3, 1.0], &[2, 0, 1, 1], None);
        close(&found, &[1.0, 2.0, 4.0]);
        assert_eq!(ends, [vec![0, 1], vec![], vec![], vec![0]]);
    }

    #[test]
    fn in_training_there_are_as_many_vectors_as_tokens() {
        let frames = [1.0, 2.0, 3.0, 4.0];
        // Scaled by 3 / 2.5 to ·48, ·96, ·36, 1·2: sums ·48, 1·44, 1·8, 3.
        let (found, ends) = fire(&frames, &[0.4, 0.8, 0.3, 1.0], &[4], Some(&[3]));
        close(&found, &[0.48 + 0.52 * 2.0, 0.44 * 2.0 + 0.36 * 3.0 + 0.2 * 4.0, 4.0]);
        assert_eq!(ends, [vec![1, 3, 3]]);
        // A frame of 1·6 is in both vectors, and one of 2·4 ends three.
        let (found, ends) = fire(&frames[..3], &[0.1, 0.8, 0.1], &[3], Some(&[2]));
        close(&found, &[0.2 + 0.8 * 2.0, 0.8 * 2.0 + 0.2 * 3.0]);
        assert_eq!(ends, [vec![1, 2]]);
        let (found, ends) = fire(&frames[..3], &[0.1, 0.1, 0.8], &[3], Some(&[3]));
        close(&found, &[0.3 + 0.3 * 2.0 + 0.4 * 3.0, 3.0, 3.0]);
        assert_eq!(ends, [vec![2, 2, 2]]);
        // More tokens than frames: one vector a frame at most.
        let (found, _) = fire(&frames[..2], &[0.5, 0.5], &[2], Some(&[7]));
        close(&found, &[1.0, 2.0]);
        // No weight at all gives vectors of nothing, and no frames none.
        assert_eq!(fire(&frames[..2], &[0.0, 0.0], &[2], Some(&[2])).0, [0.0, 0.0]);
        assert!(fire(&[], &[], &[0], Some(&[2])).1[0].is_empty());
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
                let frames = Ragged { values: t.rows(0), offsets: offsets.clone() };
                let counts = counts.as_ref().map(|counts| &counts[..]);
                integrate_and_fire(&frames, t.rows(1), counts).0.values
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
        let wrong = CifConfig { kernel: 2, d_conv: 0, quantity_weight: -1.0, ..config() };
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
