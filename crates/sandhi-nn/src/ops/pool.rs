//! Weighted sums of rows: what becomes one vector is listed, with its weight.
//!
//! ```text
//! x          x0 x1 x2 x3
//! entries    (x0, ½) (x1, ½) | (x1, ¾) (x3, ¼) |          spans of `offsets`; the last one is empty
//! output     ½ x0 + ½ x1     | ¾ x1 + ¼ x3     | 0
//! ```
//!
//! Means of runs and of segments have constant weights; those of integrate-and-fire learn.

use std::sync::Arc;

use burn::tensor::{IndexingUpdateOp, Tensor};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{
    blocks::{for_each_block, rows_per_block},
    bridge::{Kernel, apply2, dense, dims2, is_fused, tensor, values},
    index_tensor,
    simd::{dot, mul_add, vectorized},
};
use crate::ragged::Offsets;

/// `y[i] = sum_{e in offsets[i]} weights[e] * x[rows[e]]`; an empty span gives zeros.
///
/// # Shapes
///
/// - `x`: `[n_rows, width]`
/// - `weights`: `[n_entries, 1]`
/// - `rows`: `[n_entries]`, each below `n_rows`
/// - `offsets`: `n_entries` rows in `n_out` spans
/// - output: `[n_out, width]`
///
/// # Panics
///
/// When a shape or a row does not fit.
pub fn pool(x: Tensor<2>, weights: Tensor<2>, rows: &[u32], offsets: &Offsets) -> Tensor<2> {
    let [n_rows, width] = x.dims();
    assert_eq!(weights.dims(), [rows.len(), 1], "one weight for every entry");
    assert_eq!(offsets.n_rows(), rows.len(), "the offsets cover the entries");
    for (entry_idx, &row) in rows.iter().enumerate() {
        assert!((row as usize) < n_rows, "row {row} of entry {entry_idx} is not below {n_rows}");
    }
    if rows.is_empty() || width == 0 {
        return Tensor::zeros([offsets.n_sequences(), width], (&x.device(), x.dtype()));
    }
    if is_fused(&x) && is_fused(&weights) {
        apply2(x, weights, Pool { rows: rows.into(), offsets: offsets.clone() })
    } else {
        composed(x, weights, rows, offsets)
    }
}

fn composed(x: Tensor<2>, weights: Tensor<2>, rows: &[u32], offsets: &Offsets) -> Tensor<2> {
    let device = x.device();
    let [_, width] = x.dims();
    let zeros = Tensor::zeros([offsets.n_sequences(), width], (&device, x.dtype()));
    let picked = x.select(0, index_tensor(rows.iter().map(|&row| row as usize), &device));
    let owners = offsets.iter().enumerate().flat_map(|(i, span)| span.map(move |_| i));
    let owners = index_tensor(owners, &device);
    zeros.select_assign(0, owners, picked * weights, IndexingUpdateOp::Add)
}

#[derive(Debug, Clone)]
struct Pool {
    rows: Arc<[u32]>,
    offsets: Offsets,
}

impl Kernel<2> for Pool {
    type Saved = [FlexTensor; 2];

