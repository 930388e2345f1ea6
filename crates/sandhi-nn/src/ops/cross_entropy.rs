//! Weighted softmax cross-entropy, the loss of a language model.

use burn::tensor::{Tensor, TensorData, activation};

use super::index_tensor;

/// `sum_i weights[i] * -log softmax(logits[i])[targets[i]]`.
///
/// Rows of weight 0 (a prompt, say) are not touched, in either direction. Normalize by dividing the
/// weights, not the result: then replicas can share one global count.
///
/// # Shapes
///
/// - `logits`: `[n_rows, n_symbols]`
/// - `targets`, `weights`: `[n_rows]`; a target of a row with weight 0 may be anything
/// - output: `[1]`
///
/// # Panics
///
/// When a length differs from `n_rows`, or a target that counts is not below `n_symbols`.
pub fn cross_entropy(logits: Tensor<2>, targets: &[u32], weights: &[f32]) -> Tensor<1> {
    let [n_rows, n_symbols] = logits.dims();
    assert_eq!(targets.len(), n_rows, "cross_entropy needs one target per row");
    assert_eq!(weights.len(), n_rows, "cross_entropy needs one weight per row");
    for (row_idx, (&target, &weight)) in targets.iter().zip(weights).enumerate() {
        assert!(
            weight == 0.0 || (target as usize) < n_symbols,
            "target {target} of row {row_idx} is not below the {n_symbols} symbols of the logits"
        );
    }
    composed(logits, targets, weights)
}

fn composed(logits: Tensor<2>, targets: &[u32], weights: &[f32]) -> Tensor<1> {
    let device = logits.device();
    let dtype = logits.dtype();
    let counted: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] != 0.0).collect();
    if counted.is_empty() {
        return Tensor::zeros([1], (&device, dtype));
    }
    let n = counted.len();
    let target = index_tensor(counted.iter().map(|&i| targets[i] as usize), &device);
    let weight: Vec<f32> = counted.iter().map(|&i| weights[i]).collect();
    let weight = Tensor::<1>::from_data(TensorData::new(weight, [n]), (&device, dtype));
    let logits =
        if n == weights.len() { logits } else { logits.select(0, index_tensor(counted, &device)) };
    let log_p = activation::log_softmax(logits, 1).gather(1, target.reshape([n, 1]));
    (log_p.reshape([n]) * weight).sum_dim(0).neg()
}
