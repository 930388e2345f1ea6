//! Normalization over the last axis: RMSNorm (arXiv 1910.07467) and LayerNorm (arXiv 1607.06450).

use std::{mem::MaybeUninit, sync::Arc};

use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use super::{
    blocks::{build, for_each_block, rows_per_block, sum_over_blocks},
    bridge::{
        Kernel, apply2, apply3, dense, dims2, is_fused, owned, tensor, unique_values, values,
    },
    simd::{dot, mul_add, sum2, vectorized},
};

/// Root-mean-square normalization of each row: `y = x / sqrt(mean(x²) + eps) * gamma`.
///
/// # Shapes
///
/// - `x`: `[n_rows, width]`
/// - `gamma`: `[width]`
/// - output: `[n_rows, width]`
pub fn rms_norm(x: Tensor<2>, gamma: Tensor<1>, eps: f64) -> Tensor<2> {
    let [_, width] = x.dims();
    assert_eq!(gamma.dims(), [width], "gamma has one value per column of x");
    if is_fused(&x) && is_fused(&gamma) {
        apply2(x, gamma, RmsNorm { eps })
    } else {
        composed_rms_norm(x, gamma, eps)
    }
}

/// Layer normalization of each row: `y = (x - mean) / sqrt(variance + eps) * gamma + beta`, with the
/// biased variance.
///
/// # Shapes
///
/// - `x`: `[n_rows, width]`
/// - `gamma`, `beta`: `[width]`
/// - output: `[n_rows, width]`
pub fn layer_norm(x: Tensor<2>, gamma: Tensor<1>, beta: Tensor<1>, eps: f64) -> Tensor<2> {
    let [_, width] = x.dims();
    assert_eq!(gamma.dims(), [width], "gamma has one value per column of x");
    assert_eq!(beta.dims(), [width], "beta has one value per column of x");
    if is_fused(&x) && is_fused(&gamma) && is_fused(&beta) {
        apply3(x, gamma, beta, LayerNorm { eps })
    } else {
        composed_layer_norm(x, gamma, beta, eps)
    }
}

fn composed_rms_norm(x: Tensor<2>, gamma: Tensor<1>, eps: f64) -> Tensor<2> {
    let scale = (x.clone().square().mean_dim(1) + eps).sqrt().recip();
    x * scale * gamma.unsqueeze()
}

fn composed_layer_norm(x: Tensor<2>, gamma: Tensor<1>, beta: Tensor<1>, eps: f64) -> Tensor<2> {
    let centered = x.clone() - x.mean_dim(1);
    let scale = (centered.clone().square().mean_dim(1) + eps).sqrt().recip();
    centered * scale * gamma.unsqueeze() + beta.unsqueeze()
}

#[derive(Debug, Clone)]
struct RmsNorm {
    eps: f64,
}

/// A norm's input, scale and statistics of each row.
#[derive(Debug, Clone)]
struct Saved {
    x: FlexTensor,
    gamma: FlexTensor,
    statistics: Arc<[Statistics]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Statistics {
    /// 0 for RMSNorm.
    mean: f32,
    /// One over the root of the mean square, or of the variance.
    scale: f32,
}

impl Kernel<2> for RmsNorm {
    type Saved = Saved;

    fn forward(&self, [x, gamma]: [FlexTensor; 2]) -> (FlexTensor, Saved) {
        let (x, gamma) = (dense(x), dense(gamma));
        let [n_rows, width] = dims2(&x);
        let (x_values, scales) = (values(&x), values(&gamma));
        let eps = self.eps as f32;
        let statistics: Arc<[Statistics]> = rows_statistics(x_values, n_rows, width, |row| {
            Statistics { mean: 0.0, scale: rms_scale(row, eps) }
        });
        let out = write_rows(x_values, width, |row_idx, row, out| {
            rms_apply(row, scales, statistics[row_idx].scale, out);
        });
        let out = tensor(out, [n_rows, width]);
        (out, Saved { x, gamma, statistics })
    }

