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
//! With m of 5 to 80, a dozen steps do what takes Sinkhorn hundreds of sweeps; a few sweeps go before them, and suffice
//! where they converge fast. ε halves from a tenth of the costs' spread; steps are damped as Levenberg's and halved
//! until D rises (Nocedal and Wright 2006, chapter 3). Where that leads nowhere, Sinkhorn's sweeps finish from the best
//! potentials and the status says so.

use super::{
    Columns, Error, Smoothing, Status, Transport, check_epsilon, check_limits, entropic,
    simd::{mul_add, total, vectorized},
    sinkhorn::{FIRST_EPSILON, Sinkhorn},
    table::{Layout, Problem, Table},
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
    packed: Vec<f64>,
}

/// The error at which a level that only prepares the next one ends.
const LOOSE: f64 = 0.2;

/// Sweeps over which their rate is measured.
const SWEEPS: usize = 8;

/// Scalings that can still be moved into `Q`.
const USABLE: std::ops::Range<f64> = 1e-40..1e40;

/// How often a step is halved.
const HALVINGS: usize = 12;

impl Newton {
    pub(super) fn check(&self) -> Result<(), Error> {
        check_epsilon(self.epsilon)?;
        check_limits(self.tolerance, self.max_iterations)
    }

    pub(super) fn solve<T: Copy + Into<f64>>(
        &self,
        problem: &Problem<'_, T>,
        table: &mut Table,
        space: &mut entropic::Space,
    ) -> Transport {
        table.fill(problem, Layout::ByShort);
        space.begin(table);
        let mut epsilon = self.epsilon;
        let mut n_levels = 0;
        while epsilon < FIRST_EPSILON * table.spread {
            epsilon *= 2.0;
            n_levels += 1;
        }
        space.softmax(table, epsilon);
        let mut iterations = 0;
        let mut status = Status::Converged;
        loop {
            let tolerance = if n_levels == 0 { self.tolerance } else { LOOSE };
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
            if n_levels == 0 {
                break;
            }
            space.log_v.iter_mut().zip(&space.v).for_each(|(log_v, v)| *log_v = v.ln());
            space.halve(table, epsilon);
            n_levels -= 1;
            // As the first one was doubled, so that the last is what was asked for.
            epsilon /= 2.0;
        }
        let smoothing = Smoothing { epsilon: self.epsilon, columns: Columns::Fixed };
        space.finish(table, problem, smoothing, iterations, status)
    }
}

