//! What the solvers with entropy share: potentials, weights of rows, and the way back to a plan.
//!
//! ```text
//! P_ij = a_i b_j exp((f_i + g_j - C_ij) / ε)          a, b: shares of long and short lines
//!
//! softmax:  g ──> f_i = -ε ln sum_j b_j exp((g_j - C_ij) / ε),  Q_ij = P_ij / a_i      rows of Q sum to 1
//! sweeps:   P_ij = a_i u_i Q_ij v_j, where f and g move by ε ln u and ε ln v            no exponentials
//! renewal:  Q_ij v_j, rows brought to 1 again: the softmax of g + ε ln v                no exponentials
//! halving:  Q_ij² / b_j, rows brought to 1 again: the softmax at half the ε             no exponentials
//! ```
//!
//! Exponentials cost ten times what a sweep does, so they are taken once and then again only where `Q` could have lost
//! digits that matter.
//!
//! The table has one row a short line, so that all inner loops run along the many lines of the long side.

use super::{
    Columns, Duals, Entries, Plan, Smoothing, Status, Transport,
    simd::{LANES, exp, lanes, lanes_mut, ln, mul_add, total, vectorized},
    table::{Problem, Table},
};

/// What a thread keeps for the next problem.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// `[m, stride]`: shares of every long line among the short ones.
    pub q: Vec<f64>,
    /// Potentials at which `q` was computed.
    pub f: Vec<f64>,
    pub g: Vec<f64>,
    /// Scalings since then, and logarithms of `u` where they are kept.
    pub u: Vec<f64>,
    pub log_u: Vec<f64>,
    pub v: Vec<f64>,
    /// Sums over long lines, one a short line: of `a u Q`.
    pub sums: Vec<f64>,
    /// `g / ε + ln b`.
    pub height: Vec<f64>,
    /// Running sums in lanes.
    pub partial: Vec<f64>,
    /// By what `g / ε` is to move, one a short line.
    pub log_v: Vec<f64>,
    factors: Vec<f64>,
    /// How far `g / ε` has moved since the exponentials, and how often `ε` was halved since.
    drift: f64,
    n_halvings: usize,
    pub newton: super::newton::Space,
}

/// A share of `Q` that is lost is below `e^-700`, or below `e^-370` before a halving; moving by this much it stays
/// nothing.
const MOST_DRIFT: f64 = 100.0;

/// Halvings double the relative error of `Q`.
const MOST_HALVINGS: usize = 3;

/// A short line with less than this of the mass could vanish from `Q`.
const LEAST_SUM: f64 = 1e-60;

impl Space {
    pub(super) fn begin(&mut self, table: &Table) {
        let [m, stride] = [table.m, table.stride];
        for (list, n, value) in [
            (&mut self.f, stride, 0.0),
            (&mut self.g, m, 0.0),
            (&mut self.u, stride, 1.0),
            (&mut self.log_u, stride, 0.0),
            (&mut self.v, m, 1.0),
            (&mut self.sums, m, 0.0),
            (&mut self.height, m, 0.0),
            (&mut self.partial, m * LANES, 0.0),
            (&mut self.log_v, m, 0.0),
            (&mut self.factors, m, 1.0),
        ] {
            list.clear();
            list.resize(n, value);
        }
        // Written by every softmax before it is read.
        self.q.resize(m * stride, 0.0);
    }

    /// The best `f` for `g`, the shares `Q` and their sums; scalings begin again at 1. Returns `sum_i a_i f_i`.
    pub(super) fn softmax(&mut self, table: &Table, epsilon: f64) -> f64 {
        for ((height, g), b) in self.height.iter_mut().zip(&self.g).zip(&table.b) {
            *height = g / epsilon + b.ln();
        }
        self.u.fill(1.0);
        self.log_u.fill(0.0);
        self.v.fill(1.0);
        self.partial.fill(0.0);
        let value = softmax(
            &table.costs,
            table.stride,
            &table.a,
            &self.height,
            epsilon,
            &mut self.q,
            &mut self.f,
            &mut self.partial,
        );
        self.add_up();
        (self.drift, self.n_halvings) = (0.0, 0);
        value
    }

