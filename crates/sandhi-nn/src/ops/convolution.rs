//! Convolution along packed sequences; no sequence sees its neighbor.

use std::mem::MaybeUninit;

use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use super::{
    blocks::{build, copy_into, for_each_block, rows_per_block, sum_over_blocks},
    bridge::{Kernel, apply1, apply2, dense, dims2, is_fused, tensor, values},
    index_tensor, select_or_zero,
    simd::{LANES, mul_add, vectorized},
};
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
    if is_fused(&x) && is_fused(&weight) {
        apply2(x, weight, Depthwise { offsets: offsets.clone() })
    } else {
        composed_depthwise(x, weight, offsets)
    }
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
    let windows = Windows { kernel, stride, padding };
    let values = if is_fused(&x) {
        apply1(x, Unfold { offsets: offsets.clone(), out: out.clone(), windows })
    } else {
        composed_unfold(x, offsets, &out, windows)
    };
    (values, out)
}

#[derive(Debug, Clone, Copy)]
struct Windows {
    kernel: usize,
    stride: usize,
    padding: usize,
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
    let windows = Windows { kernel, stride: 1, padding: kernel / 2 };
    (composed_unfold(x, offsets, offsets, windows).reshape([n_rows, kernel, width])
        * weight.unsqueeze())
    .sum_dim(1)
    .reshape([n_rows, width])
}

fn composed_unfold(x: Tensor<2>, offsets: &Offsets, out: &Offsets, windows: Windows) -> Tensor<2> {
    let [n_rows, width] = x.dims();
    let Windows { kernel, stride, padding } = windows;
    let mut taps = Vec::with_capacity(out.n_rows() * kernel);
    for (rows, windows) in offsets.iter().zip(out.iter()) {
        for window_idx in 0..windows.len() {
            for tap_idx in 0..kernel {
                let at = (window_idx * stride + tap_idx).checked_sub(padding);
                taps.push(at.filter(|&at| at < rows.len()).map_or(n_rows, |at| rows.start + at));
            }
        }
    }
    let device = x.device();
    if taps.is_empty() {
        return Tensor::zeros([0, kernel * width], (&device, x.dtype()));
    }
    let values = if taps.contains(&n_rows) {
        select_or_zero(x, taps)
    } else {
        x.select(0, index_tensor(taps, &device))
    };
    values.reshape([out.n_rows(), kernel * width])
}

/// Calls `f(row, sequence, sequence_idx, place in the sequence)` for each row of the output, in
/// parallel by blocks.
fn for_each_row<T: Send>(
    out: &mut [T],
    width: usize,
    offsets: &Offsets,
    f: impl Fn(&mut [T], usize, usize) + Sync,
) {
    let block = rows_per_block(width);
    for_each_block(out, block * width.max(1), |block_idx, rows| {
        let first = block_idx * block;
        let mut sequence = sequence_of(offsets, first);
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            while offsets.range(sequence).end <= first + i {
                sequence += 1;
            }
            f(row, sequence, first + i - offsets.range(sequence).start);
        }
    });
}

/// The sequence that owns a row.
fn sequence_of(offsets: &Offsets, row_idx: usize) -> usize {
    offsets.as_slice().partition_point(|&start| start <= row_idx) - 1
}

#[derive(Debug, Clone)]
struct Depthwise {
    offsets: Offsets,
}

impl Depthwise {
    fn convolve(&self, x: &[f32], weight: &[f32], width: usize) -> Vec<f32> {
        let fill = |out: &mut [MaybeUninit<f32>]| {
            for_each_row(out, width, &self.offsets, |out, sequence, at| {
                let rows = self.offsets.range(sequence);
                convolve_row(&x[rows.start * width..rows.end * width], weight, at, out);
            });
        };
        // SAFETY: `convolve_row` writes every channel of its row.
        unsafe { build(x.len(), fill) }
    }
}

/// Rows whose products are summed before they join the weight's gradient.
const GRADIENT_ROWS: usize = 64;

impl Kernel<2> for Depthwise {
    type Saved = [FlexTensor; 2];

    fn forward(&self, inputs: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let [x, weight] = inputs.map(dense);
        let shape @ [_, width] = dims2(&x);
        let out = self.convolve(values(&x), values(&weight), width);
        (tensor(out, shape), [x, weight])
    }

