//! Connectionist temporal classification (Graves et al. 2006) over packed sequences.
//!
//! The forward and backward recursions run on the host, in [`sandhi_align::ctc`], and hand back the
//! gradient with the loss; the tensor only carries it.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;
use sandhi_align::ctc;

use super::bridge::{
    Kernel, apply1, dense, dims2, is_fused, owned, scaled, tensor, unique_values, values,
};
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
    if is_fused(&logits) {
        let (targets, weights) = (targets.into(), weights.into());
        apply1(logits, Ctc { offsets: offsets.clone(), targets, blank, weights })
    } else {
        composed(logits, offsets, targets, blank, weights, n_symbols)
    }
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

#[derive(Debug, Clone)]
struct Ctc {
    offsets: Offsets,
    targets: Arc<[Vec<u32>]>,
    blank: u32,
    weights: Arc<[f32]>,
}

impl Kernel<1> for Ctc {
    /// The gradient for an output gradient of 1, written over the logits.
    type Saved = FlexTensor;

    fn forward(&self, [logits]: [FlexTensor; 1]) -> (FlexTensor, FlexTensor) {
        let mut logits = owned(logits);
        let [_, n_symbols] = dims2(&logits);
        let loss = ctc::batch_loss_in_place(
            unique_values(&mut logits).expect("owned above"),
            n_symbols,
            self.offsets.as_slice(),
            &self.targets,
            self.blank,
            &self.weights,
        )
        .unwrap_or_else(|error| panic!("{error}"));
        (tensor(vec![loss as f32], [1]), logits)
    }

    fn infer(&self, [logits]: [FlexTensor; 1]) -> FlexTensor {
        let logits = dense(logits);
        let [_, n_symbols] = dims2(&logits);
        let loss = ctc::batch_loss(
            values(&logits),
            n_symbols,
            self.offsets.as_slice(),
            &self.targets,
            self.blank,
            &self.weights,
        )
        .unwrap_or_else(|error| panic!("{error}"));
        tensor(vec![loss as f32], [1])
    }

    fn backward(
        &self,
        saved: FlexTensor,
        gradient: FlexTensor,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        [Some(scaled(saved, values(&dense(gradient))[0]))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, cpu, random, to_vec};

    fn batch() -> (Offsets, Vec<Vec<u32>>, Vec<f32>) {
        // The second target does not fit its frames, the third sequence is empty, the fourth has
        // no weight.
        let targets = vec![vec![1, 1, 3], vec![2, 2], vec![], vec![4], vec![]];
        (Offsets::from_lengths(&[9, 2, 0, 3, 4]), targets, vec![1.0, 1.0, 1.0, 0.0, 0.25])
    }

    #[test]
    fn fused_equals_composed() {
        let (offsets, targets, weights) = batch();
        Case::new().input(random([18, 5], 1)).check(
            |t| ctc_loss(t.rows(0), &offsets, &targets, 0, &weights),
            |t| composed(t.rows(0), &offsets, &targets, 0, &weights, 5),
        );
    }

    #[test]
    fn gradient_matches_differences() {
        let (offsets, targets, weights) = batch();
        Case::new()
            .input(random([18, 5], 1))
            .check_differences(|t| ctc_loss(t.rows(0), &offsets, &targets, 0, &weights));
    }

    #[test]
    fn three_paths_of_four_spell_one_letter() {
        // Two frames, two equally likely symbols: aa, a-, -a of four paths spell "a".
        let loss = |device| {
            let logits = Tensor::<2>::zeros([2, 2], &device);
            to_vec(ctc_loss(logits, &Offsets::from_lengths(&[2]), &[vec![1]], 0, &[2.0]))[0]
        };
        let expected = 2.0 * (4.0_f32 / 3.0).ln();
        assert!((loss(cpu()) - expected).abs() < 1e-6);
        assert!((loss(cpu().autodiff()) - expected).abs() < 1e-6);
    }

    #[test]
    fn nothing_to_spell_costs_nothing() {
        let none = Tensor::<2>::zeros([0, 3], &cpu());
        assert_eq!(to_vec(ctc_loss(none, &Offsets::from_lengths(&[]), &[], 0, &[])), [0.0]);
        assert!(!ctc_feasible(1, &[1, 2]) && ctc_feasible(2, &[1, 2]));
    }

    #[test]
    #[should_panic(expected = "symbol 7 is not below the 3 columns")]
    fn a_symbol_without_a_column_is_refused() {
        let logits = Tensor::<2>::zeros([2, 3], &cpu());
        ctc_loss(logits, &Offsets::from_lengths(&[2]), &[vec![7]], 0, &[1.0]);
    }
}