    /// Moves `g` by `ε log_v`; `Q`, `f`, sums and what is returned become those of [`Space::softmax`] there. Scalings
    /// that were found by sweeps belong into `log_v` or are dropped. `Q` must be a softmax at `epsilon`.
    pub(super) fn renew(&mut self, table: &Table, epsilon: f64) -> f64 {
        self.renew_at(table, epsilon, false)
    }

    /// As [`Space::renew`], and from `epsilon` to half of it.
    pub(super) fn halve(&mut self, table: &Table, epsilon: f64) -> f64 {
        self.renew_at(table, epsilon, true)
    }

    fn renew_at(&mut self, table: &Table, epsilon: f64, is_halved: bool) -> f64 {
        let mut most = 0.0;
        for (g, &log_v) in self.g.iter_mut().zip(&self.log_v) {
            *g += epsilon * log_v;
            // Not `max`, which would lose NaN.
            most = if log_v.abs() <= most { most } else { log_v.abs() };
        }
        self.drift += most;
        let next = if is_halved { epsilon / 2.0 } else { epsilon };
        if is_halved {
            self.drift *= 2.0;
            self.n_halvings += 1;
        }
        let is_safe = self.drift <= MOST_DRIFT
            && self.n_halvings <= MOST_HALVINGS
            && self.sums.iter().all(|&sum| sum >= LEAST_SUM);
        if !is_safe {
            return self.softmax(table, next);
        }
        for ((factor, &log_v), &b) in self.factors.iter_mut().zip(&self.log_v).zip(&table.b) {
            *factor = if is_halved { (2.0 * log_v).exp() / b } else { log_v.exp() };
        }
        self.u.fill(1.0);
        self.log_u.fill(0.0);
        self.v.fill(1.0);
        self.partial.fill(0.0);
        let value = renew(
            &mut self.q,
            table.stride,
            &table.a,
            &self.factors,
            is_halved,
            next,
            &mut self.f,
            &mut self.partial,
        );
        self.add_up();
        value
    }

    /// One sweep over the long side: `u` for the present `v`, and the sums over it.
    pub(super) fn sweep(&mut self, table: &Table) {
        self.partial.fill(0.0);
        sweep(&self.q, table.stride, &table.a, &self.v, &mut self.u, &mut self.partial);
        self.add_up();
    }

    /// As [`Space::sweep`] with `ln u = keep ln u - power ln y - pull f`; returns how far the rows then are from `a`.
    pub(super) fn sweep_with(&mut self, table: &Table, keep: f64, power: f64, pull: f64) -> f64 {
        self.partial.fill(0.0);
        let error = sweep_with(
            &self.q,
            table.stride,
            &table.a,
            &self.v,
            &self.f,
            [keep, power, pull],
            &mut self.u,
            &mut self.log_u,
            &mut self.partial,
        );
        self.add_up();
        error
    }

    fn add_up(&mut self) {
        for (sum, partial) in self.sums.iter_mut().zip(self.partial.chunks_exact(LANES)) {
            *sum = total(*lanes::<LANES>(partial));
        }
    }

    /// Moves the scalings of the short side into `g`; `f` and `Q` must then be computed again.
    pub(super) fn absorb(&mut self, epsilon: f64) {
        for (g, v) in self.g.iter_mut().zip(&mut self.v) {
            *g += epsilon * v.ln();
            *v = 1.0;
        }
    }

    /// The best `g` for the `f` of the last softmax, by logarithms of sums that cannot vanish. For columns that `Q`
    /// has lost below the smallest number.
    pub(super) fn rescue(&mut self, table: &Table, epsilon: f64) {
        for (j, g) in self.g.iter_mut().enumerate() {
            let costs = &table.costs[j * table.stride..][..table.n];
            let pairs = || self.f.iter().zip(costs).map(|(f, cost)| (f - cost) / epsilon);
            let top = pairs().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = pairs().zip(&table.a).map(|(x, a)| a * (x - top).exp()).sum();
            *g = -epsilon * (top + sum.ln());
        }
    }