    fn forward(&self, inputs: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let [x, weights] = inputs.map(dense);
        let [_, width] = dims2(&x);
        let (from, factors) = (values(&x), values(&weights));
        let mut out = vec![0.0; self.offsets.n_sequences() * width];
        let block = rows_per_block(width);
        for_each_block(&mut out, block * width, |block_idx, out| {
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                for entry in self.offsets.range(block_idx * block + i) {
                    let row = self.rows[entry] as usize;
                    add_scaled(out, factors[entry], &from[row * width..][..width]);
                }
            }
        });
        (tensor(out, [self.offsets.n_sequences(), width]), [x, weights])
    }

    /// Entries of one row are added in their order, so threads may share the rows.
    fn backward(
        &self,
        [x, weights]: Self::Saved,
        gradient: FlexTensor,
        [want_x, want_weights]: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let gradient = dense(gradient);
        let [n_rows, width] = dims2(&x);
        let (from, factors, slopes) = (values(&x), values(&weights), values(&gradient));
        let n_entries = self.rows.len();
        let owners: Vec<usize> =
            self.offsets.iter().enumerate().flat_map(|(i, span)| span.map(move |_| i)).collect();
        let of_x = want_x.then(|| {
            let mut order: Vec<usize> = (0..n_entries).collect();
            order.sort_by_key(|&entry| self.rows[entry]);
            let mut out = vec![0.0; n_rows * width];
            let mut jobs = Vec::new();
            let (mut rest, mut taken) = (out.as_mut_slice(), 0);
            for same in order.chunk_by(|&a, &b| self.rows[a] == self.rows[b]) {
                let at = self.rows[same[0]] as usize;
                let (sum, others) = rest[(at - taken) * width..].split_at_mut(width);
                (rest, taken) = (others, at + 1);
                jobs.push((sum, same));
            }
            jobs.into_par_iter().with_min_len(rows_per_block(width)).for_each(|(sum, same)| {
                for &entry in same {
                    add_scaled(sum, factors[entry], &slopes[owners[entry] * width..][..width]);
                }
            });
            tensor(out, [n_rows, width])
        });
        let of_weights = want_weights.then(|| {
            let mut out = vec![0.0; n_entries];
            let block = rows_per_block(width);
            for_each_block(&mut out, block, |block_idx, out| {
                for (i, out) in out.iter_mut().enumerate() {
                    let entry = block_idx * block + i;
                    let row = &from[self.rows[entry] as usize * width..][..width];
                    *out = row_dot(row, &slopes[owners[entry] * width..][..width]);
                }
            });
            tensor(out, [n_entries, 1])
        });
        [of_x, of_weights]
    }
}

vectorized! {
    /// `sum += factor * row`.
    fn add_scaled(sum: &mut [f32], factor: f32, row: &[f32]) {
        for (sum, value) in sum.iter_mut().zip(row) {
            *sum = mul_add::<FMA>(factor, *value, *sum);
        }
    }
}

vectorized! {
    fn row_dot(a: &[f32], b: &[f32]) -> f32 {
        dot::<FMA>(a, b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, cpu, random, to_vec};

    #[test]
    fn sums_by_hand() {
        let x = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 0.0], [10.0, 20.0]], &cpu());
        let weights = Tensor::<2>::from_floats([[0.5], [0.5], [2.0]], &cpu());
        let offsets = Offsets::from_lengths(&[2, 0, 1]);
        let out = pool(x, weights, &[0, 1, 2], &offsets);
        assert_eq!(to_vec(out), [2.0, 1.0, 0.0, 0.0, 20.0, 40.0]);
    }

    #[test]
    fn nothing_gives_zeros() {
        let none = Tensor::<2>::zeros([0, 1], &cpu());
        let out = pool(Tensor::zeros([0, 3], &cpu()), none, &[], &Offsets::from_lengths(&[0, 0]));
        assert_eq!(to_vec(out), [0.0; 6]);
    }

    #[test]
    fn fused_equals_composed() {
        let many: Vec<u32> = (0..900_u32).map(|i| i * i % 300).collect();
        let lengths: Vec<usize> = (0..200).map(|i| 2 + 5 * (i % 2)).collect();
        for (n_rows, width, rows, lengths) in [
            (1, 3, vec![0, 0, 0], vec![0, 2, 1, 0]),
            (5, 4, vec![4, 0, 1, 1, 4], vec![1, 4]),
            (300, 130, many, lengths),
        ] {
            let offsets = Offsets::from_lengths(&lengths);
            Case::new().input(random([n_rows, width], 1)).input(random([rows.len(), 1], 2)).check(
                |t| pool(t.rows(0), t.rows(1), &rows, &offsets),
                |t| composed(t.rows(0), t.rows(1), &rows, &offsets),
            );
        }
    }

    #[test]
    fn gradients_match_differences() {
        let offsets = Offsets::from_lengths(&[3, 0, 2]);
        Case::new()
            .input(random([4, 3], 1))
            .input(random([5, 1], 2))
            .check_differences(|t| pool(t.rows(0), t.rows(1), &[0, 1, 1, 3, 0], &offsets));
    }

    #[test]
    #[should_panic(expected = "row 4 of entry 1 is not below 4")]
    fn a_row_that_is_not_there_is_refused() {
        let weights = Tensor::zeros([2, 1], &cpu());
        pool(Tensor::zeros([4, 2], &cpu()), weights, &[0, 4], &Offsets::from_lengths(&[2]));
    }
}
