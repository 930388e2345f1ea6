//! The optimizer's arithmetic: one AdamW update, and the sum of squares behind the gradient's norm.

use burn::{
    backend::Flex,
    tensor::{Float, Tensor},
};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{
    bridge::{dense, is_fused, owned, unique_values, values},
    simd::{mul_add, vectorized},
};

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
    if [&param, &grad, &m, &v].into_iter().all(|x| is_fused(x) && !x.is_autodiff()) {
        let [param, grad, m, v] = [param, grad, m, v].map(primitive);
        let (param, m, v) = fused_adamw(param, grad, m, v, step);
        (from_primitive(param), from_primitive(m), from_primitive(v))
    } else {
        composed_adamw(param, grad, m, v, step)
    }
}

/// The sum of the squares of all elements, in double precision and in an order that depends on the
/// shape only.
pub fn sum_squares<const D: usize>(x: &Tensor<D>) -> f64 {
    if is_fused(x) && !x.is_autodiff() {
        let x = dense(primitive(x.clone()));
        let partials: Vec<f64> = values(&x).par_chunks(CHUNK).map(block_sum_squares).collect();
        partials.iter().sum()
    } else {
        composed_sum_squares(x)
    }
}

/// Elements a thread takes at a time.
const CHUNK: usize = 1 << 15;

fn primitive<const D: usize>(x: Tensor<D>) -> FlexTensor {
    x.try_into_primitive::<Flex>().expect("the caller asked for the backend")
}

fn from_primitive<const D: usize>(x: FlexTensor) -> Tensor<D> {
    Tensor::<D, Float>::from_primitive::<Flex>(x)
}

fn fused_adamw(
    param: FlexTensor,
    grad: FlexTensor,
    m: FlexTensor,
    v: FlexTensor,
    step: &AdamStep,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let grad = dense(grad);
    let [mut param, mut m, mut v] = [param, m, v].map(owned);
    let factors = Factors::new(step);
    {
        let unique = "owned above";
        let params = unique_values(&mut param).expect(unique).par_chunks_mut(CHUNK);
        let ms = unique_values(&mut m).expect(unique).par_chunks_mut(CHUNK);
        let vs = unique_values(&mut v).expect(unique).par_chunks_mut(CHUNK);
        params
            .zip(values(&grad).par_chunks(CHUNK))
            .zip(ms)
            .zip(vs)
            .for_each(|(((param, grad), m), v)| adamw_block(param, grad, m, v, factors));
    }
    (param, m, v)
}

/// What an update multiplies by, folded from its scalars.
#[derive(Debug, Clone, Copy)]
struct Factors {
    beta1: f32,
    fresh1: f32,
    beta2: f32,
    fresh2: f32,
    /// What is left of a parameter after its decay.
    kept: f32,
    /// Learning rate over the first moment's correction.
    rate: f32,
    /// One over the root of the second moment's correction.
    root: f32,
    eps: f32,
}

impl Factors {
    fn new(step: &AdamStep) -> Self {
        let exponent = i32::try_from(step.step).unwrap_or(i32::MAX);
        let (correction1, correction2) =
            (1.0 - step.beta1.powi(exponent), 1.0 - step.beta2.powi(exponent));
        Self {
            beta1: step.beta1 as f32,
            fresh1: (1.0 - step.beta1) as f32,
            beta2: step.beta2 as f32,
            fresh2: (1.0 - step.beta2) as f32,
            kept: (1.0 - step.lr * step.weight_decay) as f32,
            rate: (step.lr / correction1) as f32,
            root: correction2.sqrt().recip() as f32,
            eps: step.eps as f32,
        }
    }
}

vectorized! {
    fn adamw_block(param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], f: Factors) {
        for (((param, &grad), m), v) in param.iter_mut().zip(grad).zip(m).zip(v) {
            *m = mul_add::<FMA>(*m, f.beta1, grad * f.fresh1);
            *v = mul_add::<FMA>(*v, f.beta2, grad * grad * f.fresh2);
            let update = f.rate * *m / mul_add::<FMA>(v.sqrt(), f.root, f.eps);
            *param = mul_add::<FMA>(*param, f.kept, -update);
        }
    }
}