    /// The plan `a u Q v` and its potentials, in the caller's order.
    pub(super) fn finish<T: Copy + Into<f64>>(
        &mut self,
        table: &Table,
        problem: &Problem<'_, T>,
        smoothing: Smoothing,
        iterations: usize,
        status: Status,
    ) -> Transport {
        let [n_rows, n_columns] = problem.shape();
        let epsilon = smoothing.epsilon;
        let mass = problem.rows.total;
        for ((u, log_u), a) in self.u.iter_mut().zip(&mut self.log_u).zip(&table.a) {
            *log_u = epsilon * u.ln();
            *u *= a * mass;
        }
        let stride = table.stride;
        let mut long = vec![0.0; stride];
        self.sums.copy_from_slice(&self.v);
        let mut cost = spend(&mut self.q, &table.costs, stride, &self.u, &mut self.sums, &mut long);
        let short = &self.sums;
        // A block of lines at a time, so that both matrices are walked through whole cache lines.
        let mut values = vec![0.0; n_rows * n_columns];
        let [long_step, short_step] = if table.swapped { [1, n_columns] } else { [n_columns, 1] };
        for (block, lines) in table.long.chunks(LANES).enumerate() {
            for (q, &line) in self.q.chunks_exact(stride).zip(&table.short) {
                let to = line as usize * short_step;
                for (&p, &line) in q[block * LANES..].iter().zip(lines) {
                    values[to + line as usize * long_step] = p;
                }
            }
        }
        for (g, v) in self.g.iter_mut().zip(&self.v) {
            *g += epsilon * v.ln();
        }
        for (f, moved) in self.f.iter_mut().zip(&self.log_u) {
            *f += moved;
        }
        let [f, g] = [&self.f[..table.n], &self.g[..]];
        let long = &long[..table.n];
        let moved: f64 = short.iter().sum();
        cost += table.lowest * moved;
        // sum P (f + g - C) / ε is the logarithm in the divergence; costs cancel.
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let mut value =
            dot(f, long) + dot(g, short) + (table.lowest - epsilon) * moved + epsilon * mass;
        // What the sums should be, on either side.
        let columns_of = |is_long: bool| is_long == table.swapped;
        let mut error = 0.0;
        for (is_long, shares, sums, potentials) in
            [(true, &table.a[..table.n], long, f), (false, &table.b[..], &short[..], g)]
        {
            // The lowest cost belongs to f.
            for ((share, sum), &potential) in shares.iter().zip(sums).zip(potentials) {
                let given = share * mass;
                let wanted = match smoothing.columns {
                    Columns::Penalized(tau) if columns_of(is_long) => {
                        let ratio = -potential / tau;
                        // τ KL(s | b), with s = b exp(-g / τ) where it is solved.
                        let ln = if *sum > 0.0 { (sum / given).ln() } else { 0.0 };
                        value += tau * (sum * ln - sum + given);
                        given * ratio.exp()
                    }
                    Columns::Free if columns_of(is_long) => *sum,
                    _ => given,
                };
                error += (sum - wanted).abs() / mass;
            }
        }
        let status = match status {
            _ if !(error.is_finite() && value.is_finite() && cost.is_finite()) => {
                Status::NotConverged
            }
            status => status,
        };
        let duals = self.duals(table, problem, smoothing);
        Transport {
            value,
            cost,
            plan: Plan { n_rows, n_columns, entries: Entries::Dense(values) },
            duals: Some(duals),
            marginal_error: error,
            iterations,
            status,
            smoothing: Some(smoothing),
        }
    }

    /// Potentials of all lines; those without mass get what they would have with a little.
    fn duals<T: Copy + Into<f64>>(
        &self,
        table: &Table,
        problem: &Problem<'_, T>,
        smoothing: Smoothing,
    ) -> Duals {
        let Problem { rows, columns, .. } = problem;
        let [n_rows, n_columns] = problem.shape();
        let epsilon = smoothing.epsilon;
        let (mut f, mut g) = (vec![f64::NAN; n_rows], vec![f64::NAN; n_columns]);
        let (long, short) = if table.swapped { (&mut g, &mut f) } else { (&mut f, &mut g) };
        for (&line, &value) in table.long.iter().zip(&self.f) {
            long[line as usize] = value;
        }
        for (&line, &value) in table.short.iter().zip(&self.g) {
            short[line as usize] = value;
        }
        f.iter_mut().for_each(|f| *f += table.lowest);
        if table.n + table.m < n_rows + n_columns {
            for row in (0..n_rows).filter(|&row| rows.shares[row] == 0.0) {
                let carried = (0..n_columns).filter(|&j| columns.shares[j] > 0.0);
                f[row] = soft_minimum(
                    carried.map(|j| (columns.shares[j], problem.cost(row, j) - g[j])),
                    epsilon,
                );
            }
            let power = match smoothing.columns {
                Columns::Fixed => 1.0,
                Columns::Penalized(tau) => tau / (tau + epsilon),
                Columns::Free => 0.0,
            };
            for column in (0..n_columns).filter(|&j| columns.shares[j] == 0.0) {
                let carried = (0..n_rows).filter(|&i| rows.shares[i] > 0.0);
                g[column] = power
                    * soft_minimum(
                        carried.map(|i| (rows.shares[i], problem.cost(i, column) - f[i])),
                        epsilon,
                    );
            }
        }
        Duals { f, g }
    }
}

