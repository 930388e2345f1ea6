//! Dropout whose mask is a function of a key and an index, not of a generator's state.
//!
//! Element `i` of a row with key `k` is kept when the top 24 bits of `splitmix64(k + i φ)` are at
//! least `probability * 2^24`. Threads, replicas and the order of calls cannot change the mask, and
//! the backward pass needs no memory of it.

use burn::tensor::{Tensor, TensorData};

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
    composed(x, probability, keys)
}

fn composed(x: Tensor<2>, probability: f64, keys: &[u64]) -> Tensor<2> {
    let [n_rows, width] = x.dims();
    let mut scale = vec![0.0; n_rows * width];
    for (row, &key) in scale.chunks_exact_mut(width.max(1)).zip(keys) {
        scale_row(row, probability, key);
    }
    let scale =
        Tensor::from_data(TensorData::new(scale, [n_rows, width]), (&x.device(), x.dtype()));
    x * scale
}

/// What each element of a row is multiplied by: 0, or `1 / (1 - probability)`.
fn scale_row(row: &mut [f32], probability: f64, key: u64) {
    let threshold = (probability * f64::from(1 << 24)) as u32;
    let kept = (1.0 / (1.0 - probability)) as f32;
    let mut state = key;
    for value in row {
        *value = if (splitmix64(state) >> 40) as u32 >= threshold { kept } else { 0.0 };
        state = state.wrapping_add(PHI);
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
