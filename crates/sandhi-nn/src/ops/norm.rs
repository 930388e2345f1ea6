//! Normalization over the last axis: RMSNorm (arXiv 1910.07467) and LayerNorm (arXiv 1607.06450).

use burn::tensor::Tensor;

/// Root-mean-square normalization of each row: `y = x / sqrt(mean(x²) + eps) * gamma`.
///
/// # Shapes
///
/// - `x`: `[n_rows, width]`
/// - `gamma`: `[width]`
/// - output: `[n_rows, width]`
pub fn rms_norm(x: Tensor<2>, gamma: Tensor<1>, eps: f64) -> Tensor<2> {
    composed_rms_norm(x, gamma, eps)
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
    composed_layer_norm(x, gamma, beta, eps)
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