/// `-ε ln sum_k w_k exp(-x_k / ε)`.
pub(super) fn soft_minimum(pairs: impl Iterator<Item = (f64, f64)> + Clone, epsilon: f64) -> f64 {
    let low = pairs.clone().fold(f64::INFINITY, |low, (_, x)| low.min(x));
    let sum: f64 = pairs.map(|(w, x)| w * ((low - x) / epsilon).exp()).sum();
    low - epsilon * sum.ln()
}

vectorized! {
    /// See [`Space::softmax`].
    fn softmax(
        costs: &[f64],
        stride: usize,
        a: &[f64],
        height: &[f64],
        epsilon: f64,
        q: &mut [f64],
        f: &mut [f64],
        partial: &mut [f64],
    ) -> f64 {
        let _ = WIDTH;
        let scale = -1.0 / epsilon;
        let mut value = [0.0; LANES];
        for at in (0..stride).step_by(LANES) {
            let mut top = [f64::NEG_INFINITY; LANES];
            for (row, &height) in costs.chunks_exact(stride).zip(height) {
                let cost = lanes::<LANES>(&row[at..]);
                for l in 0..LANES {
                    let x = mul_add::<FMA>(cost[l], scale, height);
                    top[l] = if x > top[l] { x } else { top[l] };
                }
            }
            let mut sum = [0.0; LANES];
            for ((row, q), &height) in
                costs.chunks_exact(stride).zip(q.chunks_exact_mut(stride)).zip(height)
            {
                let cost = lanes::<LANES>(&row[at..]);
                let q = lanes_mut::<LANES>(&mut q[at..]);
                for l in 0..LANES {
                    let e = exp::<FMA>(mul_add::<FMA>(cost[l], scale, height) - top[l]);
                    q[l] = e;
                    sum[l] += e;
                }
            }
            let a = lanes::<LANES>(&a[at..]);
            let mut weight = [0.0; LANES];
            let mut inverse = [0.0; LANES];
            let f = lanes_mut::<LANES>(&mut f[at..]);
            for l in 0..LANES {
                inverse[l] = 1.0 / sum[l];
                weight[l] = a[l];
                f[l] = -epsilon * (top[l] + ln::<FMA>(sum[l]));
                value[l] = mul_add::<FMA>(a[l], f[l], value[l]);
            }
            for (q, partial) in q.chunks_exact_mut(stride).zip(partial.chunks_exact_mut(LANES)) {
                let q = lanes_mut::<LANES>(&mut q[at..]);
                let partial = lanes_mut::<LANES>(partial);
                for l in 0..LANES {
                    q[l] *= inverse[l];
                    partial[l] = mul_add::<FMA>(q[l], weight[l], partial[l]);
                }
            }
        }
        total(value)
    }
}

vectorized! {
    /// See [`Space::renew`] and [`Space::halve`].
    fn renew(
        q: &mut [f64],
        stride: usize,
        a: &[f64],
        factors: &[f64],
        is_halved: bool,
        epsilon: f64,
        f: &mut [f64],
        partial: &mut [f64],
    ) -> f64 {
        let _ = WIDTH;
        let mut value = [0.0; LANES];
        for at in (0..stride).step_by(LANES) {
            let y = if is_halved {
                let mut y = [0.0; LANES];
                for (q, &factor) in q.chunks_exact_mut(stride).zip(factors) {
                    let q = lanes_mut::<LANES>(&mut q[at..]);
                    for l in 0..LANES {
                        q[l] *= q[l];
                        y[l] = mul_add::<FMA>(q[l], factor, y[l]);
                    }
                }
                y
            } else {
                scaled_rows::<FMA>(q, stride, at, factors)
            };
            let a = lanes::<LANES>(&a[at..]);
            let f = lanes_mut::<LANES>(&mut f[at..]);
            let mut inverse = [0.0; LANES];
            let mut weight = [0.0; LANES];
            for l in 0..LANES {
                inverse[l] = 1.0 / y[l];
                weight[l] = a[l];
                f[l] -= epsilon * ln::<FMA>(y[l]);
                value[l] = mul_add::<FMA>(a[l], f[l], value[l]);
            }
            for ((q, &factor), partial) in
                q.chunks_exact_mut(stride).zip(factors).zip(partial.chunks_exact_mut(LANES))
            {
                let q = lanes_mut::<LANES>(&mut q[at..]);
                let partial = lanes_mut::<LANES>(partial);
                for l in 0..LANES {
                    q[l] *= inverse[l] * factor;
                    partial[l] = mul_add::<FMA>(q[l], weight[l], partial[l]);
                }
            }
        }
        total(value)
    }
}