vectorized! {
    fn block_sum_squares(block: &[f32]) -> f64 {
        let _ = FMA;
        let mut lanes = [0.0_f64; 8];
        let (chunks, rest) = block.as_chunks::<8>();
        for chunk in chunks {
            for (lane, &value) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(value) * f64::from(value);
            }
        }
        for (lane, &value) in lanes.iter_mut().zip(rest) {
            *lane += f64::from(value) * f64::from(value);
        }
        lanes.iter().sum()
    }
}

fn composed_adamw<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    m: Tensor<D>,
    v: Tensor<D>,
    step: &AdamStep,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    let f = Factors::new(step);
    let m = m * step.beta1 + grad.clone() * (1.0 - step.beta1);
    let v = v * step.beta2 + grad.square() * (1.0 - step.beta2);
    let update = m.clone() * f.rate / (v.clone().sqrt() * f.root + f.eps);
    let param = param * f.kept - update;
    (param, m, v)
}

fn composed_sum_squares<const D: usize>(x: &Tensor<D>) -> f64 {
    let data = x.clone().into_data().convert::<f32>();
    let values = data.as_slice::<f32>().expect("converted to f32 the line before");
    values.chunks(4096).map(|block| block.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{cpu, random, to_vec};

    const STEP: AdamStep =
        AdamStep { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.5, step: 1 };

    #[test]
    fn fused_equals_composed_over_several_steps() {
        for shape in [[1, 1], [3, 7], [300, 401]] {
            let start = || {
                let zeros = Tensor::<2>::zeros(shape, &cpu());
                (random(shape, 1).tensor(&cpu()), zeros.clone(), zeros)
            };
            let (mut fused, mut composed) = (start(), start());
            for step in 1..4 {
                let grad = random(shape, 10 + step).tensor(&cpu());
                let step = AdamStep { step, ..STEP };
                let (param, m, v) = fused;
                fused = adamw(param, grad.clone(), m, v, &step);
                let (param, m, v) = composed;
                composed = composed_adamw(param, grad, m, v, &step);
            }
            for (fused, composed) in
                [(fused.0, composed.0), (fused.1, composed.1), (fused.2, composed.2)]
            {
                for (a, b) in to_vec(fused).into_iter().zip(to_vec(composed)) {
                    assert!((a - b).abs() < 1e-6 * b.abs().max(1.0), "{a} and {b}");
                }
            }
        }
    }

    #[test]
    fn the_first_step_moves_by_the_learning_rate() {
        // After one step the corrected moments are the gradient and its square, so the update is
        // lr times the gradient's sign, and decay takes lr * weight_decay = 5 % of the parameter.
        let one = |value: f32| Tensor::<1>::from_floats([value], &cpu());
        let (param, m, v) = adamw(one(2.0), one(-4.0), one(0.0), one(0.0), &STEP);
        assert!((to_vec(param)[0] - (2.0 * 0.95 + 0.1)).abs() < 1e-6);
        assert!((to_vec(m)[0] + 0.4).abs() < 1e-6 && (to_vec(v)[0] - 0.16).abs() < 1e-6);
    }

    #[test]
    fn tensors_held_elsewhere_are_left_alone() {
        let param = random([50, 50], 1).tensor(&cpu());
        let zeros = Tensor::<2>::zeros([50, 50], &cpu());
        let (new, m, _) = adamw(param.clone(), param.clone(), zeros.clone(), zeros.clone(), &STEP);
        assert_eq!(to_vec(param.clone()), random([50, 50], 1).values);
        assert_ne!(to_vec(new), to_vec(param));
        assert!(to_vec(zeros).iter().all(|&value| value == 0.0));
        assert!(to_vec(m).iter().any(|&value| value != 0.0));
    }

    #[test]
    fn sum_of_squares_by_hand_and_by_threads() {
        assert_eq!(sum_squares(&Tensor::<1>::from_floats([3.0, 4.0], &cpu())), 25.0);
        let x = random([300, 1001], 1);
        let expected: f64 = x.values.iter().map(|&value| f64::from(value).powi(2)).sum();
        let tensor = x.tensor(&cpu());
        let parallel = sum_squares(&tensor);
        assert!((parallel / expected - 1.0).abs() < 1e-12);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(pool.install(|| sum_squares(&tensor)).to_bits(), parallel.to_bits());
        assert!((composed_sum_squares(&tensor) / expected - 1.0).abs() < 1e-12);
        assert_eq!(sum_squares(&Tensor::<2>::zeros([0, 3], &cpu())), 0.0);
    }
}
