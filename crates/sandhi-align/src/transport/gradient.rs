//! Gradients with respect to the costs.
//!
//! ```text
//!                        loss                            gradient
//! envelope   the minimum with its entropy, `value`       P
//! exact      the minimum of the linear program           P, almost everywhere
//! implicit   <P, C> of a plan with entropy, or           P - (1/ε) P ∘ (C - u 1ᵀ - 1 vᵀ)
//!            any loss of the plan, by its gradient G     - (1/ε) P ∘ (G - u 1ᵀ - 1 vᵀ)
//! ```
//!
//! The envelope theorem: at a minimum, how the plan moves does not matter to first order. It does to any other loss
//! of the plan, `<P, C>` among them: there `P` alone is materially wrong. Differentiating
//! `P = a bᵀ exp((f + g - C) / ε)` under its conditions gives one linear system for `u` and `v`,
//!
//! ```text
//! [ diag(P1)  P         ] [u]   [R 1 ]
//! [ Pᵀ        diag(Pᵀ1) ] [v] = [Rᵀ1]      R = P ∘ G
//! ```
//!
//! of which the longer side is eliminated: a system of m equations, as in Newton's method (Luise et al. 2018,
//! [arXiv 1805.11897](https://arxiv.org/abs/1805.11897); Eisenberger et al. 2022,
//! [arXiv 2205.06688](https://arxiv.org/abs/2205.06688)). With a penalty τ on the columns their diagonal is
//! multiplied by `1 + ε / τ`; where columns are free their unknown is 0. The plan should have converged: the formula
//! differentiates the optimum, not the iterations.

use rayon::prelude::*;

use super::{
    Batch, Columns, Entries, Error, Transport, check_size, newton,
    simd::{LANES, lanes, mul_add, total, vectorized},
};

/// Which gradient of the transport with respect to its costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gradient {
    /// Of `value`, of any solver that minimizes it: the plan. Of `cost`, with the plan held fixed.
    Envelope,
    /// Of `cost` through a plan with entropy.
    Implicit,
    /// Of the linear program's minimum: the plan; refused for plans with entropy.
    Exact,
}

/// The gradient of a problem's value or cost with respect to its costs, `[n_rows, n_columns]`.
///
/// # Errors
///
/// [`Error::Size`] when `costs` are not the plan's; [`Error::GradientMode`] when the solver gives no such gradient;
/// [`Error::Singular`] when rounding leaves nothing of the system to solve.
pub fn cost_gradient<T: Copy + Into<f64>>(
    found: &Transport,
    costs: &[T],
    mode: Gradient,
) -> Result<Vec<f64>, Error> {
    check_size("costs", costs.len(), found.plan.n_rows * found.plan.n_columns)?;
    match mode {
        Gradient::Envelope => Ok(found.plan.to_dense()),
        Gradient::Exact if found.smoothing.is_none() => Ok(found.plan.to_dense()),
        Gradient::Exact => {
            let expected = "a plan without entropy";
            Err(Error::GradientMode { name: "exact", found: "a plan with entropy", expected })
        }
        Gradient::Implicit => {
            let upstream: Vec<f64> = costs.iter().map(|&cost| cost.into()).collect();
            let mut gradient = plan_gradient(found, &upstream)?;
            if let Entries::Dense(plan) = &found.plan.entries {
                gradient.iter_mut().zip(plan).for_each(|(value, mass)| *value += mass);
            }
            Ok(gradient)
        }
    }
}

/// [`cost_gradient`] of every problem of a batch, in parallel, packed as the costs are.
///
/// # Errors
///
/// As [`cost_gradient`].
pub fn batch_cost_gradient<T: Copy + Into<f64> + Sync>(
    found: &[Transport],
    costs: &[T],
    batch: &Batch,
    mode: Gradient,
) -> Result<Vec<f64>, Error> {
    check_size("costs", costs.len(), batch.totals()[2])?;
    check_size("transports", found.len(), batch.len())?;
    let gradients: Vec<_> = (0..batch.len())
        .into_par_iter()
        .with_max_len(1)
        .map(|problem| cost_gradient(&found[problem], &costs[batch.cells(problem)], mode))
        .collect();
    let mut packed = Vec::with_capacity(costs.len());
    for gradient in gradients {
        packed.extend(gradient?);
    }
    Ok(packed)
}

