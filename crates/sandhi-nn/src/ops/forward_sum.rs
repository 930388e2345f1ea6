//! Losses of soft monotonic alignments over packed matrices of scores: the forward sum, and how far the soft alignment
//! is from its best path.
//!
//! ```text
//! scores [n_frames, n_tokens] of every utterance ─ host: all paths, or the best one ─ loss [1], with its gradient
//! ```
//!
//! The recursions run on the host, in [`sandhi_align::monotonic`]; the tensor carries their gradient back.

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use sandhi_align::{
    ctc::log_softmax_row,
    monotonic::{self, Error},
    transport::Batch,
};

/// `sum_b weights[b] * -log sum over paths of prod over frames of p(token of the path | frame)`, where `p` is the softmax
/// of a frame's scores over the tokens: [`monotonic::forward_sum`]. `blank` is the score of a column for frames that
/// belong to no token.
///
/// Problems of weight 0 contribute nothing. Not a number where a score is none.
///
/// # Shapes
///
/// - `scores`: `[n_cells, 1]`, the matrices of `batch` with a row a frame and a column a token
/// - `weights`: one a problem
/// - output: `[1]`
///
/// # Panics
///
/// When shapes do not fit, or a problem of another weight than 0 has fewer frames than tokens.
pub fn forward_sum_loss(
    scores: Tensor<2>,
    batch: &Batch,
    blank: Option<f32>,
    weights: &[f32],
) -> Tensor<1> {
    carried(scores, batch, weights, |scores, n_tokens| {
        monotonic::forward_sum(scores, n_tokens, blank)
    })
}

/// `sum_b weights[b] * -log sum over paths of prod over frames of exp(log_likelihood of the frame by the token of the
/// path)`: [`monotonic::path_sum`], for likelihoods that are normalized already, or over something else than the tokens.
///
/// # Shapes
///
/// As [`forward_sum_loss`].
///
/// # Panics
///
/// As [`forward_sum_loss`].
pub fn path_sum_loss(log_likelihoods: Tensor<2>, batch: &Batch, weights: &[f32]) -> Tensor<1> {
    carried(log_likelihoods, batch, weights, monotonic::path_sum)
}

/// `sum_b weights[b] * -sum over frames of log p(token of the best path | frame)`: the divergence of the soft alignment
/// from the hard one, which has no gradient of its own. Badlani et al. 2022, "One TTS alignment to rule them all"
/// ([arXiv 2108.10447](https://arxiv.org/abs/2108.10447), equation 6).
///
/// # Shapes
///
/// As [`forward_sum_loss`].
///
/// # Panics
///
/// As [`forward_sum_loss`].
pub fn binarization_loss(scores: Tensor<2>, batch: &Batch, weights: &[f32]) -> Tensor<1> {
    carried(scores, batch, weights, |scores, n_tokens| {
        let path = monotonic::search(scores, n_tokens)?;
        let (mut loss, mut gradient) = (0.0, scores.to_vec());
        let tokens = path.durations.iter().enumerate();
        let tokens = tokens.flat_map(|(token, &n)| std::iter::repeat_n(token, n));
        for (row, token) in gradient.chunks_exact_mut(n_tokens).zip(tokens) {
            log_softmax_row(row);
            loss -= f64::from(row[token]);
            row.iter_mut().for_each(|log_prob| *log_prob = log_prob.exp());
            row[token] -= 1.0;
        }
        Ok((loss, gradient))
    })
}

