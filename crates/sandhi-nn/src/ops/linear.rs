//! The linear layer, whose rows give the same bits in any batch.
//!
//! A matrix product chooses its path by the sizes of both sides: one row, or few rows and few
//! columns, sum in another order than many. So the rows are brought to a number from which on the
//! choice depends on the weight alone; the rows added hold zeros and are cut off afterwards.

use burn::tensor::Tensor;
use burn_flex::{FlexTensor, Layout};

use super::{
    blocks::{for_each_block, rows_per_block, sum_over_blocks},
    bridge::{Kernel, apply2, apply3, dense, dims2, is_fused, is_fused_half, tensor, values},
    half::{HalfView, is_half},
    matrix::{View, multiply},
};

/// `x weight + bias`.
///
/// # Shapes
///
/// - `x`: `[n_rows, d_in]`
/// - `weight`: `[d_in, d_out]`; may be a transposed view, and held in 16 bits when it is frozen
/// - `bias`: `[d_out]`
/// - output: `[n_rows, d_out]`, of the type of `x`
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let ([_, d_in], [weight_rows, d_out]) = (x.dims(), weight.dims());
    assert_eq!(weight_rows, d_in, "the weight has one row per column of x");
    if let Some(bias) = &bias {
        assert_eq!(bias.dims(), [d_out], "the bias has one value per column of the weight");
    }
    assert!(
        !(is_half(weight.dtype()) && weight.is_require_grad()),
        "a weight that is held in 16 bits is frozen"
    );
    let held = is_fused(&weight) || is_fused_half(&weight);
    let fused = is_fused(&x) && held && bias.as_ref().is_none_or(is_fused);
    match bias {
        Some(bias) if fused => apply3(x, weight, bias, Affine),
        None if fused => apply2(x, weight, Product),
        bias => composed(x, weight, bias),
    }
}

fn composed(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let ([n_rows, d_in], [_, d_out]) = (x.dims(), weight.dims());
    let weight = if is_half(weight.dtype()) { weight.cast(x.dtype()) } else { weight };
    let product = match n_rows {
        0 => return Tensor::zeros([0, d_out], (&x.device(), x.dtype())),
        1 => {
            let zero = Tensor::zeros([1, d_in], (&x.device(), x.dtype()));
            Tensor::cat(vec![x, zero], 0).matmul(weight).narrow(0, 0, 1)
        }
        _ => x.matmul(weight),
    };
    match bias {
        Some(bias) => product + bias.unsqueeze(),
        None => product,
    }
}

/// Rows a product needs so that its path depends on its number of columns alone: `gemm` treats
/// specially one row, up to 256 elements in all, and up to 64 by 64.
fn rows_needed(d_out: usize) -> usize {
    match d_out {
        0..=1 => 257,
        2..=64 => 129,
        65..=128 => 4,
        _ => 2,
    }
}

/// `x weight` as row-major values.
fn forward(x: &FlexTensor, weight: &FlexTensor) -> Vec<f32> {
    let ([n_rows, d_in], [_, d_out]) = (dims2(x), dims2(weight));
    let half = half(weight);
    let needed = rows_needed(half.map_or(d_out, |half| half.narrowest()));
    let times_weight = |x: View<'_>, n_rows: usize| match half {
        Some(half) => half.left_multiplied(x, n_rows),
        None => multiply(x, View::of(weight)),
    };
    if n_rows == 0 || n_rows >= needed {
        return times_weight(View::of(x), n_rows);
    }
    let x = dense(x.clone());
    let mut padded = vec![0.0; needed * d_in];
    padded[..n_rows * d_in].copy_from_slice(values(&x));
    let mut out = times_weight(View::rows(&padded, 0, needed, d_in, d_in), needed);
    out.truncate(n_rows * d_out);
    out
}

/// The weight's 16-bit values, if it is held so.
fn half(weight: &FlexTensor) -> Option<HalfView<'_>> {
    is_half(weight.dtype()).then(|| {
        HalfView::of(weight)
            .expect("a matrix or its transpose, whose rows or columns lie in one piece")
    })
}

/// Gradients of `x` and `weight`.
fn backward(
    x: &FlexTensor,
    weight: &FlexTensor,
    gradient: &FlexTensor,
    [want_x, want_weight]: [bool; 2],
) -> [Option<FlexTensor>; 2] {
    let ([n_rows, d_in], [_, d_out]) = (dims2(x), dims2(weight));
    let gradient = View::of(gradient);
    let dx = want_x.then(|| {
        let values = match half(weight) {
            Some(half) => half.transposed().left_multiplied(gradient, n_rows),
            None => multiply(gradient, View::of(weight).transposed()),
        };
        tensor(values, [n_rows, d_in])
    });
    let dweight = want_weight.then(|| {
        let x = View::of(x);
        if View::of(weight).is_row_major() {
            tensor(multiply(x.transposed(), gradient), [d_in, d_out])
        } else {
            // The gradient of a transposed view, laid out as what it is a view of.
            let values = multiply(gradient.transposed(), x);
            let layout = Layout::new([d_in, d_out].into(), vec![1, d_in as isize], 0);
            tensor(values, [d_out, d_in]).with_layout(layout)
        }
    });
    [dx, dweight]
}