    fn backward(
        &self,
        [x, weight]: Self::Saved,
        gradient: FlexTensor,
        [want_x, want_weight]: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let gradient = dense(gradient);
        let ([n_rows, width], [kernel, _]) = (dims2(&x), dims2(&weight));
        let (x, weight, gradients) = (values(&x), values(&weight), values(&gradient));
        // Taps in reverse carry the gradient back to where they read from.
        let dx = want_x.then(|| {
            let reversed: Vec<f32> =
                weight.chunks_exact(width.max(1)).rev().flatten().copied().collect();
            tensor(self.convolve(gradients, &reversed, width), [n_rows, width])
        });
        let dweight = want_weight.then(|| {
            let sums = sum_over_blocks(
                n_rows.div_ceil(GRADIENT_ROWS),
                kernel * width,
                |block_idx, sums| {
                    let start = block_idx * GRADIENT_ROWS;
                    for row_idx in start..(start + GRADIENT_ROWS).min(n_rows) {
                        let rows = self.offsets.range(sequence_of(&self.offsets, row_idx));
                        let gradient = &gradients[row_idx * width..][..width];
                        for (tap_idx, sum) in sums.chunks_exact_mut(width).enumerate() {
                            let from = (row_idx + tap_idx).checked_sub(kernel / 2);
                            if let Some(from) = from.filter(|from| rows.contains(from)) {
                                add_product(gradient, &x[from * width..][..width], sum);
                            }
                        }
                    }
                },
            );
            tensor(sums, [kernel, width])
        });
        [dx, dweight]
    }
}

#[derive(Debug, Clone)]
struct Unfold {
    offsets: Offsets,
    out: Offsets,
    windows: Windows,
}

impl Kernel<1> for Unfold {
    /// Width of the input.
    type Saved = usize;

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, usize) {
        let x = dense(x);
        let [_, width] = dims2(&x);
        let Windows { kernel, stride, padding } = self.windows;
        let x = values(&x);
        let fill = |out: &mut [MaybeUninit<f32>]| {
            for_each_row(out, kernel * width, &self.out, |row, sequence, window_idx| {
                let rows = self.offsets.range(sequence);
                for (tap_idx, out) in row.chunks_exact_mut(width).enumerate() {
                    let at = (window_idx * stride + tap_idx).checked_sub(padding);
                    match at.filter(|&at| at < rows.len()) {
                        Some(at) => {
                            let from = &x[(rows.start + at) * width..][..width];
                            copy_into(out, from);
                        }
                        None => {
                            out.fill(MaybeUninit::new(0.0));
                        }
                    }
                }
            });
        };
        // SAFETY: every tap of every row is either copied or filled.
        let values = unsafe { build(self.out.n_rows() * kernel * width, fill) };
        (tensor(values, [self.out.n_rows(), kernel * width]), width)
    }

    fn backward(
        &self,
        width: usize,
        gradient: FlexTensor,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let gradient = dense(gradient);
        let gradients = values(&gradient);
        let Windows { kernel, stride, padding } = self.windows;
        let n_rows = self.offsets.n_rows();
        let mut dx = vec![0.0; n_rows * width];
        for_each_row(&mut dx, width, &self.offsets, |row, sequence, at| {
            let windows = self.out.range(sequence);
            // The windows whose taps reach this row.
            let first = (at + padding + 1).saturating_sub(kernel).div_ceil(stride);
            let last = ((at + padding) / stride + 1).min(windows.len());
            for window_idx in first..last {
                let tap_idx = at + padding - window_idx * stride;
                let from = ((windows.start + window_idx) * kernel + tap_idx) * width;
                for (value, gradient) in row.iter_mut().zip(&gradients[from..from + width]) {
                    *value += gradient;
                }
            }
        });
        [Some(tensor(dx, [n_rows, width]))]
    }
}

vectorized! {
    /// One output row of a sequence: the taps around row `at`.
    fn convolve_row(x: &[f32], weight: &[f32], at: usize, out: &mut [MaybeUninit<f32>]) {
        let width = out.len();
        let (n_rows, kernel) = (x.len() / width, weight.len() / width);
        let first = (kernel / 2).saturating_sub(at);
        let last = kernel.min(n_rows + kernel / 2 - at);
        let mut channel = 0;
        while channel + 2 * LANES <= width {
            let mut sums = [0.0; 2 * LANES];
            for tap_idx in first..last {
                let from = (at + tap_idx - kernel / 2) * width + channel;
                let weight = &weight[tap_idx * width + channel..][..2 * LANES];
                let x = &x[from..][..2 * LANES];
                for i in 0..2 * LANES {
                    sums[i] = mul_add::<FMA>(weight[i], x[i], sums[i]);
                }
            }
            copy_into(&mut out[channel..][..2 * LANES], &sums);
            channel += 2 * LANES;
        }
        for channel in channel..width {
            let mut sum = 0.0;
            for tap_idx in first..last {
                let from = (at + tap_idx - kernel / 2) * width + channel;
                sum = mul_add::<FMA>(weight[tap_idx * width + channel], x[from], sum);
            }
            out[channel].write(sum);
        }
    }
}

