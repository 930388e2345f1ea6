//! Newton's method on the potentials of the shorter side.
//!
//! ```text
//! unknown   g, one a short line; f follows in closed form (softmax)
//! maximize  D(g) = sum_i a_i f_i(g) + sum_j b_j g_j                concave, smooth
//! slope     b - s                    s_j = sum_i a_i Q_ij          columns' sums
//! curvature (diag(s) - Qᵀ diag(a) Q) / ε                           m x m, singular along 1
//! ```
//!
//! The semi-dual and its derivatives: Cuturi and Peyré 2018 ([arXiv 1811.05527](https://arxiv.org/abs/1811.05527)).
//! With m of 5 to 80, a step costs little more than its exponentials, and a dozen steps do what takes Sinkhorn
//! hundreds of sweeps. ε halves from a tenth of the costs' spread; steps are damped as Levenberg's and halved until D
//! rises (Nocedal and Wright 2006, chapter 3). Where that leads nowhere, Sinkhorn's sweeps finish from the best
//! potentials and the status says so.

use super::{
    Columns, Error, Smoothing, Status, Transport, check_epsilon, check_limits, entropic,
    masses::Line,
    simd::{lanes, mul_add, total, vectorized},
    sinkhorn::{FIRST_EPSILON, Sinkhorn},
    table::{Layout, Table},
};

/// Settings of Newton's method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Newton {
    /// Weight of the entropy, in units of the cost. Smaller: a sharper plan.
    pub epsilon: f64,
    /// The `marginal_error` to stop at.
    pub tolerance: f64,
    /// Fall back after so many steps over all levels.
    pub max_iterations: usize,
}

impl Default for Newton {
    fn default() -> Self {
        Self { epsilon: 0.05, tolerance: 1e-6, max_iterations: 100 }
    }
}

/// What a thread keeps for the next problem.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// `[m, m rounded up]`, upper triangle.
    pub matrix: Vec<f64>,
    pub step: Vec<f64>,
    g: Vec<f64>,
}

/// The error at which a level that only prepares the next one ends.
const LOOSE: f64 = 0.2;

/// Sweeps before the first step of a level: a sweep costs a twentieth of a step.
const SWEEPS: usize = 8;

/// How often a step is halved.
const HALVINGS: usize = 12;

impl Newton {
    pub(super) fn check(&self) -> Result<(), Error> {
        check_epsilon(self.epsilon)?;
        check_limits(self.tolerance, self.max_iterations)
    }

    pub(super) fn solve<T: Copy + Into<f64>>(
        &self,
        costs: &[T],
        rows: &Line,
        columns: &Line,
        range: [f64; 2],
        table: &mut Table,
        space: &mut entropic::Space,
    ) -> Transport {
        table.fill(costs, rows, columns, range, Layout::ByShort);
        space.begin(table);
        let mut epsilon = self.epsilon.max(FIRST_EPSILON * table.spread);
        let mut iterations = 0;
        let mut status = Status::Converged;
        loop {
            let is_last = epsilon <= self.epsilon;
            let tolerance = if is_last { self.tolerance } else { LOOSE };
            let limit = self.max_iterations.saturating_sub(iterations);
            let (steps, converged) = level(table, space, epsilon, tolerance, limit);
            iterations += steps;
            if !converged {
                let sweeps = Sinkhorn {
                    epsilon: self.epsilon,
                    tolerance: self.tolerance,
                    ..Sinkhorn::default()
                };
                let (more, converged) = sweeps.run(table, space, Columns::Fixed);
                iterations += more;
                status = if converged { Status::FellBack } else { Status::NotConverged };
                break;
            }
            if is_last {
                break;
            }
            space.absorb(epsilon);
            epsilon = (epsilon / 2.0).max(self.epsilon);
        }
        let smoothing = Smoothing { epsilon: self.epsilon, columns: Columns::Fixed };
        let n_columns = columns.shares.len();
        let lookup = |i: usize, j: usize| costs[i * n_columns + j].into();
        space.finish(table, rows, columns, smoothing, lookup, iterations, status)
    }
}

/// Steps at one ε; how many, and whether they reached the tolerance.
fn level(
    table: &Table,
    space: &mut entropic::Space,
    epsilon: f64,
    tolerance: f64,
    limit: usize,
) -> (usize, bool) {
    let m = table.m;
    space.softmax(table, epsilon);
    let error = column_error(table, space);
    if error <= tolerance {
        return (0, true);
    }
    for _ in 0..SWEEPS {
        for j in 0..m {
            space.v[j] *= table.b[j] / (space.v[j] * space.sums[j]);
        }
        space.sweep(table);
    }
    let scaled = (0..m).map(|j| (space.v[j] * space.sums[j] - table.b[j]).abs()).sum::<f64>();
    let is_usable = space.v.iter().all(|v| (1e-100..1e100).contains(v));
    if is_usable && scaled < error {
        if scaled <= tolerance {
            return (0, true);
        }
        space.absorb(epsilon);
    }
    let mut value = space.softmax(table, epsilon) + dot(&table.b, &space.g);
    let mut error = column_error(table, space);
    for iteration in 0..limit {
        if error <= tolerance {
            return (iteration, true);
        }
        if !direction(table, space, error) {
            return (iteration, false);
        }
        let Space { step, g, .. } = &mut space.newton;
        g.clear();
        g.extend_from_slice(&space.g);
        let slope: f64 =
            (0..m).map(|j| (table.b[j] - space.sums[j]) * step[j]).sum::<f64>() * epsilon;
        // Rounding in D, below which it cannot tell better from worse.
        let rounding = 1e-14 * (value.abs() + table.spread);
        let mut length = 1.0;
        let mut accepted = false;
        for _ in 0..HALVINGS {
            for j in 0..m {
                space.g[j] = space.newton.g[j] + length * epsilon * space.newton.step[j];
            }
            let next = space.softmax(table, epsilon) + dot(&table.b, &space.g);
            let next_error = column_error(table, space);
            let rises = next >= value + 1e-4 * length * slope;
            if next.is_finite() && (rises || (next >= value - rounding && next_error < error)) {
                (value, error, accepted) = (next, next_error, true);
                break;
            }
            length /= 2.0;
        }
        if !accepted {
            space.g.copy_from_slice(&space.newton.g);
            space.softmax(table, epsilon);
            return (iteration + 1, false);
        }
    }
    (limit, error <= tolerance)
}