vectorized! {
    /// `Q` becomes the plan `u Q v`; `v` and `long` become its sums. Returns its cost.
    fn spend(
        q: &mut [f64],
        costs: &[f64],
        stride: usize,
        u: &[f64],
        v: &mut [f64],
        long: &mut [f64],
    ) -> f64 {
        let _ = WIDTH;
        let mut cost = [0.0; LANES];
        for ((q, costs), v) in
            q.chunks_exact_mut(stride).zip(costs.chunks_exact(stride)).zip(v.iter_mut())
        {
            let mut sum = [0.0; LANES];
            for at in (0..stride).step_by(LANES) {
                let q = lanes_mut::<LANES>(&mut q[at..]);
                let long = lanes_mut::<LANES>(&mut long[at..]);
                let (u, costs) = (lanes::<LANES>(&u[at..]), lanes::<LANES>(&costs[at..]));
                for l in 0..LANES {
                    let p = u[l] * q[l] * *v;
                    q[l] = p;
                    long[l] += p;
                    sum[l] += p;
                    cost[l] = mul_add::<FMA>(p, costs[l], cost[l]);
                }
            }
            *v = total(sum);
        }
        total(cost)
    }
}

vectorized! {
    /// See [`Space::sweep`].
    fn sweep(q: &[f64], stride: usize, a: &[f64], v: &[f64], u: &mut [f64], partial: &mut [f64]) {
        let _ = WIDTH;
        for at in (0..stride).step_by(LANES) {
            let y = scaled_rows::<FMA>(q, stride, at, v);
            let a = lanes::<LANES>(&a[at..]);
            let u = lanes_mut::<LANES>(&mut u[at..]);
            let mut weight = [0.0; LANES];
            for l in 0..LANES {
                u[l] = 1.0 / y[l];
                weight[l] = a[l] * u[l];
            }
            add_rows::<FMA>(q, stride, at, &weight, partial);
        }
    }
}

vectorized! {
    /// See [`Space::sweep_with`].
    fn sweep_with(
        q: &[f64],
        stride: usize,
        a: &[f64],
        v: &[f64],
        f: &[f64],
        rule: [f64; 3],
        u: &mut [f64],
        log_u: &mut [f64],
        partial: &mut [f64],
    ) -> f64 {
        let _ = WIDTH;
        let [keep, power, pull] = rule;
        let mut error = [0.0; LANES];
        for at in (0..stride).step_by(LANES) {
            let y = scaled_rows::<FMA>(q, stride, at, v);
            let a = lanes::<LANES>(&a[at..]);
            let f = lanes::<LANES>(&f[at..]);
            let u = lanes_mut::<LANES>(&mut u[at..]);
            let log_u = lanes_mut::<LANES>(&mut log_u[at..]);
            let mut weight = [0.0; LANES];
            for l in 0..LANES {
                let log = mul_add::<FMA>(keep, log_u[l], -power * ln::<FMA>(y[l])) - pull * f[l];
                log_u[l] = log;
                u[l] = exp::<FMA>(log);
                weight[l] = a[l] * u[l];
                error[l] += (mul_add::<FMA>(weight[l], y[l], -a[l])).abs();
            }
            add_rows::<FMA>(q, stride, at, &weight, partial);
        }
        total(error)
    }
}