/// The weighted sum of what `lose` gives of every matrix, in a tensor that is linear around the scores.
fn carried(
    scores: Tensor<2>,
    batch: &Batch,
    weights: &[f32],
    lose: impl Fn(&[f32], usize) -> Result<(f64, Vec<f32>), Error> + Sync,
) -> Tensor<1> {
    let (device, dtype) = (scores.device(), scores.dtype());
    let n_cells = batch.totals()[2];
    assert_eq!(scores.dims(), [n_cells, 1], "scores are the cells of the batch");
    assert_eq!(weights.len(), batch.len(), "one weight a problem");
    let data = scores.clone().detach().into_data().convert::<f32>();
    let on_host = data.as_slice::<f32>().expect("converted to f32 the line before");
    let lost: Vec<(f64, Vec<f32>)> = (0..batch.len())
        .into_par_iter()
        .map(|problem| {
            let scores = &on_host[batch.cells(problem)];
            let weight = weights[problem];
            if weight == 0.0 {
                return (0.0, vec![0.0; scores.len()]);
            }
            match lose(scores, batch.shape(problem)[1]) {
                Ok((loss, mut gradient)) => {
                    gradient.iter_mut().for_each(|value| *value *= weight);
                    (f64::from(weight) * loss, gradient)
                }
                // The step is told apart by its loss and left out.
                Err(Error::NotAScore { .. } | Error::Impossible) => {
                    (f64::NAN, vec![f32::NAN; scores.len()])
                }
                Err(error) => panic!("{error}"),
            }
        })
        .collect();
    let total: f64 = lost.iter().map(|(loss, _)| loss).sum();
    let total = Tensor::from_data(TensorData::new(vec![total as f32], [1]), (&device, dtype));
    if n_cells == 0 {
        return total;
    }
    // A function with this value whose gradient is the one computed: it is linear around here.
    let gradient: Vec<f32> = lost.into_iter().flat_map(|(_, gradient)| gradient).collect();
    let gradient =
        Tensor::<2>::from_data(TensorData::new(gradient, [n_cells, 1]), (&device, dtype));
    let carrier = (scores * gradient).sum_dim(0).reshape([1]);
    carrier.clone() - carrier.detach() + total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, cpu, random, to_vec};

    /// The third matrix has no weight and no path.
    fn batch() -> (Batch, [f32; 3]) {
        (Batch::new(&[0, 5, 9, 10], &[0, 3, 5, 7]).unwrap(), [1.0, 0.5, 0.0])
    }

    #[test]
    fn gradients_match_differences() {
        let (batch, weights) = batch();
        let case = Case::new().input(random([5 * 3 + 4 * 2 + 2, 1], 1));
        for blank in [None, Some(-1.0)] {
            case.check_differences(|t| forward_sum_loss(t.rows(0), &batch, blank, &weights));
        }
        case.check_differences(|t| path_sum_loss(t.rows(0), &batch, &weights));
        case.check_differences(|t| binarization_loss(t.rows(0), &batch, &weights));
    }

    #[test]
    fn losses_by_hand() {
        // Three frames over two tokens: two paths of probability 1/8 each; any of them is the best.
        let scores = Tensor::<2>::zeros([6, 1], &cpu());
        let batch = Batch::one([3, 2]).unwrap();
        let loss = |sum: Tensor<1>| to_vec(sum)[0];
        let sum = loss(forward_sum_loss(scores.clone(), &batch, None, &[2.0]));
        assert!((sum - 2.0 * 4.0_f32.ln()).abs() < 1e-6, "{sum}");
        let hard = loss(binarization_loss(scores, &batch, &[1.0]));
        assert!((hard - 3.0 * 2.0_f32.ln()).abs() < 1e-6, "{hard}");
        let bad = Tensor::<2>::from_floats([[f32::NAN]], &cpu());
        assert!(loss(forward_sum_loss(bad, &Batch::one([1, 1]).unwrap(), None, &[1.0])).is_nan());
        let none = Tensor::<2>::zeros([0, 1], &cpu());
        assert_eq!(loss(binarization_loss(none, &Batch::new(&[0], &[0]).unwrap(), &[])), 0.0);
    }

    #[test]
    fn an_utterance_does_not_know_its_batch() {
        let (batch, _) = batch();
        let cells = random([25, 1], 3);
        let device = cpu().autodiff();
        let gradient = |cells: &crate::ops::testing::Matrix, batch: &Batch, weights: &[f32]| {
            let leaf = cells.tensor(&device).require_grad();
            let loss = forward_sum_loss(leaf.clone(), batch, None, weights);
            to_vec(leaf.grad(&loss.backward()).unwrap())
        };
        let whole = gradient(&cells, &batch, &[1.0, 1.0, 0.0]);
        let alone = gradient(&cells.rows(15..23), &Batch::one([4, 2]).unwrap(), &[1.0]);
        assert_eq!(alone, whole[15..23]);
    }
}
