//! Element-wise activations in one pass, and the gated ones that feed on two halves.

use std::mem::MaybeUninit;

use burn::tensor::{Tensor, activation};
use burn_flex::FlexTensor;

use super::{
    blocks::{build, for_each_block, rows_per_block},
    bridge::{
        Kernel, apply1, apply2, dense, dims2, is_fused, owned, tensor, unique_values, values,
    },
    simd::{erf, exp, mul_add, sigmoid, tanh, vectorized},
};

/// `x * sigmoid(x)`, element by element (arXiv 1702.03118).
///
/// # Shapes
///
/// - `x` and output: `[n_rows, width]`
pub fn silu(x: Tensor<2>) -> Tensor<2> {
    if is_fused(&x) { apply1(x, SILU) } else { composed_silu(x) }
}

/// The exact GELU (arXiv 1606.08415), `x * Φ(x)` with the normal distribution function by `erf`.
///
/// # Shapes
///
/// - `x` and output: `[n_rows, width]`
pub fn gelu(x: Tensor<2>) -> Tensor<2> {
    if is_fused(&x) { apply1(x, GELU) } else { composed_gelu(x) }
}

/// GELU by its tanh approximation (arXiv 1606.08415):
/// `x / 2 * (1 + tanh(sqrt(2 / π) * (x + 0.044715 x³)))`.
///
/// # Shapes
///
/// - `x` and output: `[n_rows, width]`
pub fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    if is_fused(&x) { apply1(x, GELU_TANH) } else { composed_gelu_tanh(x) }
}

/// `silu(gate) * up`, the middle of a SwiGLU feed-forward layer (arXiv 2002.05202).
///
/// # Shapes
///
/// - `gate`, `up` and output: `[n_rows, width]`
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    assert_eq!(gate.dims(), up.dims(), "swiglu multiplies matrices of one shape");
    if is_fused(&gate) && is_fused(&up) {
        apply2(gate, up, SwiGlu)
    } else {
        composed_swiglu(gate, up)
    }
}

/// Gated linear unit (arXiv 1612.08083): the first half of each row times the sigmoid of the second.
///
/// # Shapes
///
/// - `x`: `[n_rows, 2 * width]`
/// - output: `[n_rows, width]`
pub fn glu(x: Tensor<2>) -> Tensor<2> {
    let [_, double] = x.dims();
    assert_eq!(double % 2, 0, "glu halves its rows, so their width must be even");
    if is_fused(&x) { apply1(x, Glu) } else { composed_glu(x) }
}

fn composed_silu(x: Tensor<2>) -> Tensor<2> {
    x.clone() * activation::sigmoid(x)
}

fn composed_gelu(x: Tensor<2>) -> Tensor<2> {
    let phi = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
    x * phi
}

fn composed_gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    let inner = (x.clone().powi_scalar(3) * 0.044715 + x.clone())
        * (2.0 * std::f64::consts::FRAC_1_PI).sqrt();
    x * (inner.tanh() * 0.5 + 0.5)
}

fn composed_swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    composed_silu(gate) * up
}

fn composed_glu(x: Tensor<2>) -> Tensor<2> {
    let [_, double] = x.dims();
    let [value, gate] = [x.clone().narrow(1, 0, double / 2), x.narrow(1, double / 2, double / 2)];
    value * activation::sigmoid(gate)
}

/// An activation of one input: what it does to values, and to the gradient at values.
#[derive(Debug, Clone)]
struct Unary {
    forward: fn(&[f32], &mut [MaybeUninit<f32>]),
    backward: fn(&[f32], &mut [f32]),
}

const SILU: Unary = Unary { forward: silu_forward, backward: silu_backward };
const GELU: Unary = Unary { forward: gelu_forward, backward: gelu_backward };
const GELU_TANH: Unary = Unary { forward: gelu_tanh_forward, backward: gelu_tanh_backward };