fn column_error(table: &Table, space: &entropic::Space) -> f64 {
    space.sums.iter().zip(&table.b).map(|(sum, b)| (sum - b).abs()).sum()
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// Newton's step in units of ε, damped by the error; whether there is one.
fn direction(table: &Table, space: &mut entropic::Space, error: f64) -> bool {
    let m = table.m;
    let width = m.next_multiple_of(8);
    let Space { matrix, step, .. } = &mut space.newton;
    matrix.clear();
    matrix.resize(m * width, 0.0);
    products(&space.q, table.stride, &table.a, m, width, matrix);
    let damping = 0.01 * error.min(1.0);
    let mean = 1.0 / m as f64;
    for j in 0..m {
        let row = &mut matrix[j * width..j * width + m];
        row[..m].iter_mut().for_each(|value| *value = -*value);
        row[j] += space.sums[j] + damping * (space.sums[j] + table.b[j]);
        // Along 1 nothing changes: any curvature there gives the step without a component along it.
        row[j..].iter_mut().for_each(|value| *value += mean * mean);
    }
    step.clear();
    step.extend((0..m).map(|j| table.b[j] - space.sums[j]));
    solve_symmetric(matrix, width, step) && step.iter().all(|value| value.is_finite())
}

vectorized! {
    /// Upper triangle of `Qᵀ diag(a) Q` from `q` `[m, stride]`, in tiles of 4 x 4 that stay in registers.
    pub(super) fn products(
        q: &[f64],
        stride: usize,
        a: &[f64],
        m: usize,
        width: usize,
        matrix: &mut [f64],
    ) {
        const TILE: usize = 4;
        for top in (0..m).step_by(TILE) {
            for left in (top..m).step_by(TILE) {
                // The last tiles read their last line again rather than beyond it.
                let line = |from: usize, t: usize| (from + t).min(m - 1) * stride;
                let tops: [usize; TILE] = std::array::from_fn(|t| line(top, t));
                let lefts: [usize; TILE] = std::array::from_fn(|t| line(left, t));
                let mut sums = [[[0.0; WIDTH]; TILE]; TILE];
                for at in (0..stride).step_by(WIDTH) {
                    let a = lanes::<WIDTH>(&a[at..]);
                    let right: [&[f64; WIDTH]; TILE] =
                        std::array::from_fn(|t| lanes::<WIDTH>(&q[lefts[t] + at..]));
                    for (row, &from) in sums.iter_mut().zip(&tops) {
                        let left = lanes::<WIDTH>(&q[from + at..]);
                        let mut weighted = [0.0; WIDTH];
                        for l in 0..WIDTH {
                            weighted[l] = left[l] * a[l];
                        }
                        for (sum, right) in row.iter_mut().zip(right) {
                            for l in 0..WIDTH {
                                sum[l] = mul_add::<FMA>(weighted[l], right[l], sum[l]);
                            }
                        }
                    }
                }
                for (j, row) in (top..m).zip(sums) {
                    for (k, sum) in (left..m).zip(row) {
                        matrix[j * width + k] = total(sum);
                    }
                }
            }
        }
    }
}

vectorized! {
    /// Solves `A x = b` in place for a symmetric positive definite `A`, of which the upper triangle is read and
    /// destroyed (Cholesky's factors without roots). False where `A` is not positive definite.
    pub(super) fn solve_symmetric(matrix: &mut [f64], width: usize, x: &mut [f64]) -> bool {
        let _ = WIDTH;
        let m = x.len();
        for k in 0..m {
            let (above, below) = matrix.split_at_mut((k + 1) * width);
            let pivot_row = &above[k * width..k * width + m];
            let pivot = pivot_row[k];
            if !(pivot > 0.0 && pivot.is_finite()) {
                return false;
            }
            for (i, row) in (k + 1..m).zip(below.chunks_exact_mut(width)) {
                let factor = -pivot_row[i] / pivot;
                for (value, &from) in row[i..m].iter_mut().zip(&pivot_row[i..]) {
                    *value = mul_add::<FMA>(factor, from, *value);
                }
                x[i] = mul_add::<FMA>(factor, x[k], x[i]);
            }
        }
        for k in (0..m).rev() {
            let row = &matrix[k * width..k * width + m];
            let known: f64 = row[k + 1..].iter().zip(&x[k + 1..]).map(|(a, x)| a * x).sum();
            x[k] = (x[k] - known) / row[k];
        }
        true
    }
}
