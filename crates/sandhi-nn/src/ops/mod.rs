//! Operations with their own forward and backward passes.
//!
//! Every function here takes plain tensors and works on every device. On the CPU backend (`flex`)
//! with `f32` values it runs fused loops on slices; everywhere else it is composed of ordinary
//! tensor operations. The composed form is also the reference in the tests.
//!
//! ```text
//! rms_norm(x, gamma, eps) ── flex and f32? ── yes ── kernel on slices, own backward pass
//!                                  └───────── no ─── composed: x / sqrt(mean(x²) + eps) * gamma
//! ```
//!
//! Three promises hold on the CPU and are tested:
//!
//! - threads never change a result: work is cut into blocks that depend on the shape only, and
//!   partial sums are added in block order;
//! - rows know nothing of their batch: a row (or, for attention and convolution, a sequence) gives
//!   the same bits alone as among others;
//! - a frozen input costs nothing: its gradient is not computed.

mod activation;
mod attention;
mod blocks;
mod bridge;
mod convolution;
mod cross_entropy;
mod ctc;
mod distance;
mod dropout;
#[cfg(test)]
mod elsewhere;
mod forward_sum;
mod half;
mod linear;
mod matrix;
mod max_pool;
mod norm;
mod optimizer;
mod pool;
mod recompute;
mod rotary;
mod rows;
mod simd;
mod smooth;
#[cfg(test)]
pub(crate) mod testing;
mod transport;

pub use activation::{gelu, gelu_tanh, glu, silu, swiglu};
pub use attention::{AttentionLayout, Mask, ragged_attention};
pub use convolution::{depthwise_conv, unfold};
pub use cross_entropy::cross_entropy;
pub use ctc::{ctc_feasible, ctc_loss};
pub use distance::distances;
pub use dropout::{dropout, dropout_rows};
pub use forward_sum::{binarization_loss, forward_sum_loss, path_sum_loss};
pub use linear::linear;
pub use max_pool::max_pool;
pub use norm::{layer_norm, rms_norm};
pub use optimizer::{AdamStep, adamw, sum_squares};
pub use pool::pool;
pub use recompute::{recompute, recomputes};
pub use rotary::{Llama3Scaling, Rope, RopeScaling, rotary};
pub use rows::{embedding, write_rows};
pub use smooth::smooth;
pub use transport::{TransportLoss, TransportProblems, cosine_costs, transport_loss};

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Row indices as an integer tensor on `device`.
pub(crate) fn index_tensor(
    indices: impl IntoIterator<Item = usize>,
    device: &Device,
) -> Tensor<1, Int> {
    let indices: Vec<i32> = indices
        .into_iter()
        .map(|index| i32::try_from(index).expect("row indices fit 31 bits"))
        .collect();
    let n = indices.len();
    Tensor::from_data(TensorData::new(indices, [n]), device)
}

/// The rows of `x` at `indices`, where the index `n_rows` stands for a row of zeros.
///
/// # Shapes
///
/// - `x`: `[n_rows, width]`
/// - output: `[indices.len(), width]`
pub(crate) fn select_or_zero(x: Tensor<2>, indices: Vec<usize>) -> Tensor<2> {
    let [_, width] = x.dims();
    let device = x.device();
    let zero = Tensor::zeros([1, width], (&device, x.dtype()));
    Tensor::cat(vec![x, zero], 0).select(0, index_tensor(indices, &device))
}