    fn backward(
        &self,
        saved: Saved,
        gradient: FlexTensor,
        [want_x, want_gamma]: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let gradient = owned(gradient);
        let dgamma = want_gamma.then(|| {
            column_sums(&gradient, &saved, |gradient, x, statistics, sum| {
                add_product(gradient, x, 0.0, statistics.scale, sum);
            })
        });
        let dx = want_x.then(|| {
            in_place(gradient, &saved, |gradient, x, scales, statistics| {
                rms_backward(gradient, x, scales, statistics.scale);
            })
        });
        [dx, dgamma]
    }
}

#[derive(Debug, Clone)]
struct LayerNorm {
    eps: f64,
}

impl Kernel<3> for LayerNorm {
    type Saved = Saved;

    fn forward(&self, [x, gamma, beta]: [FlexTensor; 3]) -> (FlexTensor, Saved) {
        let (x, gamma, beta) = (dense(x), dense(gamma), dense(beta));
        let [n_rows, width] = dims2(&x);
        let (x_values, scales, shifts) = (values(&x), values(&gamma), values(&beta));
        let eps = self.eps as f32;
        let statistics = rows_statistics(x_values, n_rows, width, |row| {
            let (mean, scale) = moments(row, eps);
            Statistics { mean, scale }
        });
        let out = write_rows(x_values, width, |row_idx, row, out| {
            let Statistics { mean, scale } = statistics[row_idx];
            layer_apply(row, scales, shifts, mean, scale, out);
        });
        let out = tensor(out, [n_rows, width]);
        (out, Saved { x, gamma, statistics })
    }

    fn backward(
        &self,
        saved: Saved,
        gradient: FlexTensor,
        [want_x, want_gamma, want_beta]: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let gradient = owned(gradient);
        let dgamma = want_gamma.then(|| {
            column_sums(&gradient, &saved, |gradient, x, statistics, sum| {
                add_product(gradient, x, statistics.mean, statistics.scale, sum);
            })
        });
        let dbeta = want_beta
            .then(|| column_sums(&gradient, &saved, |gradient, _, _, sum| add(gradient, sum)));
        let dx = want_x.then(|| {
            in_place(gradient, &saved, |gradient, x, scales, statistics| {
                layer_backward(gradient, x, scales, statistics.mean, statistics.scale);
            })
        });
        [dx, dgamma, dbeta]
    }
}

/// The statistics of each row.
fn rows_statistics(
    x: &[f32],
    n_rows: usize,
    width: usize,
    f: impl Fn(&[f32]) -> Statistics + Sync,
) -> Arc<[Statistics]> {
    let mut statistics = vec![Statistics::default(); n_rows];
    let block = rows_per_block(width);
    for_each_block(&mut statistics, block, |block_idx, statistics| {
        let rows = x[block_idx * block * width..].chunks_exact(width.max(1));
        for (statistics, row) in statistics.iter_mut().zip(rows) {
            *statistics = f(row);
        }
    });
    statistics.into()
}

/// Writes one row for each row of `x`.
fn write_rows(
    x: &[f32],
    width: usize,
    f: impl Fn(usize, &[f32], &mut [MaybeUninit<f32>]) + Sync,
) -> Vec<f32> {
    let block = rows_per_block(width);
    let fill = |out: &mut [MaybeUninit<f32>]| {
        for_each_block(out, block * width.max(1), |block_idx, out| {
            let first = block_idx * block;
            let rows = x[first * width..].chunks_exact(width);
            for (i, (out, row)) in out.chunks_exact_mut(width).zip(rows).enumerate() {
                f(first + i, row, out);
            }
        });
    };
    // SAFETY: every row of the output has its row in `x`, and the functions given write all of it.
    unsafe { build(x.len(), fill) }
}

/// `sum over rows of f(gradient row, x row)`, one value per column.
fn column_sums(
    gradient: &FlexTensor,
    saved: &Saved,
    f: impl Fn(&[f32], &[f32], Statistics, &mut [f32]) + Sync,
) -> FlexTensor {
    let [n_rows, width] = dims2(gradient);
    let (gradient, x) = (values(gradient), values(&saved.x));
    let block = rows_per_block(width);
    let sums = sum_over_blocks(n_rows.div_ceil(block), width, |block_idx, sum| {
        for row_idx in block_idx * block..((block_idx + 1) * block).min(n_rows) {
            let row = row_idx * width..(row_idx + 1) * width;
            f(&gradient[row.clone()], &x[row], saved.statistics[row_idx], sum);
        }
    });
    tensor(sums, [width])
}

/// Turns each row of the output's gradient into that of the input.
fn in_place(
    mut gradient: FlexTensor,
    saved: &Saved,
    f: impl Fn(&mut [f32], &[f32], &[f32], Statistics) + Sync,
) -> FlexTensor {
    let [_, width] = dims2(&gradient);
    let (x, scales) = (values(&saved.x), values(&saved.gamma));
    let block = rows_per_block(width);
    let rows = unique_values(&mut gradient).expect("made unique by the caller");
    for_each_block(rows, block * width.max(1), |block_idx, rows| {
        let first = block_idx * block;
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            let row_idx = first + i;
            f(row, &x[row_idx * width..][..width], scales, saved.statistics[row_idx]);
        }
    });
    gradient
}