/// What a loss of the plan is to the costs: from `upstream`, the loss's gradient with respect to the plan, both
/// `[n_rows, n_columns]`.
///
/// # Errors
///
/// As [`cost_gradient`] with [`Gradient::Implicit`].
pub fn plan_gradient(found: &Transport, upstream: &[f64]) -> Result<Vec<f64>, Error> {
    let [n_rows, n_columns] = [found.plan.n_rows, found.plan.n_columns];
    check_size("the plan's gradient", upstream.len(), n_rows * n_columns)?;
    let (Some(smoothing), Entries::Dense(plan)) = (found.smoothing, &found.plan.entries) else {
        let expected = "a plan with entropy";
        return Err(Error::GradientMode { name: "implicit", found: "a plan without", expected });
    };
    // A constant changes nothing, and without it fewer digits cancel.
    let [total, weighted] = totals(plan, upstream);
    let mean = weighted / total;
    let stiff = match smoothing.columns {
        Columns::Penalized(tau) => 1.0 + smoothing.epsilon / tau,
        _ => 1.0,
    };
    let (mut row_sums, mut column_sums) = (vec![0.0; n_rows], vec![0.0; n_columns]);
    let (mut of_rows, mut of_columns) = (vec![0.0; n_rows], vec![0.0; n_columns]);
    add_up(plan, upstream, mean, &mut row_sums, &mut column_sums, &mut of_rows, &mut of_columns);
    column_sums.iter_mut().for_each(|sum| *sum *= stiff);
    let quotient = |x: f64, y: f64| if y > 0.0 { x / y } else { 0.0 };
    let (u, v) = if smoothing.columns == Columns::Free {
        let u = of_rows.iter().zip(&row_sums).map(|(&r, &sum)| quotient(r, sum)).collect();
        (u, vec![0.0; n_columns])
    } else {
        let swapped = n_columns > n_rows;
        let system = if swapped {
            System {
                steps: [1, n_columns],
                sums: [&column_sums, &row_sums],
                right: [&of_columns, &of_rows],
            }
        } else {
            System {
                steps: [n_columns, 1],
                sums: [&row_sums, &column_sums],
                right: [&of_rows, &of_columns],
            }
        };
        let [long, short] = system.solve(plan, total, stiff == 1.0).ok_or(Error::Singular)?;
        if swapped { (short, long) } else { (long, short) }
    };
    let mut gradient = vec![0.0; plan.len()];
    spread(plan, upstream, mean, &u, &v, -1.0 / smoothing.epsilon, &mut gradient);
    Ok(gradient)
}

/// The linear system of the module's documentation, longer side first.
struct System<'a> {
    /// Steps in the plan from one line to the next.
    steps: [usize; 2],
    /// Diagonals.
    sums: [&'a [f64]; 2],
    /// Right-hand sides.
    right: [&'a [f64]; 2],
}

impl System<'_> {
    fn solve(&self, plan: &[f64], total: f64, is_singular: bool) -> Option<[Vec<f64>; 2]> {
        let ([a, b], [right_a, right_b]) = (self.sums, self.right);
        let [n, m] = [a.len(), b.len()];
        let stride = n.next_multiple_of(LANES);
        let width = m.next_multiple_of(8);
        // Rows of Q sum to 1; padding and lines without mass weigh nothing.
        let mut q = vec![0.0; m * stride];
        let mut weights = vec![0.0; stride];
        for from in (0..n).step_by(LANES) {
            let lines = from..n.min(from + LANES);
            for i in lines.clone().filter(|&i| a[i] > 0.0) {
                weights[i] = a[i] / total;
            }
            for j in 0..m {
                for i in lines.clone().filter(|&i| a[i] > 0.0) {
                    q[j * stride + i] = plan[i * self.steps[0] + j * self.steps[1]] / a[i];
                }
            }
        }
        let mut products = vec![0.0; m * width];
        newton::products(&q, stride, &weights, m, width, &mut vec![], &mut products);
        let mut padded = right_a.to_vec();
        padded.resize(stride, 0.0);
        let mut right: Vec<f64> = (0..m)
            .map(|j| (right_b[j] - dot(&q[j * stride..][..stride], &padded)) / total)
            .collect();
        // Along 1 the balanced system is singular, and any curvature there does. A plan that falls apart into blocks
        // is singular in more directions up to rounding, in which a small ridge keeps the solution small.
        let along = if is_singular { 1.0 / (m * m) as f64 } else { 0.0 };
        let known = right.clone();
        for ridge in [0.0, 1e-14, 1e-12] {
            let mut matrix = products.clone();
            for j in 0..m {
                let row = &mut matrix[j * width..j * width + m];
                row.iter_mut().for_each(|value| *value = along - *value);
                row[j] += if b[j] > 0.0 { b[j] / total * (1.0 + ridge) } else { 1.0 };
            }
            right.copy_from_slice(&known);
            if newton::solve_symmetric(&mut matrix, width, &mut right)
                && right.iter().all(|value| value.is_finite())
            {
                // u = R1 / a - Q v, where the lines have mass.
                let mut long: Vec<f64> =
                    (0..n).map(|i| if a[i] > 0.0 { right_a[i] / a[i] } else { 0.0 }).collect();
                for (q, v) in q.chunks_exact(stride).zip(&right) {
                    long.iter_mut().zip(q).for_each(|(value, q)| *value -= q * v);
                }
                return Some([long, right]);
            }
        }
        None
    }
}