vectorized! {
    fn add_product(a: &[f32], b: &[f32], sum: &mut [f32]) {
        for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
            *sum = mul_add::<FMA>(*a, *b, *sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, cpu, random, to_vec};

    #[test]
    fn depthwise_fused_equals_composed() {
        for (lengths, width, kernel) in [
            (vec![1], 1, 1),
            (vec![5, 0, 1, 9], 3, 5),
            (vec![2, 100, 7], 80, 31),
            (vec![130, 130], 33, 3),
        ] {
            let offsets = Offsets::from_lengths(&lengths);
            let case = Case::new()
                .input(random([offsets.n_rows(), width], 1))
                .vector(random([kernel, width], 2));
            case.check(
                |t| depthwise_conv(t.rows(0), t.rows(1), &offsets),
                |t| composed_depthwise(t.rows(0), t.rows(1), &offsets),
            );
        }
    }

    #[test]
    fn unfold_fused_equals_composed() {
        for (lengths, width) in [(vec![1], 1), (vec![5, 0, 1, 9], 3), (vec![2, 100, 7], 40)] {
            let offsets = Offsets::from_lengths(&lengths);
            for windows @ [kernel, stride, padding] in
                [[1, 1, 0], [3, 2, 1], [4, 4, 0], [5, 1, 2], [2, 5, 3], [3, 4, 0]]
            {
                let (_, out) = unfold(
                    Tensor::zeros([offsets.n_rows(), width], &cpu()),
                    &offsets,
                    kernel,
                    stride,
                    padding,
                );
                if out.n_rows() == 0 {
                    continue;
                }
                let [kernel, stride, padding] = windows;
                Case::new().input(random([offsets.n_rows(), width], 1)).check(
                    |t| unfold(t.rows(0), &offsets, kernel, stride, padding).0,
                    |t| {
                        composed_unfold(
                            t.rows(0),
                            &offsets,
                            &out,
                            Windows { kernel, stride, padding },
                        )
                    },
                );
            }
        }
    }

    #[test]
    fn gradients_match_differences() {
        let offsets = Offsets::from_lengths(&[3, 1, 4]);
        Case::new()
            .input(random([8, 2], 1))
            .vector(random([3, 2], 2))
            .check_differences(|t| depthwise_conv(t.rows(0), t.rows(1), &offsets));
        Case::new()
            .input(random([8, 2], 1))
            .check_differences(|t| unfold(t.rows(0), &offsets, 3, 2, 1).0);
    }

    #[test]
    fn windows_by_hand() {
        // Lengths 3 and 2, kernel 3, stride 2, padding 1: windows around rows 0 and 2, and 3.
        let x = Tensor::<2>::from_floats([[1.0], [2.0], [3.0], [4.0], [5.0]], &cpu());
        let (out, offsets) = unfold(x.clone(), &Offsets::from_lengths(&[3, 2]), 3, 2, 1);
        assert_eq!(offsets.lengths(), [2, 1]);
        assert_eq!(to_vec(out), [0.0, 1.0, 2.0, 2.0, 3.0, 0.0, 0.0, 4.0, 5.0]);
        // The middle tap copies, the first brings the row before: 1, 2 + 10, 3 + 20; 4, 5 + 40.
        let weight = Tensor::<2>::from_floats([[10.0], [1.0], [0.0]], &cpu());
        let out = depthwise_conv(x, weight, &Offsets::from_lengths(&[3, 2]));
        assert_eq!(to_vec(out), [1.0, 12.0, 23.0, 4.0, 45.0]);
    }

    #[test]
    fn sequences_shorter_than_the_kernel_vanish() {
        let (out, offsets) =
            unfold(Tensor::zeros([3, 4], &cpu()), &Offsets::from_lengths(&[1, 0, 2]), 3, 1, 0);
        assert_eq!((out.dims(), offsets.lengths()), ([0, 12], vec![0, 0, 0]));
        // Padding alone makes no window.
        let (_, offsets) =
            unfold(Tensor::zeros([0, 4], &cpu()), &Offsets::from_lengths(&[0]), 3, 1, 2);
        assert_eq!(offsets.lengths(), [0]);
    }

    #[test]
    fn a_sequence_does_not_know_its_batch() {
        let (lengths, width) = ([4, 1, 60, 9], 48);
        let offsets = Offsets::from_lengths(&lengths);
        let (x, weight) = (random([74, width], 1), random([7, width], 2));
        let run = |rows, offsets: &Offsets| {
            let x = x.rows(rows).tensor(&cpu());
            to_vec(depthwise_conv(x, weight.tensor(&cpu()), offsets))
        };
        let whole = run(0..74, &offsets);
        for rows in offsets.iter() {
            let alone = run(rows.clone(), &Offsets::from_lengths(&[rows.len()]));
            assert_eq!(alone, whole[rows.start * width..rows.end * width]);
        }
    }
}
