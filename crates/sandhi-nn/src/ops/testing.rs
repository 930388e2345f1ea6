//! What the tests of the operations share: random inputs, and comparisons of values, gradients,
//! differences and bits.

use burn::tensor::{Device, Tensor, TensorData};

/// The CPU backend.
pub(crate) fn cpu() -> Device {
    Device::flex()
}

/// Values for a matrix, about normal, the same for ever for one seed.
pub(crate) fn random(shape: [usize; 2], seed: u64) -> Matrix {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let mut uniform = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    // The sum of twelve uniforms has variance 1.
    let values = (0..shape[0] * shape[1]).map(|_| (0..12).map(|_| uniform()).sum()).collect();
    Matrix { values, shape }
}

/// Plain values of a matrix.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    pub(crate) values: Vec<f32>,
    pub(crate) shape: [usize; 2],
}

impl Matrix {
    pub(crate) fn tensor(&self, device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(self.values.clone(), self.shape), device)
    }

    pub(crate) fn rows(&self, rows: std::ops::Range<usize>) -> Self {
        let width = self.shape[1];
        Self {
            values: self.values[rows.start * width..rows.end * width].to_vec(),
            shape: [rows.len(), width],
        }
    }
}

/// Values of any tensor as a vector.
pub(crate) fn to_vec<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec::<f32>().expect("the tests use f32")
}

/// The inputs of one call, as leaves of a graph.
pub(crate) struct Leaves(Vec<Tensor<2>>);

impl Leaves {
    /// Input `i` as a matrix.
    pub(crate) fn rows(&self, i: usize) -> Tensor<2> {
        self.0[i].clone()
    }

    /// Input `i`, one row, as a vector.
    pub(crate) fn vector(&self, i: usize) -> Tensor<1> {
        let [_, width] = self.0[i].dims();
        self.0[i].clone().reshape([width])
    }
}

/// Inputs on which an operation is checked.
pub(crate) struct Case {
    inputs: Vec<(Matrix, bool)>,
    tolerance: f32,
}

impl Case {
    pub(crate) fn new() -> Self {
        Self { inputs: Vec::new(), tolerance: 2e-5 }
    }

    /// Adds an input of one row per item.
    pub(crate) fn input(mut self, matrix: Matrix) -> Self {
        self.inputs.push((matrix, true));
        self
    }

    /// Adds a parameter vector.
    pub(crate) fn vector(mut self, matrix: Matrix) -> Self {
        self.inputs.push((matrix, false));
        self
    }

    /// Largest difference allowed, relative to the largest value of the tensor.
    pub(crate) fn tolerance(mut self, tolerance: f32) -> Self {
        self.tolerance = tolerance;
        self
    }

    fn leaves(&self, frozen: usize) -> Leaves {
        let device = cpu().autodiff();
        let leaf = |(i, (matrix, _)): (usize, &(Matrix, bool))| {
            let tensor = matrix.tensor(&device);
            if frozen >> i & 1 == 1 { tensor } else { tensor.require_grad() }
        };
        Leaves(self.inputs.iter().enumerate().map(leaf).collect())
    }

    /// Output, and the gradients of `sum(output * weights)` for fixed random weights.
    fn run<const D: usize>(
        &self,
        frozen: usize,
        f: impl Fn(&Leaves) -> Tensor<D>,
    ) -> (Vec<f32>, Vec<Option<Vec<f32>>>) {
        let leaves = self.leaves(frozen);
        let output = f(&leaves);
        let shape = output.shape();
        let weights = random([1, shape.num_elements()], 77);
        let weights =
            Tensor::<D>::from_data(TensorData::new(weights.values, shape), &cpu().autodiff());
        let all_frozen = frozen.count_ones() as usize == self.inputs.len();
        let values = to_vec(output.clone().inner());
        if all_frozen {
            return (values, vec![None; self.inputs.len()]);
        }
        let gradients = (output * weights).sum().backward();
        let gradients = leaves.0.iter().map(|leaf| leaf.grad(&gradients).map(to_vec)).collect();
        (values, gradients)
    }