impl Kernel<1> for Unary {
    type Saved = FlexTensor;

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, FlexTensor) {
        let x = dense(x);
        let out = map([&x], |[x], out| (self.forward)(x, out));
        (tensor(out, dims2(&x)), x)
    }

    fn backward(
        &self,
        x: FlexTensor,
        gradient: FlexTensor,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        [Some(update(gradient, [&x], |gradient, [x]| (self.backward)(x, gradient)))]
    }
}

#[derive(Debug, Clone)]
struct SwiGlu;

impl Kernel<2> for SwiGlu {
    type Saved = [FlexTensor; 2];

    fn forward(&self, inputs: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let [gate, up] = inputs.map(dense);
        let out = map([&gate, &up], |[gate, up], out| swiglu_forward(gate, up, out));
        (tensor(out, dims2(&gate)), [gate, up])
    }

    fn backward(
        &self,
        [gate, up]: Self::Saved,
        gradient: FlexTensor,
        [want_gate, want_up]: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let gradient = dense(gradient);
        let dgate = want_gate.then(|| {
            let out = map([&gate, &up, &gradient], |[gate, up, gradient], out| {
                swiglu_gate_backward(gate, up, gradient, out);
            });
            tensor(out, dims2(&gate))
        });
        let dup = want_up.then(|| {
            update(gradient, [&gate], |gradient, [gate]| swiglu_up_backward(gate, gradient))
        });
        [dgate, dup]
    }
}

#[derive(Debug, Clone)]
struct Glu;

impl Kernel<1> for Glu {
    type Saved = FlexTensor;

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, FlexTensor) {
        let x = dense(x);
        let [n_rows, double] = dims2(&x);
        let width = double / 2;
        let block = rows_per_block(width);
        let x_values = values(&x);
        let fill = |out: &mut [MaybeUninit<f32>]| {
            for_each_block(out, block * width.max(1), |block_idx, out| {
                let rows = x_values[block_idx * block * double..].chunks_exact(double);
                for (out, row) in out.chunks_exact_mut(width).zip(rows) {
                    glu_forward(row, out);
                }
            });
        };
        // SAFETY: there is a row of `x` for every row of the output, and each is written whole.
        let out = unsafe { build(n_rows * width, fill) };
        (tensor(out, [n_rows, width]), x)
    }

    fn backward(
        &self,
        x: FlexTensor,
        gradient: FlexTensor,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let gradient = dense(gradient);
        let [n_rows, double] = dims2(&x);
        let width = double / 2;
        let block = rows_per_block(double);
        let (x_values, gradients) = (values(&x), values(&gradient));
        let fill = |out: &mut [MaybeUninit<f32>]| {
            for_each_block(out, block * double.max(1), |block_idx, out| {
                let first = block_idx * block;
                for (i, out) in out.chunks_exact_mut(double).enumerate() {
                    let row = &x_values[(first + i) * double..][..double];
                    glu_backward(row, &gradients[(first + i) * width..][..width], out);
                }
            });
        };
        // SAFETY: every row of the output is written whole, from its row of `x` and the gradient.
        let out = unsafe { build(n_rows * double, fill) };
        [Some(tensor(out, [n_rows, double]))]
    }
}

/// Elements a thread takes at a time.
const CHUNK: usize = 1 << 14;

/// Writes an output from inputs of the same length. `f` must write all of the chunk it is given.
fn map<const N: usize>(
    inputs: [&FlexTensor; N],
    f: impl Fn([&[f32]; N], &mut [MaybeUninit<f32>]) + Sync,
) -> Vec<f32> {
    let inputs = inputs.map(values);
    let n = inputs[0].len();
    let fill = |out: &mut [MaybeUninit<f32>]| {
        for_each_block(out, CHUNK, |block_idx, out| {
            let at = block_idx * CHUNK..block_idx * CHUNK + out.len();
            f(inputs.map(|input| &input[at.clone()]), out);
        });
    };
    // SAFETY: the functions below zip slices of one length, so they write the whole chunk.
    unsafe { build(n, fill) }
}