#[derive(Debug, Clone)]
struct Product;

impl Kernel<2> for Product {
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, weight]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let shape = [dims2(&x)[0], dims2(&weight)[1]];
        (tensor(forward(&x, &weight), shape), [x, weight])
    }

    fn backward(
        &self,
        [x, weight]: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        backward(&x, &weight, &gradient, wanted)
    }
}

#[derive(Debug, Clone)]
struct Affine;

impl Kernel<3> for Affine {
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, weight, bias]: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let shape @ [_, d_out] = [dims2(&x)[0], dims2(&weight)[1]];
        let bias = dense(bias);
        let bias = values(&bias);
        let mut out = forward(&x, &weight);
        for_each_block(&mut out, rows_per_block(d_out) * d_out.max(1), |_, rows| {
            for row in rows.chunks_exact_mut(d_out) {
                for (value, bias) in row.iter_mut().zip(bias) {
                    *value += bias;
                }
            }
        });
        (tensor(out, shape), [x, weight])
    }

    fn backward(
        &self,
        [x, weight]: Self::Saved,
        gradient: FlexTensor,
        [want_x, want_weight, want_bias]: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let gradient = dense(gradient);
        let dbias = want_bias.then(|| column_sums(&gradient));
        let [dx, dweight] = backward(&x, &weight, &gradient, [want_x, want_weight]);
        [dx, dweight, dbias]
    }
}

/// The sum of all rows.
fn column_sums(x: &FlexTensor) -> FlexTensor {
    let [n_rows, width] = dims2(x);
    let x = values(x);
    let block = rows_per_block(width);
    let sums = sum_over_blocks(n_rows.div_ceil(block), width, |block_idx, sum| {
        let end = ((block_idx + 1) * block).min(n_rows);
        for row in x[block_idx * block * width..end * width].chunks_exact(width) {
            for (sum, value) in sum.iter_mut().zip(row) {
                *sum += value;
            }
        }
    });
    tensor(sums, [width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, Matrix, cpu, random, to_vec};

    const SHAPES: [[usize; 3]; 7] =
        [[1, 3, 2], [1, 700, 30], [2, 1, 1], [5, 64, 1], [33, 100, 65], [200, 384, 128], [7, 0, 4]];

    #[test]
    fn fused_equals_composed() {
        for [n_rows, d_in, d_out] in SHAPES.into_iter().filter(|[_, d_in, _]| *d_in > 0) {
            let case =
                Case::new().input(random([n_rows, d_in], 1)).vector(random([d_in, d_out], 2));
            case.check(
                |t| linear(t.rows(0), t.rows(1), None),
                |t| composed(t.rows(0), t.rows(1), None),
            );
            case.vector(random([1, d_out], 3)).check(
                |t| linear(t.rows(0), t.rows(1), Some(t.vector(2))),
                |t| composed(t.rows(0), t.rows(1), Some(t.vector(2))),
            );
        }
    }

    #[test]
    fn transposed_weights_equal_composed() {
        for [n_rows, d_in, d_out] in SHAPES.into_iter().filter(|[_, d_in, _]| *d_in > 0) {
            Case::new().input(random([n_rows, d_in], 1)).vector(random([d_out, d_in], 2)).check(
                |t| linear(t.rows(0), t.rows(1).transpose(), None),
                |t| composed(t.rows(0), t.rows(1).transpose(), None),
            );
        }
    }

    #[test]
    fn gradients_match_differences() {
        Case::new()
            .input(random([3, 4], 1))
            .vector(random([4, 2], 2))
            .vector(random([1, 2], 3))
            .check_differences(|t| linear(t.rows(0), t.rows(1), Some(t.vector(2))));
    }

    #[test]
    fn a_row_does_not_know_its_batch() {
        for d_in in [65, 600, 2432] {
            for d_out in [1, 8, 64, 65, 129] {
                let x = random([140, d_in], 1);
                let case = Case::new().input(x).vector(random([d_in, d_out], 2));
                case.check_rows(|t| linear(t.rows(0), t.rows(1), None));
                let turned = random([d_out, d_in], 2);
                let case = Case::new().input(random([140, d_in], 1)).vector(turned);
                case.check_rows(|t| linear(t.rows(0), t.rows(1).transpose(), None));
            }
        }
    }

    #[test]
    fn no_rows_give_no_rows_and_no_columns_give_the_bias() {
        let weight = Matrix { values: vec![1.0; 6], shape: [3, 2] }.tensor(&cpu());
        assert_eq!(linear(Tensor::zeros([0, 3], &cpu()), weight, None).dims(), [0, 2]);
        let bias = Tensor::<1>::from_floats([4.0, 5.0], &cpu());
        let x = Tensor::zeros([2, 0], &cpu());
        let out = linear(x, Tensor::zeros([0, 2], &cpu()), Some(bias));
        assert_eq!(to_vec(out), [4.0, 5.0, 4.0, 5.0]);
    }
}