    /// The fused form equals the composed one in value and in every gradient, whichever inputs are
    /// frozen, and on a device without gradients.
    pub(crate) fn check<const D: usize>(
        &self,
        fused: impl Fn(&Leaves) -> Tensor<D>,
        composed: impl Fn(&Leaves) -> Tensor<D>,
    ) {
        let shapes: Vec<_> = self.inputs.iter().map(|(matrix, _)| matrix.shape).collect();
        let (expected, expected_gradients) = self.run(0, &composed);
        for frozen in 0..1 << self.inputs.len() {
            let (values, gradients) = self.run(frozen, &fused);
            self.compare(&values, &expected, &format!("output of {shapes:?}, frozen {frozen:b}"));
            for (i, (gradient, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
                if frozen >> i & 1 == 1 {
                    assert!(gradient.is_none(), "input {i} of {shapes:?} is frozen");
                    continue;
                }
                let (Some(gradient), Some(expected)) = (gradient, expected) else {
                    panic!("input {i} of {shapes:?} has no gradient (frozen {frozen:b})");
                };
                let what = format!("gradient {i} of {shapes:?}, frozen {frozen:b}");
                self.compare(gradient, expected, &what);
            }
        }
        let plain = Leaves(self.inputs.iter().map(|(matrix, _)| matrix.tensor(&cpu())).collect());
        self.compare(&to_vec(fused(&plain)), &expected, "output without gradients");
    }

    fn compare(&self, values: &[f32], expected: &[f32], what: &str) {
        assert_eq!(values.len(), expected.len(), "{what}");
        let size = expected.iter().fold(0.1_f32, |size, value| size.max(value.abs()));
        for (i, (value, expected)) in values.iter().zip(expected).enumerate() {
            assert!(
                (value - expected).abs() <= self.tolerance * size,
                "{what}: element {i} is {value}, not {expected} (size {size})"
            );
        }
    }

    /// Gradients equal central differences of the weighted sum of the output.
    pub(crate) fn check_differences<const D: usize>(&self, f: impl Fn(&Leaves) -> Tensor<D>) {
        let (output, gradients) = self.run(0, &f);
        let weights = random([1, output.len()], 77).values;
        let objective = |inputs: &[Matrix]| -> f64 {
            let leaves = Leaves(inputs.iter().map(|matrix| matrix.tensor(&cpu())).collect());
            let output = to_vec(f(&leaves));
            output.iter().zip(&weights).map(|(&y, &w)| f64::from(y) * f64::from(w)).sum()
        };
        let step = 4e-3;
        for (i, gradient) in gradients.iter().enumerate() {
            let gradient = gradient.as_ref().expect("nothing is frozen");
            let size = gradient.iter().fold(1.0_f32, |size, value| size.max(value.abs()));
            for (at, &gradient) in gradient.iter().enumerate() {
                let mut inputs: Vec<_> = self.inputs.iter().map(|(m, _)| m.clone()).collect();
                inputs[i].values[at] += step;
                let above = objective(&inputs);
                inputs[i].values[at] -= 2.0 * step;
                let below = objective(&inputs);
                let slope = ((above - below) / f64::from(2.0 * step)) as f32;
                assert!(
                    (slope - gradient).abs() < 5e-3 * size,
                    "input {i}, element {at}: the slope is {slope}, the gradient {gradient}"
                );
            }
        }
    }

    /// A row gives the same bits alone, in pieces and in the whole batch.
    pub(crate) fn check_rows(&self, f: impl Fn(&Leaves) -> Tensor<2>) {
        let run = |rows: std::ops::Range<usize>| {
            let pick = |(matrix, per_row): &(Matrix, bool)| {
                if *per_row { matrix.rows(rows.clone()) } else { matrix.clone() }
            };
            to_vec(f(&Leaves(self.inputs.iter().map(|i| pick(i).tensor(&cpu())).collect())))
        };
        let n_rows = self.inputs[0].0.shape[0];
        let whole = run(0..n_rows);
        let width = whole.len() / n_rows;
        for piece in [1, 2, 3, 7, 33] {
            for start in (0..n_rows).step_by(piece) {
                let end = (start + piece).min(n_rows);
                let alone = run(start..end);
                assert!(
                    alone
                        .iter()
                        .zip(&whole[start * width..])
                        .all(|(a, b)| a.to_bits() == b.to_bits()),
                    "rows {start}..{end} differ from the same rows among {n_rows}"
                );
            }
        }
    }
}