vectorized! {
    fn rms_scale(row: &[f32], eps: f32) -> f32 {
        1.0 / (dot::<FMA>(row, row) / row.len() as f32 + eps).sqrt()
    }
}

vectorized! {
    fn rms_apply(row: &[f32], gamma: &[f32], scale: f32, out: &mut [MaybeUninit<f32>]) {
        for ((out, x), gamma) in out.iter_mut().zip(row).zip(gamma) {
            out.write(x * scale * gamma);
        }
    }
}

vectorized! {
    /// `scale (g gamma - x scale² mean(g gamma x))`, written over `g`.
    fn rms_backward(gradient: &mut [f32], row: &[f32], gamma: &[f32], scale: f32) {
        for (gradient, gamma) in gradient.iter_mut().zip(gamma) {
            *gradient *= gamma;
        }
        let mean = dot::<FMA>(gradient, row) / row.len() as f32;
        let pull = -mean * scale * scale;
        for (gradient, x) in gradient.iter_mut().zip(row) {
            *gradient = scale * mul_add::<FMA>(*x, pull, *gradient);
        }
    }
}

vectorized! {
    /// Mean and one over the standard deviation.
    fn moments(row: &[f32], eps: f32) -> (f32, f32) {
        let n = row.len() as f32;
        let mean = sum2(row, row, |x, _, sum| sum + x) / n;
        let squares = sum2(row, row, |x, _, sum| mul_add::<FMA>(x - mean, x - mean, sum));
        (mean, 1.0 / (squares / n + eps).sqrt())
    }
}

vectorized! {
    fn layer_apply(
        row: &[f32],
        gamma: &[f32],
        beta: &[f32],
        mean: f32,
        scale: f32,
        out: &mut [MaybeUninit<f32>],
    ) {
        for (((out, x), gamma), beta) in out.iter_mut().zip(row).zip(gamma).zip(beta) {
            out.write(mul_add::<FMA>((x - mean) * scale, *gamma, *beta));
        }
    }
}

vectorized! {
    /// `scale (g gamma - mean(g gamma) - x̂ mean(g gamma x̂))`, written over `g`; `x̂` is the row
    /// normalized.
    fn layer_backward(gradient: &mut [f32], row: &[f32], gamma: &[f32], mean: f32, scale: f32) {
        for (gradient, gamma) in gradient.iter_mut().zip(gamma) {
            *gradient *= gamma;
        }
        let n = row.len() as f32;
        let level = sum2(gradient, row, |g, _, sum| sum + g) / n;
        let slope =
            sum2(gradient, row, |g, x, sum| mul_add::<FMA>(g, (x - mean) * scale, sum)) / n;
        for (gradient, x) in gradient.iter_mut().zip(row) {
            *gradient = scale * mul_add::<FMA>((x - mean) * scale, -slope, *gradient - level);
        }
    }
}

