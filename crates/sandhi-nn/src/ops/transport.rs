//! Optimal transport between two packed sets of embeddings, as a loss.
//!
//! ```text
//! x [n, d] ─┐
//!           ├─ cosine_costs ─ costs [n m, 1] ── host: solve, gradient ── transport_loss [1]
//! y [m, d] ─┘
//! ```
//!
//! The costs alone leave the device; [`sandhi_align::transport`] solves the problems and differentiates the loss, and
//! the tensor carries that gradient back.

use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;
use sandhi_align::transport::{
    self, Batch, Error, Loss, Masses, Metric, Solver, add_order_prior, embedding_costs, pull_back,
    solve_batch,
};

use super::bridge::{Kernel, apply2, dense, dims2, is_fused, tensor, values};

/// One minus the cosine of every row of `x` with every row of `y` of the same problem. Where a row is zero or not
/// finite, costs are not numbers.
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
pub fn cosine_costs(x: Tensor<2>, y: Tensor<2>, batch: &Batch) -> Tensor<2> {
    let [n_rows, n_columns, _] = batch.totals();
    assert_eq!([x.dims()[0], y.dims()[0]], [n_rows, n_columns], "embeddings are the batch's lines");
    if batch.is_empty() {
        return Tensor::zeros([0, 1], (&x.device(), x.dtype()));
    }
    if is_fused(&x) && is_fused(&y) {
        apply2(x, y, CosineCosts { batch: batch.clone() })
    } else {
        composed(x, y, batch)
    }
}

fn composed(x: Tensor<2>, y: Tensor<2>, batch: &Batch) -> Tensor<2> {
    let unit = |x: Tensor<2>| x.clone() / x.square().sum_dim(1).sqrt();
    let (x, y) = (unit(x), unit(y));
    let costs = (0..batch.len()).map(|problem| {
        let of_x = x.clone().narrow_rows(batch.rows(problem));
        let of_y = y.clone().narrow_rows(batch.columns(problem));
        let [n_rows, n_columns] = batch.shape(problem);
        (of_x.matmul(of_y.transpose()).neg() + 1.0).reshape([n_rows * n_columns, 1])
    });
    Tensor::cat(costs.collect(), 0)
}

/// Consecutive rows of a matrix.
trait NarrowRows {
    fn narrow_rows(self, rows: std::ops::Range<usize>) -> Self;
}

impl NarrowRows for Tensor<2> {
    fn narrow_rows(self, rows: std::ops::Range<usize>) -> Self {
        self.narrow(0, rows.start, rows.len())
    }
}

#[derive(Debug, Clone)]
struct CosineCosts {
    batch: Batch,
}

impl Kernel<2> for CosineCosts {
    type Saved = [FlexTensor; 2];

    fn forward(&self, inputs: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let [x, y] = inputs.map(dense);
        let [_, width] = dims2(&x);
        let n_cells = self.batch.totals()[2];
        let costs = embedding_costs(Metric::Cosine, values(&x), values(&y), width, &self.batch);
        let costs = match costs {
            Ok(costs) => costs,
            Err(Error::Embedding { .. } | Error::ZeroEmbedding { .. }) => vec![f32::NAN; n_cells],
            Err(error) => panic!("{error}"),
        };
        (tensor(costs, [n_cells, 1]), [x, y])
    }

