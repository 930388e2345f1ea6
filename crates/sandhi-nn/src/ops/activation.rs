//! Element-wise activations in one pass, and the gated ones that feed on two halves.

use burn::tensor::{Tensor, activation};

/// `x * sigmoid(x)`, element by element (arXiv 1702.03118).
///
/// # Shapes
///
/// - `x` and output: `[n_rows, width]`
pub fn silu(x: Tensor<2>) -> Tensor<2> {
    composed_silu(x)
}

/// The exact GELU (arXiv 1606.08415), `x * Φ(x)` with the normal distribution function by `erf`.
///
/// # Shapes
///
/// - `x` and output: `[n_rows, width]`
pub fn gelu(x: Tensor<2>) -> Tensor<2> {
    composed_gelu(x)
}

/// GELU by its tanh approximation (arXiv 1606.08415):
/// `x / 2 * (1 + tanh(sqrt(2 / π) * (x + 0.044715 x³)))`.
///
/// # Shapes
///
/// - `x` and output: `[n_rows, width]`
pub fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    composed_gelu_tanh(x)
}

/// `silu(gate) * up`, the middle of a SwiGLU feed-forward layer (arXiv 2002.05202).
///
/// # Shapes
///
/// - `gate`, `up` and output: `[n_rows, width]`
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    composed_swiglu(gate, up)
}

/// Gated linear unit (arXiv 1612.08083): the first half of each row times the sigmoid of the second.
///
/// # Shapes
///
/// - `x`: `[n_rows, 2 * width]`
/// - output: `[n_rows, width]`
pub fn glu(x: Tensor<2>) -> Tensor<2> {
    composed_glu(x)
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
    assert_eq!(double % 2, 0, "glu halves its rows, so their width must be even");
    let [value, gate] = [x.clone().narrow(1, 0, double / 2), x.narrow(1, double / 2, double / 2)];
    value * activation::sigmoid(gate)
}