/// Changes a gradient in place, looking at inputs of the same length.
fn update<const N: usize>(
    gradient: FlexTensor,
    inputs: [&FlexTensor; N],
    f: impl Fn(&mut [f32], [&[f32]; N]) + Sync,
) -> FlexTensor {
    let mut gradient = owned(gradient);
    let inputs = inputs.map(values);
    let target = unique_values(&mut gradient).expect("owned the line before");
    for_each_block(target, CHUNK, |block_idx, target| {
        let at = block_idx * CHUNK..block_idx * CHUNK + target.len();
        f(target, inputs.map(|input| &input[at.clone()]));
    });
    gradient
}

vectorized! {
    fn silu_forward(x: &[f32], out: &mut [MaybeUninit<f32>]) {
        for (out, &x) in out.iter_mut().zip(x) {
            out.write(x * sigmoid::<FMA>(x));
        }
    }
}

/// The derivative of `x sigmoid(x)`.
#[inline(always)]
fn silu_slope<const FMA: bool>(x: f32) -> f32 {
    let s = sigmoid::<FMA>(x);
    s * mul_add::<FMA>(x, 1.0 - s, 1.0)
}

vectorized! {
    fn silu_backward(x: &[f32], gradient: &mut [f32]) {
        for (gradient, &x) in gradient.iter_mut().zip(x) {
            *gradient *= silu_slope::<FMA>(x);
        }
    }
}

vectorized! {
    fn gelu_forward(x: &[f32], out: &mut [MaybeUninit<f32>]) {
        for (out, &x) in out.iter_mut().zip(x) {
            let (erf, _) = erf::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2);
            out.write(0.5 * x * (1.0 + erf));
        }
    }
}

vectorized! {
    /// The slope is the distribution function plus `x` times the density.
    fn gelu_backward(x: &[f32], gradient: &mut [f32]) {
        // One over the root of 2 π.
        const DENSITY: f32 = 0.398_942_3;
        for (gradient, &x) in gradient.iter_mut().zip(x) {
            let (erf, bell) = erf::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2);
            *gradient *= mul_add::<FMA>(x * DENSITY, bell, 0.5 * (1.0 + erf));
        }
    }
}

/// The root of 2 / π.
const TANH_SCALE: f32 = 0.797_884_6;
const TANH_CUBE: f32 = 0.044_715;

vectorized! {
    fn gelu_tanh_forward(x: &[f32], out: &mut [MaybeUninit<f32>]) {
        for (out, &x) in out.iter_mut().zip(x) {
            let inner = TANH_SCALE * x * mul_add::<FMA>(TANH_CUBE * x, x, 1.0);
            out.write(0.5 * x * (1.0 + tanh::<FMA>(inner)));
        }
    }
}

vectorized! {
    fn gelu_tanh_backward(x: &[f32], gradient: &mut [f32]) {
        for (gradient, &x) in gradient.iter_mut().zip(x) {
            let inner = TANH_SCALE * x * mul_add::<FMA>(TANH_CUBE * x, x, 1.0);
            let t = tanh::<FMA>(inner);
            let slope = TANH_SCALE * mul_add::<FMA>(3.0 * TANH_CUBE * x, x, 1.0);
            *gradient *= 0.5 * mul_add::<FMA>(x * (1.0 - t * t), slope, 1.0 + t);
        }
    }
}

vectorized! {
    fn swiglu_forward(gate: &[f32], up: &[f32], out: &mut [MaybeUninit<f32>]) {
        for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
            out.write(gate * sigmoid::<FMA>(gate) * up);
        }
    }
}

vectorized! {
    fn swiglu_gate_backward(
        gate: &[f32],
        up: &[f32],
        gradient: &[f32],
        out: &mut [MaybeUninit<f32>],
    ) {
        for (((out, &gate), &up), &gradient) in out.iter_mut().zip(gate).zip(up).zip(gradient) {
            out.write(gradient * up * silu_slope::<FMA>(gate));
        }
    }
}