vectorized! {
    fn add_product(gradient: &[f32], row: &[f32], mean: f32, scale: f32, sum: &mut [f32]) {
        for ((sum, gradient), x) in sum.iter_mut().zip(gradient).zip(row) {
            *sum = mul_add::<FMA>(*gradient, (x - mean) * scale, *sum);
        }
    }
}

vectorized! {
    fn add(gradient: &[f32], sum: &mut [f32]) {
        for (sum, gradient) in sum.iter_mut().zip(gradient) {
            *sum += gradient;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, cpu, random};

    const SHAPES: [[usize; 2]; 6] = [[1, 1], [1, 384], [2, 17], [5, 64], [100, 384], [3, 20_000]];

    #[test]
    fn rms_norm_fused_equals_composed() {
        for [n_rows, width] in SHAPES {
            Case::new().input(random([n_rows, width], 1)).vector(random([1, width], 2)).check(
                |t| rms_norm(t.rows(0), t.vector(1), 1e-5),
                |t| composed_rms_norm(t.rows(0), t.vector(1), 1e-5),
            );
        }
    }

    #[test]
    fn layer_norm_fused_equals_composed() {
        for [n_rows, width] in SHAPES {
            Case::new()
                .input(random([n_rows, width], 1))
                .vector(random([1, width], 2))
                .vector(random([1, width], 3))
                .check(
                    |t| layer_norm(t.rows(0), t.vector(1), t.vector(2), 1e-3),
                    |t| composed_layer_norm(t.rows(0), t.vector(1), t.vector(2), 1e-3),
                );
        }
    }

    #[test]
    fn rms_norm_of_three_and_four() {
        // The mean square of (3, 4) is 25 / 2, so the row is divided by 5 / sqrt(2).
        let x = Tensor::<2>::from_floats([[3.0, 4.0]], &cpu());
        let gamma = Tensor::<1>::from_floats([1.0, 10.0], &cpu());
        let out = rms_norm(x, gamma, 0.0).into_data().try_to_vec::<f32>().unwrap();
        let unit = 2.0_f32.sqrt() / 5.0;
        assert!((out[0] - 3.0 * unit).abs() < 1e-6 && (out[1] - 40.0 * unit).abs() < 1e-5);
    }

    #[test]
    fn layer_norm_of_one_and_three() {
        // Mean 2, variance 1: -1 and 1 before gamma and beta.
        let x = Tensor::<2>::from_floats([[1.0, 3.0]], &cpu());
        let gamma = Tensor::<1>::from_floats([2.0, 5.0], &cpu());
        let beta = Tensor::<1>::from_floats([10.0, 20.0], &cpu());
        let out = layer_norm(x, gamma, beta, 0.0).into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(out, [8.0, 25.0]);
    }

    #[test]
    fn no_rows_give_no_rows() {
        let gamma = Tensor::<1>::ones([8], &cpu());
        let out = rms_norm(Tensor::zeros([0, 8], &cpu()), gamma.clone(), 1e-5);
        assert_eq!(out.dims(), [0, 8]);
        let out = layer_norm(Tensor::zeros([0, 8], &cpu()), gamma.clone(), gamma, 1e-5);
        assert_eq!(out.dims(), [0, 8]);
    }

    #[test]
    fn gradients_match_differences() {
        Case::new()
            .input(random([3, 5], 1))
            .vector(random([1, 5], 2))
            .check_differences(|t| rms_norm(t.rows(0), t.vector(1), 1e-2));
        Case::new()
            .input(random([3, 5], 1))
            .vector(random([1, 5], 2))
            .vector(random([1, 5], 3))
            .check_differences(|t| layer_norm(t.rows(0), t.vector(1), t.vector(2), 1e-2));
    }

    #[test]
    fn a_row_does_not_know_its_batch() {
        Case::new()
            .input(random([70, 384], 1))
            .vector(random([1, 384], 2))
            .check_rows(|t| rms_norm(t.rows(0), t.vector(1), 1e-5));
    }
}
