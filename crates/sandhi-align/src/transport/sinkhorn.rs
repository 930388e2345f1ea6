//! Sinkhorn's sweeps: scale rows to their masses, then columns, and again.
//!
//! ```text
//! ε  .1 ──halved──> .05 ──> .025 ──> wanted      each level starts from the potentials of the one before
//!        level: exponentials once, then sweeps of products and sums:
//!                                      u = 1 / (Q v)        rows hold a
//!                                      v = b / (Qᵀ a u)     columns hold b
//!        scalings that grow too large go into the potentials, and the exponentials are taken again
//! ```
//!
//! Cuturi 2013, "Sinkhorn Distances" ([arXiv 1306.0895](https://arxiv.org/abs/1306.0895)); the absorbed, stabilized
//! form and ε-scaling after Schmitzer 2019 ([arXiv 1610.06519](https://arxiv.org/abs/1610.06519), algorithm 2);
//! over-relaxation after Thibault et al. 2021 ([arXiv 1711.01851](https://arxiv.org/abs/1711.01851)) and Lehmann et al.
//! 2022 ([arXiv 2012.12562](https://arxiv.org/abs/2012.12562)). Near the solution the sweeps are Gauss-Seidel's for a
//! matrix of two blocks, so the best factor follows from the observed rate by Young's relation,
//! `ω = 2 / (1 + sqrt(1 - μ²))` with `μ² = (η + ω - 1)² / (ω² η)` at the rate η under the factor in use.

use super::{
    Columns, Error, Smoothing, Status, Transport, check_epsilon, check_limits,
    entropic::Space,
    table::{Layout, Problem, Table},
};

/// Settings of Sinkhorn's sweeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sinkhorn {
    /// Weight of the entropy, in units of the cost. Smaller: a sharper plan, and more sweeps.
    pub epsilon: f64,
    /// The `marginal_error` to stop at.
    pub tolerance: f64,
    /// Stop after so many sweeps over all levels.
    pub max_iterations: usize,
    /// The largest factor of over-relaxation, 1 (plain sweeps) to below 2. Within it the factor follows the observed
    /// rate.
    pub max_relaxation: f64,
}

impl Default for Sinkhorn {
    fn default() -> Self {
        Self { epsilon: 0.05, tolerance: 1e-6, max_iterations: 100_000, max_relaxation: 1.99 }
    }
}

/// Where ε begins, as a share of the spread of the costs.
pub(super) const FIRST_EPSILON: f64 = 0.1;

/// Scalings beyond this, or below its inverse, are absorbed.
const LARGE: f64 = 1e80;

/// The error at which a level that only prepares the next one ends, and how many sweeps it may take.
const LOOSE: f64 = 0.05;
const LOOSE_SWEEPS: usize = 12;

impl Sinkhorn {
    pub(super) fn check(&self) -> Result<(), Error> {
        check_epsilon(self.epsilon)?;
        check_limits(self.tolerance, self.max_iterations)?;
        if !(1.0..2.0).contains(&self.max_relaxation) {
            let found = self.max_relaxation;
            let expected = "1 to below 2";
            return Err(Error::Setting { name: "max_relaxation", found, expected });
        }
        Ok(())
    }

    pub(super) fn solve<T: Copy + Into<f64>>(
        &self,
        problem: &Problem<'_, T>,
        table: &mut Table,
        space: &mut Space,
    ) -> Transport {
        self.solve_held(problem, Columns::Fixed, table, space)
    }

    /// With any way to hold the columns but [`Columns::Free`].
    pub(super) fn solve_held<T: Copy + Into<f64>>(
        &self,
        problem: &Problem<'_, T>,
        held: Columns,
        table: &mut Table,
        space: &mut Space,
    ) -> Transport {
        table.fill(problem, Layout::ByShort);
        space.begin(table);
        let (iterations, converged) = self.run(table, space, held);
        let status = if converged { Status::Converged } else { Status::NotConverged };
        let smoothing = Smoothing { epsilon: self.epsilon, columns: held };
        space.finish(table, problem, smoothing, iterations, status)
    }

    /// From the potentials in `space.g` to those at the wanted ε, and the scalings that go with them.
    pub(super) fn run(&self, table: &Table, space: &mut Space, held: Columns) -> (usize, bool) {
        let mut epsilon = self.epsilon.max(FIRST_EPSILON * table.spread);
        let mut iterations = 0;
        while epsilon > self.epsilon {
            let limit = LOOSE_SWEEPS.min(self.max_iterations - iterations);
            let mut level = Level::new(epsilon, LOOSE, limit, 1.0, held, table);
            level.run(table, space);
            iterations += level.iterations;
            space.absorb(epsilon);
            epsilon = (epsilon / 2.0).max(self.epsilon);
        }
        let limit = self.max_iterations - iterations;
        let mut level =
            Level::new(epsilon, self.tolerance, limit, self.max_relaxation, held, table);
        let converged = level.run(table, space);
        (iterations + level.iterations, converged)
    }
}

