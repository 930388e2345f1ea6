//! Distances of every row of one packed set from every row of another, sequence by sequence.
//!
//! ```text
//! x [n, d] ─┐
//!           ├─ |x_i - y_j| ─ distances [n m, 1]      matrices behind one another, row-major
//! y [m, d] ─┘
//! ```

use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use sandhi_align::transport::{Batch, Error, Metric, embedding_costs, pull_back};

use super::bridge::{Kernel, apply2, dense, dims2, is_fused, tensor, values};

/// Added to squares, so that the root has a slope where rows are equal. In single precision a square below the norms'
/// rounding is rounding itself.
const SMOOTH: f32 = 1e-4;

/// `sqrt(|x_i - y_j|² + 1e-4)` of every row of `x` and every row of `y` of the same problem. Where a row is not finite,
/// distances are not numbers.
///
/// # Shapes
///
/// - `x`: `[n_rows, width]`, the rows of `batch`
/// - `y`: `[n_columns, width]`, its columns
/// - output: `[n_cells, 1]`, the matrices of all problems behind one another
///
/// # Panics
///
/// When the batch has other totals.
pub fn distances(x: Tensor<2>, y: Tensor<2>, batch: &Batch) -> Tensor<2> {
    let [n_rows, n_columns, _] = batch.totals();
    assert_eq!([x.dims()[0], y.dims()[0]], [n_rows, n_columns], "rows are the batch's lines");
    if batch.is_empty() {
        return Tensor::zeros([0, 1], (&x.device(), x.dtype()));
    }
    if is_fused(&x) && is_fused(&y) {
        apply2(x, y, Distances { batch: batch.clone() })
    } else {
        composed(x, y, batch)
    }
}

fn composed(x: Tensor<2>, y: Tensor<2>, batch: &Batch) -> Tensor<2> {
    let squares = (0..batch.len()).map(|problem| {
        let (rows, columns) = (batch.rows(problem), batch.columns(problem));
        let of_x = x.clone().narrow(0, rows.start, rows.len());
        let of_y = y.clone().narrow(0, columns.start, columns.len());
        let norms = of_x.clone().square().sum_dim(1) + of_y.clone().square().sum_dim(1).transpose();
        let squares = norms - of_x.matmul(of_y.transpose()) * 2.0;
        squares.clamp_min(0.0).reshape([rows.len() * columns.len(), 1])
    });
    (Tensor::cat(squares.collect(), 0) + SMOOTH).sqrt()
}

#[derive(Debug, Clone)]
struct Distances {
    batch: Batch,
}

impl Kernel<2> for Distances {
    /// Both inputs, and the output.
    type Saved = [FlexTensor; 3];

    fn forward(&self, inputs: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let [x, y] = inputs.map(dense);
        let [_, width] = dims2(&x);
        let n_cells = self.batch.totals()[2];
        let metric = Metric::SquaredEuclidean;
        let mut found = match embedding_costs(metric, values(&x), values(&y), width, &self.batch) {
            Ok(squares) => squares,
            Err(Error::Embedding { .. }) => vec![f32::NAN; n_cells],
            Err(error) => panic!("{error}"),
        };
        found.iter_mut().for_each(|square| *square = (*square + SMOOTH).sqrt());
        let out = tensor(found, [n_cells, 1]);
        (out.clone(), [x, y, out])
    }

    fn backward(
        &self,
        [x, y, out]: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let shapes = [dims2(&x), dims2(&y)];
        let gradient = dense(gradient);
        // d sqrt(s) = ds / (2 sqrt(s)).
        let of_squares = values(&gradient).iter().zip(values(&out));
        let of_squares: Vec<f64> =
            of_squares.map(|(&g, &root)| f64::from(g) / (2.0 * f64::from(root))).collect();
        let (metric, width) = (Metric::SquaredEuclidean, shapes[0][1]);
        let found = pull_back(metric, values(&x), values(&y), width, &self.batch, &of_squares);
        let gradients = match found {
            Ok(gradients) => gradients,
            Err(Error::Embedding { .. }) => {
                shapes.map(|[n_rows, width]| vec![f32::NAN; n_rows * width])
            }
            Err(error) => panic!("{error}"),
        };
        let mut sides = gradients.into_iter().zip(shapes).zip(wanted);
        [(); 2].map(|()| {
            let ((gradient, shape), wanted) = sides.next().expect("two sides");
            wanted.then(|| tensor(gradient, shape))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, cpu, random, to_vec};

    fn batch() -> Batch {
        Batch::new(&[0, 4, 5, 11], &[0, 3, 5, 6]).unwrap()
    }

    #[test]
    fn fused_equals_composed() {
        Case::new().input(random([11, 7], 1)).input(random([6, 7], 2)).check(
            |t| distances(t.rows(0), t.rows(1), &batch()),
            |t| composed(t.rows(0), t.rows(1), &batch()),
        );
    }

    #[test]
    fn gradients_match_differences() {
        Case::new()
            .input(random([11, 3], 1))
            .input(random([6, 3], 2))
            .check_differences(|t| distances(t.rows(0), t.rows(1), &batch()));
    }

    #[test]
    fn distances_by_hand() {
        // (3, 4) from (0, 0) and from itself, where the root of the smoothing term is left.
        let x = Tensor::<2>::from_floats([[3.0, 4.0]], &cpu());
        let y = Tensor::<2>::from_floats([[0.0, 0.0], [3.0, 4.0]], &cpu());
        let found = to_vec(distances(x, y, &Batch::one([1, 2]).unwrap()));
        assert!((found[0] - 5.0).abs() < 1e-4 && (found[1] - 0.01).abs() < 1e-6, "{found:?}");
        let none = Tensor::<2>::zeros([0, 2], &cpu());
        let batch = Batch::new(&[0], &[0]).unwrap();
        assert_eq!(distances(none.clone(), none, &batch).dims(), [0, 1]);
        let bad = Tensor::<2>::from_floats([[f32::NAN]], &cpu());
        let y = Tensor::<2>::zeros([1, 1], &cpu());
        assert!(to_vec(distances(bad, y, &Batch::one([1, 1]).unwrap()))[0].is_nan());
    }
}