    fn backward(
        &self,
        [x, y]: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let shapes = [dims2(&x), dims2(&y)];
        let gradient = dense(gradient);
        let gradient: Vec<f64> = values(&gradient).iter().map(|&g| f64::from(g)).collect();
        let width = shapes[0][1];
        let found =
            pull_back(Metric::Cosine, values(&x), values(&y), width, &self.batch, &gradient);
        let gradients = match found {
            Ok(gradients) => gradients,
            Err(Error::Embedding { .. } | Error::ZeroEmbedding { .. }) => {
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

/// Transport problems, and what is asked of their plans.
#[derive(Debug, Clone, Copy)]
pub struct TransportProblems<'a> {
    /// Where the problems begin.
    pub batch: &'a Batch,
    /// Masses of the rows.
    pub rows: Masses<'a>,
    /// Masses of the columns.
    pub columns: Masses<'a>,
    /// How they are solved.
    pub solver: Solver,
    /// What is to be made small.
    pub loss: Loss,
    /// Weight of the prior that keeps the order ([`add_order_prior`]); 0 for none.
    pub order_weight: f64,
    /// Whether the last column of every problem is a pad, which stands nowhere in the order.
    pub pad: bool,
}

/// The loss of transport problems.
#[derive(Debug)]
pub struct TransportLoss {
    /// Sum over the problems, `[1]`; it carries the gradient with respect to the costs. Not a number where a cost is
    /// none.
    pub sum: Tensor<1>,
    /// What the transports cost without the prior on the order, summed over the problems.
    pub cost: f64,
    /// How undecided rows are, summed over the problems.
    pub sparsity: f64,
    /// Problems whose plan or gradient is not what was asked for.
    pub n_unsolved: usize,
}

/// Solves transport problems for their costs and gives the sum of their losses.
///
/// # Shapes
///
/// - `costs`: `[n_cells, 1]`, as [`cosine_costs`] gives them
///
/// # Panics
///
/// When costs, masses and batch do not fit, or a setting of the solver makes no sense.
pub fn transport_loss(costs: Tensor<2>, problems: &TransportProblems<'_>) -> TransportLoss {
    let (device, dtype) = (costs.device(), costs.dtype());
    let n_cells = costs.dims()[0];
    let data = costs.clone().detach().into_data().convert::<f32>();
    let on_host = data.as_slice::<f32>().expect("converted to f32 the line before");
    let scalar = |value: f64| {
        Tensor::<1>::from_data(TensorData::new(vec![value as f32], [1]), (&device, dtype))
    };
    let lost = match solve(on_host.to_vec(), problems) {
        Ok(lost) => lost,
        // The step is told apart by its loss and left out.
        Err(Error::Cost { .. }) => {
            let n_unsolved = problems.batch.len();
            let sum = scalar(f64::NAN);
            return TransportLoss { sum, cost: f64::NAN, sparsity: f64::NAN, n_unsolved };
        }
        Err(error) => panic!("{error}"),
    };
    let total = |of: fn(&transport::Lost) -> f64| lost.iter().map(of).sum::<f64>();
    let value = scalar(total(|lost| lost.value));
    let sum = if n_cells == 0 {
        value
    } else {
        // A function with this value whose gradient is the one computed: it is linear around here.
        let gradient: Vec<f32> =
            lost.iter().flat_map(|lost| &lost.gradient).map(|&g| g as f32).collect();
        let gradient =
            Tensor::<2>::from_data(TensorData::new(gradient, [n_cells, 1]), (&device, dtype));
        let carrier = (costs * gradient).sum_dim(0).reshape([1]);
        carrier.clone() - carrier.detach() + value
    };
    TransportLoss {
        sum,
        cost: total(|lost| lost.cost),
        sparsity: total(|lost| lost.sparsity),
        n_unsolved: lost.iter().filter(|lost| !lost.is_solved).count(),
    }
}

fn solve(
    mut costs: Vec<f32>,
    problems: &TransportProblems<'_>,
) -> Result<Vec<transport::Lost>, Error> {
    let TransportProblems { batch, rows, columns, solver, loss, order_weight, pad } = problems;
    let plain = (*order_weight != 0.0).then(|| costs.clone());
    if plain.is_some() {
        add_order_prior(&mut costs, batch, *order_weight, *pad)?;
    }
    let found = solve_batch(&costs, batch, *rows, *columns, solver)?;
    let mut lost = loss.of_batch(&found, &costs, batch)?;
    for (problem, plain) in plain.iter().flat_map(|plain| (0..batch.len()).map(move |i| (i, plain)))
    {
        let plain = &plain[batch.cells(problem)];
        let [_, n_columns] = batch.shape(problem);
        let plan = found[problem].plan.iter();
        let cost = plan.map(|(i, j, mass)| mass * f64::from(plain[i * n_columns + j]));
        lost[problem].cost = cost.sum();
    }
    Ok(lost)
}

#[cfg(test)]
mod tests {
    use sandhi_align::transport::{Exact, Monotone, Newton, Sparsity, Through};

    use super::*;
    use crate::ops::testing::{Case, cpu, random, to_vec};

    fn batch() -> Batch {
        Batch::new(&[0, 5, 6, 13], &[0, 3, 4, 9]).unwrap()
    }

    fn problems(batch: &Batch, solver: Solver) -> TransportProblems<'_> {
        let through = Through::Implicit;
        TransportProblems {
            batch,
            rows: Masses::UNIFORM,
            columns: Masses::UNIFORM,
            solver,
            loss: Loss { sparsity: Sparsity::Entropy, weight: 0.3, through },
            order_weight: 0.1,
            pad: true,
        }
    }

    fn newton() -> Solver {
        Solver::Newton(Newton { epsilon: 0.2, tolerance: 1e-10, ..Newton::default() })
    }

    #[test]
    fn fused_equals_composed() {
        let batch = batch();
        Case::new().input(random([13, 8], 1)).input(random([9, 8], 2)).check(
            |t| cosine_costs(t.rows(0), t.rows(1), &batch),
            |t| composed(t.rows(0), t.rows(1), &batch),
        );
    }

    #[test]
    fn gradient_matches_differences() {
        let batch = batch();
        Case::new().input(random([13, 8], 1)).input(random([9, 8], 2)).check_differences(|t| {
            let costs = cosine_costs(t.rows(0), t.rows(1), &batch);
            transport_loss(costs, &problems(&batch, newton())).sum
        });
    }

    #[test]
    fn equal_embeddings_in_order_cost_nothing() {
        let (x, batch) = (random([6, 8], 3).tensor(&cpu()), Batch::one([6, 6]).unwrap());
        let costs = cosine_costs(x.clone(), x, &batch);
        for solver in [Solver::Exact(Exact::default()), Solver::Monotone(Monotone::default())] {
            let found = transport_loss(costs.clone(), &problems(&batch, solver));
            assert!(to_vec(found.sum)[0].abs() < 0.02, "{}", found.cost);
            assert_eq!((found.sparsity, found.n_unsolved), (0.0, 0));
        }
    }

    #[test]
    fn what_is_no_number_has_no_loss() {
        let batch = Batch::one([2, 2]).unwrap();
        for bad in [0.0, f32::NAN] {
            let mut x = random([2, 4], 1);
            x.values[..4].fill(bad);
            let y = random([2, 4], 2).tensor(&cpu().autodiff());
            let x = x.tensor(&cpu().autodiff()).require_grad();
            let found =
                transport_loss(cosine_costs(x.clone(), y, &batch), &problems(&batch, newton()));
            assert!(to_vec(found.sum.clone().inner())[0].is_nan());
            assert_eq!(found.n_unsolved, 2 / 2);
        }
        let none = Batch::new(&[0], &[0]).unwrap();
        let empty = || Tensor::<2>::zeros([0, 4], &cpu());
        let costs = cosine_costs(empty(), empty(), &none);
        assert_eq!(to_vec(transport_loss(costs, &problems(&none, newton())).sum), [0.0]);
    }

    #[test]
    fn an_unsolved_problem_is_counted() {
        let (x, y) = (random([20, 4], 1).tensor(&cpu()), random([9, 4], 2).tensor(&cpu()));
        let batch = Batch::one([20, 9]).unwrap();
        let solver = Solver::Sinkhorn(transport::Sinkhorn {
            epsilon: 0.001,
            max_iterations: 1,
            ..transport::Sinkhorn::default()
        });
        let found = transport_loss(cosine_costs(x, y, &batch), &problems(&batch, solver));
        assert_eq!(found.n_unsolved, 1);
    }
}
