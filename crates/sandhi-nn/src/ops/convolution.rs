//! Convolution along packed sequences; no sequence sees its neighbor.

use burn::tensor::Tensor;

use super::{index_tensor, select_or_zero};
use crate::ragged::Offsets;

/// Depthwise convolution with "same" zero padding within each sequence:
/// `y[t, c] = sum_j weight[j, c] * x[t + j - kernel / 2, c]`.
///
/// # Shapes
///
/// - `x` and output: `[n_rows, width]`
/// - `weight`: `[kernel, width]`, `kernel` odd
/// - `offsets`: `n_rows` rows in all
///
/// # Panics
///
/// When `kernel` is even or a shape does not fit.
pub fn depthwise_conv(x: Tensor<2>, weight: Tensor<2>, offsets: &Offsets) -> Tensor<2> {
    let [n_rows, width] = x.dims();
    let [kernel, weight_width] = weight.dims();
    assert_eq!(weight_width, width, "the weight has one column per channel of x");
    assert_eq!(kernel % 2, 1, "a convolution that keeps the length needs an odd kernel");
    assert_eq!(offsets.n_rows(), n_rows, "the offsets cover the rows of x");
    composed_depthwise(x, weight, offsets)
}

/// Cuts each sequence into overlapping windows, so that a strided convolution is this and a matrix
/// product. A window's row holds its first tap's channels, then its second's, and so on; what lies
/// beyond a sequence is 0.
///
/// # Shapes
///
/// - `x`: `[n_rows, width]`
/// - output: `[n_out, kernel * width]`; a sequence of `n` rows gives
///   `floor((n + 2 * padding - kernel) / stride) + 1`, none when it is shorter than the kernel.
///   An empty sequence stays empty.
///
/// # Panics
///
/// When `kernel` or `stride` is 0, or the offsets do not cover the rows of `x`.
pub fn unfold(
    x: Tensor<2>,
    offsets: &Offsets,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> (Tensor<2>, Offsets) {
    assert!(kernel > 0 && stride > 0, "a window has a width and a step");
    assert_eq!(offsets.n_rows(), x.dims()[0], "the offsets cover the rows of x");
    let lengths: Vec<usize> =
        offsets.iter().map(|rows| n_windows(rows.len(), kernel, stride, padding)).collect();
    let out = Offsets::from_lengths(&lengths);
    (composed_unfold(x, offsets, &out, kernel, stride, padding), out)
}

fn n_windows(n_rows: usize, kernel: usize, stride: usize, padding: usize) -> usize {
    match (n_rows + 2 * padding).checked_sub(kernel) {
        Some(slack) if n_rows > 0 => slack / stride + 1,
        _ => 0,
    }
}

fn composed_depthwise(x: Tensor<2>, weight: Tensor<2>, offsets: &Offsets) -> Tensor<2> {
    let [n_rows, width] = x.dims();
    let [kernel, _] = weight.dims();
    if n_rows == 0 {
        return x;
    }
    let (windows, _) = unfold_with(x, offsets, offsets, kernel, 1, kernel / 2);
    (windows.reshape([n_rows, kernel, width]) * weight.unsqueeze())
        .sum_dim(1)
        .reshape([n_rows, width])
}

fn composed_unfold(
    x: Tensor<2>,
    offsets: &Offsets,
    out: &Offsets,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Tensor<2> {
    unfold_with(x, offsets, out, kernel, stride, padding).0
}

/// The windows of `x` and the row index behind each tap (`n_rows` where there is none).
fn unfold_with(
    x: Tensor<2>,
    offsets: &Offsets,
    out: &Offsets,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> (Tensor<2>, Vec<usize>) {
    let [n_rows, width] = x.dims();
    let mut taps = Vec::with_capacity(out.n_rows() * kernel);
    for (rows, windows) in offsets.iter().zip(out.iter()) {
        for window_idx in 0..windows.len() {
            for tap_idx in 0..kernel {
                let at = (window_idx * stride + tap_idx).checked_sub(padding);
                taps.push(at.filter(|&at| at < rows.len()).map_or(n_rows, |at| rows.start + at));
            }
        }
    }
    if taps.is_empty() {
        let empty = Tensor::zeros([0, kernel * width], (&x.device(), x.dtype()));
        return (empty, taps);
    }
    let values = if taps.contains(&n_rows) {
        select_or_zero(x, taps.clone())
    } else {
        let device = x.device();
        x.select(0, index_tensor(taps.iter().copied(), &device))
    };
    (values.reshape([out.n_rows(), kernel * width]), taps)
}
