//! Weighted softmax cross-entropy, the loss of a language model.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData, activation};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{
    blocks::rows_per_block,
    bridge::{
        Kernel, apply1, dense, dims2, is_fused, owned, scaled, tensor, unique_values, values,
    },
    index_tensor,
    simd::{exp_shifted, max, sum_exp_shifted, vectorized},
};

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
    if is_fused(&logits) {
        apply1(logits, CrossEntropy { targets: targets.into(), weights: weights.into() })
    } else {
        composed(logits, targets, weights)
    }
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

#[derive(Debug, Clone)]
struct CrossEntropy {
    targets: Arc<[u32]>,
    weights: Arc<[f32]>,
}

impl CrossEntropy {
    fn rows(&self) -> impl IndexedParallelIterator<Item = (u32, f32)> + '_ {
        self.targets.par_iter().copied().zip(self.weights.par_iter().copied())
    }
}

impl Kernel<1> for CrossEntropy {
    /// The gradient for an output gradient of 1, written over the logits.
    type Saved = FlexTensor;

    fn forward(&self, [logits]: [FlexTensor; 1]) -> (FlexTensor, FlexTensor) {
        let mut logits = owned(logits);
        let [_, n_symbols] = dims2(&logits);
        let rows = unique_values(&mut logits).expect("owned the line before");
        let losses: Vec<f64> = rows
            .par_chunks_mut(n_symbols.max(1))
            .zip(self.rows())
            .with_min_len(rows_per_block(n_symbols))
            .map(|(row, (target, weight))| {
                if weight == 0.0 {
                    row.fill(0.0);
                    return 0.0;
                }
                loss_and_gradient(row, target as usize, weight)
            })
            .collect();
        (scalar(&losses), logits)
    }

    fn infer(&self, [logits]: [FlexTensor; 1]) -> FlexTensor {
        let logits = dense(logits);
        let [_, n_symbols] = dims2(&logits);
        let losses: Vec<f64> = values(&logits)
            .par_chunks(n_symbols.max(1))
            .zip(self.rows())
            .with_min_len(rows_per_block(n_symbols))
            .map(
                |(row, (target, weight))| {
                    if weight == 0.0 { 0.0 } else { loss(row, target as usize, weight) }
                },
            )
            .collect();
        scalar(&losses)
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

/// The sum of the rows' losses, in order.
fn scalar(losses: &[f64]) -> FlexTensor {
    tensor(vec![losses.iter().sum::<f64>() as f32], [1])
}

vectorized! {
    fn loss(row: &[f32], target: usize, weight: f32) -> f64 {
        let peak = max(row);
        let sum = sum_exp_shifted::<FMA>(row, peak);
        f64::from(weight) * (f64::from(sum).ln() + f64::from(peak) - f64::from(row[target]))
    }
}

vectorized! {
    /// Turns a row of logits into `weight (softmax - one-hot)`.
    fn loss_and_gradient(row: &mut [f32], target: usize, weight: f32) -> f64 {
        let peak = max(row);
        let logit = f64::from(row[target]);
        let sum = exp_shifted::<FMA>(row, peak);
        let scale = weight / sum;
        for value in row.iter_mut() {
            *value *= scale;
        }
        row[target] -= weight;
        f64::from(weight) * (f64::from(sum).ln() + f64::from(peak) - logit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, cpu, random, to_vec};

    fn targets(n_rows: usize, n_symbols: usize) -> (Vec<u32>, Vec<f32>) {
        (0..n_rows).map(|i| (((i * 7) % n_symbols) as u32, [0.5, 0.0, 1.25][i % 3])).unzip()
    }

    #[test]
    fn fused_equals_composed() {
        for [n_rows, n_symbols] in [[1, 2], [5, 33], [70, 400], [2, 20_000]] {
            let (targets, weights) = targets(n_rows, n_symbols);
            Case::new().input(random([n_rows, n_symbols], 1)).check(
                |t| cross_entropy(t.rows(0), &targets, &weights),
                |t| composed(t.rows(0), &targets, &weights),
            );
        }
    }

    #[test]
    fn gradient_matches_differences() {
        let (targets, weights) = targets(4, 5);
        Case::new()
            .input(random([4, 5], 1))
            .check_differences(|t| cross_entropy(t.rows(0), &targets, &weights));
    }

    #[test]
    fn equal_logits_cost_the_log_of_the_symbols() {
        // Two rows that count, of weights 1 and 2: 3 ln 8. The third has a target out of range.
        let logits = Tensor::<2>::zeros([3, 8], &cpu());
        let loss = to_vec(cross_entropy(logits, &[3, 7, 99], &[1.0, 2.0, 0.0]));
        assert!((loss[0] - 3.0 * 8.0_f32.ln()).abs() < 1e-5);
    }

    #[test]
    fn logits_that_overflow_exp_are_fine_and_nan_stays_nan() {
        let logits = Tensor::<2>::from_floats([[1000.0, 0.0]], &cpu());
        assert_eq!(to_vec(cross_entropy(logits, &[1], &[1.0])), [1000.0]);
        let logits = Tensor::<2>::from_floats([[f32::NAN, 0.0]], &cpu());
        assert!(to_vec(cross_entropy(logits, &[1], &[1.0]))[0].is_nan());
    }

    #[test]
    fn logits_used_elsewhere_are_left_alone() {
        let device = cpu().autodiff();
        let logits = random([3, 4], 1).tensor(&device).require_grad();
        let before = to_vec(logits.clone().inner());
        let loss = cross_entropy(logits.clone(), &[0, 1, 2], &[1.0; 3]);
        assert_eq!(to_vec(logits.clone().inner()), before);
        let gradient = to_vec(logits.grad(&loss.backward()).unwrap());
        for row in gradient.chunks(4) {
            assert!(row.iter().sum::<f32>().abs() < 1e-6, "softmax and one-hot both sum to 1");
        }
    }

    #[test]
    #[should_panic(expected = "target 8 of row 1")]
    fn a_target_out_of_range_is_refused() {
        cross_entropy(Tensor::zeros([2, 8], &cpu()), &[0, 8], &[1.0, 1.0]);
    }
}