vectorized! {
    /// Sums of the plan, and of the plan times `upstream`.
    fn totals(plan: &[f64], upstream: &[f64]) -> [f64; 2] {
        let _ = WIDTH;
        let (mut sums, mut weighted) = ([0.0; LANES], [0.0; LANES]);
        let (blocks, rest) = plan.as_chunks::<LANES>();
        let (of_blocks, of_rest) = upstream.as_chunks::<LANES>();
        for (p, g) in blocks.iter().zip(of_blocks) {
            for l in 0..LANES {
                sums[l] += p[l];
                weighted[l] = mul_add::<FMA>(p[l], g[l], weighted[l]);
            }
        }
        for (l, (p, g)) in rest.iter().zip(of_rest).enumerate() {
            sums[l] += p;
            weighted[l] = mul_add::<FMA>(*p, *g, weighted[l]);
        }
        [total(sums), total(weighted)]
    }
}

vectorized! {
    /// Sums of the rows and columns of the plan, and of the plan times what `upstream` has above its mean.
    fn add_up(
        plan: &[f64],
        upstream: &[f64],
        mean: f64,
        row_sums: &mut [f64],
        column_sums: &mut [f64],
        of_rows: &mut [f64],
        of_columns: &mut [f64],
    ) {
        let _ = (WIDTH, FMA);
        let m = column_sums.len();
        let rows = plan.chunks_exact(m).zip(upstream.chunks_exact(m));
        for (((plan, upstream), row_sum), of_row) in rows.zip(row_sums).zip(of_rows) {
            let (mut sums, mut values) = ([0.0; LANES], [0.0; LANES]);
            let lines = column_sums.chunks_mut(LANES).zip(of_columns.chunks_mut(LANES));
            let blocks = plan.chunks(LANES).zip(upstream.chunks(LANES)).zip(lines);
            for ((plan, upstream), (column_sums, of_columns)) in blocks {
                let cells = plan.iter().zip(upstream).zip(column_sums).zip(of_columns);
                for (((((p, g), column_sum), of_column), sum), value) in
                    cells.zip(&mut sums).zip(&mut values)
                {
                    let r = p * (g - mean);
                    *sum += p;
                    *value += r;
                    *column_sum += p;
                    *of_column += r;
                }
            }
            [*row_sum, *of_row] = [total(sums), total(values)];
        }
    }
}

vectorized! {
    /// `scale P ∘ (G - mean - u 1ᵀ - 1 vᵀ)`.
    fn spread(
        plan: &[f64],
        upstream: &[f64],
        mean: f64,
        u: &[f64],
        v: &[f64],
        scale: f64,
        gradient: &mut [f64],
    ) {
        let _ = (WIDTH, FMA);
        let m = v.len();
        let rows = plan.chunks_exact(m).zip(upstream.chunks_exact(m)).zip(u);
        for (((plan, upstream), u), gradient) in rows.zip(gradient.chunks_exact_mut(m)) {
            let given = plan.iter().zip(upstream).zip(v);
            for (value, ((p, g), v)) in gradient.iter_mut().zip(given) {
                *value = scale * p * (g - mean - u - v);
            }
        }
    }
}

vectorized! {
    /// The sum of products of two padded lines.
    fn dot(x: &[f64], y: &[f64]) -> f64 {
        let _ = WIDTH;
        let mut sum = [0.0; LANES];
        for (x, y) in x.chunks_exact(LANES).zip(y.chunks_exact(LANES)) {
            let (x, y) = (lanes::<LANES>(x), lanes::<LANES>(y));
            for l in 0..LANES {
                sum[l] = mul_add::<FMA>(x[l], y[l], sum[l]);
            }
        }
        total(sum)
    }
}
