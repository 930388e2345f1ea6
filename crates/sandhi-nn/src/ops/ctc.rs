//! Connectionist temporal classification (Graves et al. 2006) over packed sequences.
//!
//! The forward and backward recursions run on the host, in [`sandhi_align::ctc`], and hand back the
//! gradient with the loss; the tensor only carries it.

use burn::tensor::{Tensor, TensorData};
use sandhi_align::ctc;

use crate::ragged::Offsets;

/// Whether `n_frames` frames can spell `target`: one frame a symbol, and one more between equal
/// neighbors.
pub fn ctc_feasible(n_frames: usize, target: &[u32]) -> bool {
    ctc::is_feasible(n_frames, target)
}

/// `sum_b weights[b] * -log p(targets[b] | logits of sequence b)`, the softmax included.
///
/// Targets that their sequence is too short for ([`ctc_feasible`]) and sequences of weight 0
/// contribute nothing, in either direction.
///
/// # Shapes
///
/// - `logits`: `[n_frames_total, n_symbols]`
/// - `offsets`: `n_frames_total` rows in all
/// - `targets`, `weights`: one per sequence; a target is free of `blank`
/// - output: `[1]`
///
/// # Panics
///
/// When a shape does not fit, or a symbol or `blank` is not below `n_symbols`, or a target contains
/// the blank.
pub fn ctc_loss(
    logits: Tensor<2>,
    offsets: &Offsets,
    targets: &[Vec<u32>],
    blank: u32,
    weights: &[f32],
) -> Tensor<1> {
    let [n_rows, n_symbols] = logits.dims();
    assert_eq!(offsets.n_rows(), n_rows, "the offsets cover the rows of the logits");
    assert_eq!(targets.len(), offsets.n_sequences(), "ctc_loss needs one target per sequence");
    assert_eq!(weights.len(), offsets.n_sequences(), "ctc_loss needs one weight per sequence");
    composed(logits, offsets, targets, blank, weights, n_symbols)
}

fn composed(
    logits: Tensor<2>,
    offsets: &Offsets,
    targets: &[Vec<u32>],
    blank: u32,
    weights: &[f32],
    n_symbols: usize,
) -> Tensor<1> {
    let (device, dtype) = (logits.device(), logits.dtype());
    let n_rows = offsets.n_rows();
    let data = logits.clone().detach().into_data().convert::<f32>();
    let values = data.as_slice::<f32>().expect("converted to f32 the line before");
    let (loss, gradient) = ctc::batch_loss_and_gradient(
        values,
        n_symbols,
        offsets.as_slice(),
        targets,
        blank,
        weights,
    )
    .unwrap_or_else(|error| panic!("{error}"));
    let loss = Tensor::from_data(TensorData::new(vec![loss as f32], [1]), (&device, dtype));
    if n_rows == 0 {
        return loss;
    }
    // A function with this value whose gradient is the one computed: it is linear around here.
    let gradient =
        Tensor::from_data(TensorData::new(gradient, [n_rows, n_symbols]), (&device, dtype));
    let carrier = (logits * gradient).sum_dim(0).sum_dim(1).reshape([1]);
    carrier.clone() - carrier.detach() + loss
}