vectorized! {
    fn swiglu_up_backward(gate: &[f32], gradient: &mut [f32]) {
        for (gradient, &gate) in gradient.iter_mut().zip(gate) {
            *gradient *= gate * sigmoid::<FMA>(gate);
        }
    }
}

vectorized! {
    fn glu_forward(row: &[f32], out: &mut [MaybeUninit<f32>]) {
        let (value, gate) = row.split_at(out.len());
        for ((out, &value), &gate) in out.iter_mut().zip(value).zip(gate) {
            out.write(value * sigmoid::<FMA>(gate));
        }
    }
}

vectorized! {
    fn glu_backward(row: &[f32], gradient: &[f32], out: &mut [MaybeUninit<f32>]) {
        let width = gradient.len();
        let (value, gate) = row.split_at(width);
        let (dvalue, dgate) = out.split_at_mut(width);
        for (((dvalue, dgate), (&value, &gate)), &gradient) in
            dvalue.iter_mut().zip(dgate).zip(value.iter().zip(gate)).zip(gradient)
        {
            let s = 1.0 / (1.0 + exp::<FMA>(-gate));
            dvalue.write(gradient * s);
            dgate.write(gradient * value * s * (1.0 - s));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, cpu, random, to_vec};

    const SHAPES: [[usize; 2]; 5] = [[1, 2], [0, 4], [3, 18], [33, 64], [40, 1000]];

    #[test]
    fn activations_fused_equal_composed() {
        for shape in SHAPES {
            let case = Case::new().input(random(shape, 1));
            case.check(|t| silu(t.rows(0)), |t| composed_silu(t.rows(0)));
            case.check(|t| gelu(t.rows(0)), |t| composed_gelu(t.rows(0)));
            case.check(|t| gelu_tanh(t.rows(0)), |t| composed_gelu_tanh(t.rows(0)));
            if shape[0] > 0 {
                case.check(|t| glu(t.rows(0)), |t| composed_glu(t.rows(0)));
            }
            Case::new()
                .input(random(shape, 1))
                .input(random(shape, 2))
                .check(|t| swiglu(t.rows(0), t.rows(1)), |t| composed_swiglu(t.rows(0), t.rows(1)));
        }
    }

    #[test]
    fn gradients_match_differences() {
        let case = Case::new().input(random([2, 6], 4));
        case.check_differences(|t| silu(t.rows(0)));
        case.check_differences(|t| gelu(t.rows(0)));
        case.check_differences(|t| gelu_tanh(t.rows(0)));
        case.check_differences(|t| glu(t.rows(0)));
        Case::new()
            .input(random([2, 6], 4))
            .input(random([2, 6], 5))
            .check_differences(|t| swiglu(t.rows(0), t.rows(1)));
    }

    #[test]
    fn values_known_by_hand() {
        let x = || Tensor::<2>::from_floats([[0.0, 1.0, -200.0, 200.0]], &cpu());
        let sigmoid_of_one = 1.0 / (1.0 + (-1.0_f32).exp());
        // Φ(1) = 0.8413447 (Abramowitz and Stegun, table 26.1).
        for (values, at_one) in [(silu(x()), sigmoid_of_one), (gelu(x()), 0.841_344_7)] {
            let values = to_vec(values);
            assert_eq!([values[0], values[2].abs(), values[3]], [0.0, 0.0, 200.0]);
            assert!((values[1] - at_one).abs() < 1e-6);
        }
        let halves = Tensor::<2>::from_floats([[3.0, 5.0, 0.0, 200.0]], &cpu());
        assert_eq!(to_vec(glu(halves)), [1.5, 5.0]);
        assert_eq!(glu(Tensor::zeros([0, 6], &cpu())).dims(), [0, 3]);
    }
}
