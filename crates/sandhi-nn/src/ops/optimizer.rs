//! The optimizer's arithmetic: one AdamW update, and the sum of squares behind the gradient's norm.

use burn::tensor::Tensor;

/// The scalars of one AdamW update (arXiv 1711.05101, algorithm 2, with PyTorch's schedule of the
/// decay: `lr * weight_decay`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment, 0.9 in most recipes.
    pub beta1: f64,
    /// Decay of the second moment, 0.95 to 0.999.
    pub beta2: f64,
    /// Added to the root of the second moment; PyTorch's default is 1e-8.
    pub eps: f64,
    /// Share of the parameter taken away per unit of learning rate.
    pub weight_decay: f64,
    /// Number of this update, from 1; it corrects the moments' start at zero.
    pub step: u64,
}

/// One AdamW update. Returns the new parameter and the new moments.
///
/// ```text
/// m' = beta1 m + (1 - beta1) grad          v' = beta2 v + (1 - beta2) grad²
/// param' = param (1 - lr weight_decay) - lr / (1 - beta1^step) m' / (sqrt(v' / (1 - beta2^step)) + eps)
/// ```
///
/// Takes tensors without gradient tracking (`.inner()`). On the CPU those that nobody else holds
/// are updated in place.
///
/// # Shapes
///
/// All tensors have the parameter's shape.
///
/// # Panics
///
/// When the shapes differ or `step` is 0.
pub fn adamw<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    m: Tensor<D>,
    v: Tensor<D>,
    step: &AdamStep,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    assert!(step.step > 0, "AdamW counts its steps from 1");
    for other in [&grad, &m, &v] {
        assert_eq!(other.dims(), param.dims(), "gradient and moments have the parameter's shape");
    }
    composed_adamw(param, grad, m, v, step)
}

/// The sum of the squares of all elements, in double precision and in an order that depends on the
/// shape only.
pub fn sum_squares<const D: usize>(x: &Tensor<D>) -> f64 {
    composed_sum_squares(x)
}

fn composed_adamw<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    m: Tensor<D>,
    v: Tensor<D>,
    step: &AdamStep,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    let exponent = i32::try_from(step.step).unwrap_or(i32::MAX);
    let (correction1, correction2) =
        (1.0 - step.beta1.powi(exponent), 1.0 - step.beta2.powi(exponent));
    let m = m * step.beta1 + grad.clone() * (1.0 - step.beta1);
    let v = v * step.beta2 + grad.square() * (1.0 - step.beta2);
    let root = v.clone().sqrt() * correction2.sqrt().recip() + step.eps;
    let update = m.clone() / root * (step.lr / correction1);
    let param = param * (1.0 - step.lr * step.weight_decay) - update;
    (param, m, v)
}

fn composed_sum_squares<const D: usize>(x: &Tensor<D>) -> f64 {
    let data = x.clone().into_data().convert::<f32>();
    let values = data.as_slice::<f32>().expect("converted to f32 the line before");
    values.chunks(4096).map(|block| block.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>()).sum()
}