/// Sweeps at one ε.
struct Level {
    epsilon: f64,
    tolerance: f64,
    max_iterations: usize,
    max_relaxation: f64,
    /// Exponents of the updates of the long and the short side: 1 where sums are fixed.
    powers: [f64; 2],
    /// τ, where a side is penalized.
    tau: f64,
    iterations: usize,
}

/// Sweeps over which a rate is measured.
const WINDOW: usize = 8;

impl Level {
    fn new(
        epsilon: f64,
        tolerance: f64,
        max_iterations: usize,
        max_relaxation: f64,
        held: Columns,
        table: &Table,
    ) -> Self {
        let (power, tau) = match held {
            Columns::Penalized(tau) => (tau / (tau + epsilon), tau),
            _ => (1.0, f64::INFINITY),
        };
        let powers = if table.swapped { [power, 1.0] } else { [1.0, power] };
        Self { epsilon, tolerance, max_iterations, max_relaxation, powers, tau, iterations: 0 }
    }

    fn run(&mut self, table: &Table, space: &mut Space) -> bool {
        space.softmax(table, self.epsilon);
        let is_fixed = self.powers == [1.0; 2];
        let mut omega = 1.0;
        // Where the present window began, and the least error so far.
        let (mut since, mut at_start) = (0, f64::INFINITY);
        let mut least = f64::INFINITY;
        let highest = if is_fixed { self.max_relaxation } else { 1.0 };
        let mut ceiling = highest;
        while self.iterations < self.max_iterations {
            self.iterations += 1;
            let row_error = if is_fixed && omega == 1.0 {
                space.sweep(table);
                0.0
            } else {
                let power = self.powers[0];
                let pull = (1.0 - power) / self.epsilon;
                let error = space.sweep_with(table, 1.0 - omega, omega * power, pull);
                if power < 1.0 { 0.0 } else { error }
            };
            let error = row_error + self.column_error(table, space);
            if error <= self.tolerance {
                return true;
            }
            if !error.is_finite() || space.sums.iter().any(|&sum| sum < 1.0 / LARGE / LARGE) {
                // A column has vanished from Q, or scalings have overflowed: a sweep by logarithms.
                space.softmax(table, self.epsilon);
                space.rescue(table, self.epsilon);
                if self.powers[1] < 1.0 {
                    space.g.iter_mut().for_each(|g| *g *= self.powers[1]);
                }
                space.softmax(table, self.epsilon);
                (omega, since, at_start, least) = (1.0, 0, f64::INFINITY, f64::INFINITY);
                continue;
            }
            since += 1;
            if error > 30.0 * least && omega > 1.0 {
                // Too eager for a problem that is not yet nearly linear.
                ceiling = 1.0 + (omega - 1.0) / 2.0;
                (omega, since, least) = (1.0, 0, error);
            } else if since == WINDOW {
                let rate = (error / at_start).powf(1.0 / (WINDOW - 1) as f64);
                omega = next_relaxation(omega, rate, error).min(ceiling);
                ceiling += 0.2 * (highest - ceiling);
                since = 0;
            }
            if since <= 1 {
                at_start = error;
            }
            least = least.min(error);
            self.scale_columns(table, space, omega);
            if space.v.iter().any(|&v| !(1.0 / LARGE..LARGE).contains(&v)) {
                space.absorb(self.epsilon);
                space.softmax(table, self.epsilon);
            }
        }
        false
    }

    /// How far the sums of the short side are from what they should be.
    fn column_error(&self, table: &Table, space: &Space) -> f64 {
        let is_penalized = self.powers[1] < 1.0;
        let mut error = 0.0;
        for j in 0..table.m {
            let mut wanted = table.b[j];
            if is_penalized {
                wanted *= (-(space.g[j] + self.epsilon * space.v[j].ln()) / self.tau).exp();
            }
            error += (space.v[j] * space.sums[j] - wanted).abs();
        }
        error
    }

    fn scale_columns(&self, table: &Table, space: &mut Space, omega: f64) {
        let power = self.powers[1];
        for j in 0..table.m {
            let best = table.b[j] / space.sums[j];
            space.v[j] = if power < 1.0 {
                (power * best.ln() - (1.0 - power) * space.g[j] / self.epsilon).exp()
            } else if omega == 1.0 {
                best
            } else {
                space.v[j] * (best / space.v[j]).powf(omega)
            };
        }
    }
}

/// The factor for the next window, from the rate in the last one.
fn next_relaxation(omega: f64, rate: f64, error: f64) -> f64 {
    // Far from the solution, rates say nothing about the end; a rate that is that of the factor itself is the best.
    if error > 0.1 || !(0.0..1.0).contains(&rate) || rate <= omega - 1.0 {
        return omega;
    }
    let squared = ((rate + omega - 1.0).powi(2) / (omega * omega * rate)).min(1.0);
    (2.0 / (1.0 + (1.0 - squared).sqrt())).max(omega)
}