/// Steps at one ε, from the softmax there; how many, and whether they reached the tolerance.
fn level(
    table: &Table,
    space: &mut entropic::Space,
    epsilon: f64,
    tolerance: f64,
    limit: usize,
) -> (usize, bool) {
    let m = table.m;
    if sweep(table, space, tolerance) {
        return (0, true);
    }
    space.log_v.iter_mut().zip(&space.v).for_each(|(log_v, v)| *log_v = v.ln());
    let mut value = space.renew(table, epsilon) + dot(&table.b, &space.g);
    let mut error = column_error(table, space);
    for iteration in 0..limit {
        if error <= tolerance {
            return (iteration, true);
        }
        if !direction(table, space, error) {
            return (iteration, false);
        }
        space.newton.g.clear();
        space.newton.g.extend_from_slice(&space.g);
        let slope: f64 =
            (0..m).map(|j| (table.b[j] - space.sums[j]) * space.newton.step[j]).sum::<f64>()
                * epsilon;
        // Rounding in D, below which it cannot tell better from worse.
        let rounding = 1e-14 * (value.abs() + table.spread);
        let (mut moved, mut length) = (0.0, 1.0);
        let mut accepted = false;
        for _ in 0..HALVINGS {
            for (log_v, step) in space.log_v.iter_mut().zip(&space.newton.step) {
                *log_v = (length - moved) * step;
            }
            moved = length;
            let next = space.renew(table, epsilon) + dot(&table.b, &space.g);
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

/// Sweeps for as long as they promise to reach the tolerance in the time of a step, which costs about as much as `m` of
/// them; whether they reached it. Their scalings are in `v`.
fn sweep(table: &Table, space: &mut entropic::Space, tolerance: f64) -> bool {
    let mut at_start = column_error(table, space);
    if at_start <= tolerance {
        return true;
    }
    loop {
        let mut error = f64::INFINITY;
        for _ in 0..SWEEPS {
            for ((v, b), sum) in space.v.iter_mut().zip(&table.b).zip(&space.sums) {
                *v = b / sum;
            }
            space.sweep(table);
            let sums = space.v.iter().zip(&space.sums).zip(&table.b);
            error = sums.map(|((v, sum), b)| (v * sum - b).abs()).sum();
            if error <= tolerance {
                return true;
            }
        }
        if !space.v.iter().all(|v| USABLE.contains(v)) {
            space.v.fill(1.0);
            return false;
        }
        let rate = (error / at_start).powf(1.0 / SWEEPS as f64);
        let n_to_go = (tolerance / error).ln() / rate.ln();
        if !(rate < 1.0 && n_to_go <= table.m as f64) {
            return false;
        }
        at_start = error;
    }
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
    let Space { matrix, step, packed, .. } = &mut space.newton;
    matrix.clear();
    matrix.resize(m * width, 0.0);
    products(&space.q, table.stride, &table.a, m, width, packed, matrix);
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
    /// Upper triangle of `Qᵀ diag(a) Q` from `q` `[m, stride]`, in tiles of 4 x 4 that stay in registers. `packed` is
    /// room for four weighted lines, a register of each behind the other.
    pub(super) fn products(
        q: &[f64],
        stride: usize,
        a: &[f64],
        m: usize,
        width: usize,
        packed: &mut Vec<f64>,
        matrix: &mut [f64],
    ) {
        const TILE: usize = 4;
        packed.resize(TILE * stride, 0.0);
        // The last tiles read their last line again rather than beyond it.
        let line = |j: usize| q[j.min(m - 1) * stride..][..stride].as_chunks::<WIDTH>().0;
        for top in (0..m).step_by(TILE) {
            for t in 0..TILE {
                let targets = packed[t * WIDTH..].chunks_mut(TILE * WIDTH);
                for ((target, q), a) in targets.zip(line(top + t)).zip(a.as_chunks::<WIDTH>().0) {
                    for l in 0..WIDTH {
                        target[l] = q[l] * a[l];
                    }
                }
            }
            let tops = packed.as_chunks::<WIDTH>().0.as_chunks::<TILE>().0;
            for left in (top..m).step_by(TILE) {
                let [first, second, third, fourth] = std::array::from_fn(|t| line(left + t));
                let mut sums = [[[0.0; WIDTH]; TILE]; TILE];
                for ((((tops, first), second), third), fourth) in
                    tops.iter().zip(first).zip(second).zip(third).zip(fourth)
                {
                    for (row, top) in sums.iter_mut().zip(tops) {
                        for (sum, other) in row.iter_mut().zip([first, second, third, fourth]) {
                            for l in 0..WIDTH {
                                sum[l] = mul_add::<FMA>(top[l], other[l], sum[l]);
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
    /// Solves `A x = b` in place for a symmetric positive definite `A`, of which the upper triangle is read and all is
    /// destroyed (Cholesky's factors without roots, four rows at a time). False where `A` is not positive definite.
    pub(super) fn solve_symmetric(matrix: &mut [f64], width: usize, x: &mut [f64]) -> bool {
        const PANEL: usize = 4;
        let m = x.len();
        for first in (0..m).step_by(PANEL) {
            let end = m.min(first + PANEL);
            let (above, below) = matrix.split_at_mut(end * width);
            let panel = &mut above[first * width..];
            // By how much each row of the panel is taken from those below it, per value in it.
            let mut scales = [0.0; PANEL];
            for k in first..end {
                let (earlier, row) = panel.split_at_mut((k - first) * width);
                for (p, earlier) in (first..k).zip(earlier.chunks_exact(width)) {
                    let factor = earlier[k] * scales[p - first];
                    for (value, &from) in row[k..width].iter_mut().zip(&earlier[k..]) {
                        *value = mul_add::<FMA>(factor, from, *value);
                    }
                    x[k] = mul_add::<FMA>(factor, x[p], x[k]);
                }
                let pivot = row[k];
                if !(pivot > 0.0 && pivot.is_finite()) {
                    return false;
                }
                scales[k - first] = -1.0 / pivot;
            }
            if end == m {
                break;
            }
            let rows: [&[f64]; PANEL] = std::array::from_fn(|p| &panel[p * width..][..width]);
            for (i, row) in (end..m).zip(below.chunks_exact_mut(width)) {
                let factors: [f64; PANEL] = std::array::from_fn(|p| rows[p][i] * scales[p]);
                for p in 0..PANEL {
                    x[i] = mul_add::<FMA>(factors[p], x[first + p], x[i]);
                }
                // From the register that holds the diagonal on; what lies below it is not read again.
                let from = i / WIDTH * WIDTH;
                let [a, b, c, d] = rows.map(|row| row[from..].as_chunks::<WIDTH>().0);
                let targets = row[from..].as_chunks_mut::<WIDTH>().0;
                for ((((target, a), b), c), d) in targets.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                    for l in 0..WIDTH {
                        let pair = mul_add::<FMA>(factors[1], b[l], factors[0] * a[l]);
                        let other = mul_add::<FMA>(factors[3], d[l], factors[2] * c[l]);
                        target[l] += pair + other;
                    }
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{
        simd::{LANES, at_every_width},
        tests::{assert_close, numbers},
    };

    #[test]
    fn systems_of_every_size_are_solved() {
        at_every_width(check_systems);
    }

    fn check_systems() {
        for m in 1..22_usize {
            let stride = 3 * LANES;
            let width = m.next_multiple_of(8);
            let (q, a) = (numbers(m * stride, 30 + m as u64), numbers(stride, 31));
            let mut matrix = vec![0.0; m * width];
            products(&q, stride, &a, m, width, &mut vec![], &mut matrix);
            let product = |j: usize, k: usize| -> f64 {
                (0..stride).map(|i| a[i] * q[j * stride + i] * q[k * stride + i]).sum()
            };
            let whole: Vec<f64> = (0..m * m).map(|at| product(at / m, at % m)).collect();
            for j in 0..m {
                let found = &matrix[j * width + j..j * width + m];
                assert_close(found, &whole[j * m + j..(j + 1) * m], 1e-13, "products");
            }
            let expected = numbers(m, 32);
            let mut x: Vec<f64> = whole.chunks_exact(m).map(|row| dot(row, &expected)).collect();
            assert!(solve_symmetric(&mut matrix, width, &mut x));
            assert_close(&x, &expected, 1e-9, &format!("{m} unknowns"));
        }
        // Not positive definite: [[1, 2], [2, 1]].
        let mut matrix = vec![0.0; 16];
        matrix[..2].copy_from_slice(&[1.0, 2.0]);
        matrix[9] = 1.0;
        assert!(!solve_symmetric(&mut matrix, 8, &mut [1.0, 1.0]));
    }
}