/// `sum_j v_j Q_j` over a block of lanes, in two chains that do not wait for each other.
#[inline(always)]
fn scaled_rows<const FMA: bool>(q: &[f64], stride: usize, at: usize, v: &[f64]) -> [f64; LANES] {
    let mut even = [0.0; LANES];
    let mut odd = [0.0; LANES];
    let pairs = v.len() / 2;
    for pair in 0..pairs {
        let j = 2 * pair;
        let first = lanes::<LANES>(&q[j * stride + at..]);
        let second = lanes::<LANES>(&q[(j + 1) * stride + at..]);
        for l in 0..LANES {
            even[l] = mul_add::<FMA>(first[l], v[j], even[l]);
            odd[l] = mul_add::<FMA>(second[l], v[j + 1], odd[l]);
        }
    }
    if v.len() % 2 == 1 {
        let j = v.len() - 1;
        let last = lanes::<LANES>(&q[j * stride + at..]);
        for l in 0..LANES {
            even[l] = mul_add::<FMA>(last[l], v[j], even[l]);
        }
    }
    for l in 0..LANES {
        even[l] += odd[l];
    }
    even
}

/// Adds a block of lanes of every row, weighted, to the row's running sums.
#[inline(always)]
fn add_rows<const FMA: bool>(
    q: &[f64],
    stride: usize,
    at: usize,
    weight: &[f64; LANES],
    partial: &mut [f64],
) {
    for (q, partial) in q.chunks_exact(stride).zip(partial.chunks_exact_mut(LANES)) {
        let q = lanes::<LANES>(&q[at..]);
        let partial = lanes_mut::<LANES>(partial);
        for l in 0..LANES {
            partial[l] = mul_add::<FMA>(q[l], weight[l], partial[l]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{
        Batch, Masses, Side,
        masses::Line,
        simd::at_every_width,
        table::Layout,
        tests::{assert_close, numbers},
    };

    /// A problem of 37 by 5 with potentials that are not its own, as a softmax at `epsilon`.
    fn begin(epsilon: f64) -> (Table, Space) {
        let costs = numbers(37 * 5, 21);
        let batch = Batch::one([37, 5]).unwrap();
        let [mut rows, mut columns] = [Line::default(), Line::default()];
        rows.fill(&Masses::UNIFORM, &batch, 0, Side::Rows).unwrap();
        columns.fill(&Masses::counts(&[3, 1, 1, 2, 4]), &batch, 0, Side::Columns).unwrap();
        let (mut table, mut space) = (Table::default(), Space::default());
        table.fill(&Problem::new(&costs, &rows, &columns, 0).unwrap(), Layout::ByShort);
        space.begin(&table);
        space.g = numbers(5, 22).iter().map(|x| 0.2 * x).collect();
        space.softmax(&table, epsilon);
        (table, space)
    }

    #[test]
    fn renewals_are_softmaxes() {
        at_every_width(check_renewals);
    }

    fn check_renewals() {
        let epsilon = 0.05;
        // The last but one moves too far without exponentials, and the last makes a column vanish.
        for (size, lift) in [(0.0, 0.0), (3.0, 0.0), (40.0, 0.0), (300.0, 0.0), (1.0, -400.0)] {
            for is_halved in [false, true] {
                let (table, mut space) = begin(epsilon);
                for round in 0..3 {
                    space.log_v = numbers(5, 23 + round).iter().map(|x| size * (x - 0.5)).collect();
                    space.log_v[2] += lift;
                    let value = if is_halved && round == 1 {
                        space.halve(&table, epsilon)
                    } else if is_halved && round == 2 {
                        space.renew(&table, epsilon / 2.0)
                    } else {
                        space.renew(&table, epsilon)
                    };
                    let now = if is_halved && round > 0 { epsilon / 2.0 } else { epsilon };
                    let what = format!("{size} {lift} {is_halved} {round}");
                    let (_, mut fresh) = begin(epsilon);
                    fresh.g.clone_from(&space.g);
                    let expected = fresh.softmax(&table, now);
                    assert_close(&[value], &[expected], 1e-12, &what);
                    assert_close(&space.q, &fresh.q, 1e-12, &what);
                    assert_close(&space.f[..table.n], &fresh.f[..table.n], 1e-12, &what);
                    assert_close(&space.sums, &fresh.sums, 1e-12, &what);
                    assert!(space.u.iter().chain(&space.v).all(|&scaling| scaling == 1.0));
                }
            }
        }
    }
}
