//! Dropout whose mask is a function of a key and an index, not of a generator's state.
//!
//! Element `i` of a row with key `k` is kept when the top 24 bits of `splitmix64(k + i φ)` are at
//! least `probability * 2^24`. Threads, replicas and the order of calls cannot change the mask, and
//! the backward pass needs no memory of it.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;

use super::{
    blocks::{for_each_block, rows_per_block},
    bridge::{Kernel, apply1, dims2, is_fused, owned, unique_values},
    simd::vectorized,
};

/// 2^64 divided by the golden ratio: the increment of splitmix64 (Steele, Lea, Flood 2014).
const PHI: u64 = 0x9E37_79B9_7F4A_7C15;

/// Zeroes each element with `probability` and divides the others by `1 - probability`.
///
/// The mask depends on the element's place in the whole batch; where the loss must not depend on
/// how sequences were batched, give each row its own key with [`dropout_rows`].
///
/// # Shapes
///
/// - `x` and output: `[n_rows, width]`
///
/// # Panics
///
/// When `probability` is not in `[0, 1)`.
pub fn dropout(x: Tensor<2>, probability: f64, key: u64) -> Tensor<2> {
    let [n_rows, width] = x.dims();
    let keys: Vec<u64> = (0..n_rows)
        .map(|row_idx| key.wrapping_add(((row_idx * width) as u64).wrapping_mul(PHI)))
        .collect();
    dropout_rows(x, probability, &keys)
}

/// As [`dropout`], with a key for each row, so that a row's mask is its own wherever it lies.
///
/// # Shapes
///
/// - `x` and output: `[n_rows, width]`
/// - `keys`: `[n_rows]`
///
/// # Panics
///
/// When `probability` is not in `[0, 1)`, or there is not one key per row.
pub fn dropout_rows(x: Tensor<2>, probability: f64, keys: &[u64]) -> Tensor<2> {
    assert!((0.0..1.0).contains(&probability), "dropout of {probability} is not in [0, 1)");
    assert_eq!(keys.len(), x.dims()[0], "dropout_rows needs one key per row");
    if probability == 0.0 {
        return x;
    }
    if is_fused(&x) {
        apply1(x, Dropout { probability, keys: keys.into() })
    } else {
        composed(x, probability, keys)
    }
}

fn composed(x: Tensor<2>, probability: f64, keys: &[u64]) -> Tensor<2> {
    let [n_rows, width] = x.dims();
    let mut scale = vec![1.0; n_rows * width];
    for (row, &key) in scale.chunks_exact_mut(width.max(1)).zip(keys) {
        drop_row(row, probability, key);
    }
    let scale =
        Tensor::from_data(TensorData::new(scale, [n_rows, width]), (&x.device(), x.dtype()));
    x * scale
}

#[derive(Debug, Clone)]
struct Dropout {
    probability: f64,
    keys: Arc<[u64]>,
}

impl Dropout {
    fn apply(&self, x: FlexTensor) -> FlexTensor {
        let mut x = owned(x);
        let [_, width] = dims2(&x);
        let block = rows_per_block(width);
        let rows = unique_values(&mut x).expect("owned above");
        for_each_block(rows, block * width.max(1), |block_idx, rows| {
            for (row, &key) in rows.chunks_exact_mut(width).zip(&self.keys[block_idx * block..]) {
                drop_row(row, self.probability, key);
            }
        });
        x
    }
}

impl Kernel<1> for Dropout {
    type Saved = ();

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, ()) {
        (self.apply(x), ())
    }

    fn backward(&self, (): (), gradient: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [Some(self.apply(gradient))]
    }
}

vectorized! {
    /// Zeroes or scales each element of a row.
    fn drop_row(row: &mut [f32], probability: f64, key: u64) {
        let _ = FMA;
        let threshold = (probability * f64::from(1 << 24)) as u64;
        let kept = (1.0 / (1.0 - probability)) as f32;
        for (i, value) in row.iter_mut().enumerate() {
            let draw = splitmix64(key.wrapping_add((i as u64).wrapping_mul(PHI))) >> 40;
            *value *= if draw >= threshold { kept } else { 0.0 };
        }
    }
}

/// The output function of splitmix64 at `state`.
#[inline(always)]
fn splitmix64(state: u64) -> u64 {
    let mut z = state.wrapping_add(PHI);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, cpu, random, to_vec};

    #[test]
    fn fused_equals_composed() {
        for [n_rows, width] in [[1, 1], [9, 100], [40, 1000], [0, 3]] {
            let keys: Vec<u64> = (0..n_rows as u64).map(|i| i * i + 3).collect();
            Case::new().input(random([n_rows, width], 1)).check(
                |t| dropout_rows(t.rows(0), 0.3, &keys),
                |t| composed(t.rows(0), 0.3, &keys),
            );
        }
    }

    #[test]
    fn splitmix64_gives_the_published_sequence() {
        // The first outputs for seed 1234567, as Vigna's reference implementation prints them.
        let outputs = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        for (i, expected) in outputs.into_iter().enumerate() {
            assert_eq!(
                splitmix64(1_234_567_u64.wrapping_add((i as u64).wrapping_mul(PHI))),
                expected
            );
        }
    }

    #[test]
    fn the_share_dropped_is_the_probability() {
        let out = to_vec(dropout(Tensor::ones([400, 500], &cpu()), 0.1, 42));
        let dropped = out.iter().filter(|&&value| value == 0.0).count() as f64;
        // Binomial: the standard deviation of the share is sqrt(0.09 / 200000) = 0.00067.
        assert!((dropped / 200_000.0 - 0.1).abs() < 0.003);
        assert!(out.iter().all(|&value| value == 0.0 || value == (1.0_f64 / 0.9) as f32));
    }

    #[test]
    fn rows_share_their_keys_with_the_whole() {
        // Row 2 of a batch of width 5 starts at element 10.
        let x = random([3, 5], 1);
        let whole = to_vec(dropout(x.tensor(&cpu()), 0.5, 7));
        let keys = [0, 5, 10].map(|at: u64| 7_u64.wrapping_add(at.wrapping_mul(PHI)));
        assert_eq!(to_vec(dropout_rows(x.tensor(&cpu()), 0.5, &keys)), whole);
    }

    #[test]
    fn nothing_is_dropped_at_zero() {
        let x = random([4, 4], 1);
        assert_eq!(to_vec(dropout(x.tensor(&cpu()), 0.0, 7)), x.values);
    }
}
