//! Transport whose columns may take more or less than they should, at a price.
//!
//! ```text
//! minimize  <P, C> + ε KL(P | a bᵀ) + τ KL(Pᵀ1 | b)     with rows held to a
//!
//! τ -> 0    rows decide alone (semi-relaxed)            τ -> ∞   columns are held to b (balanced)
//! ```
//!
//! Sinkhorn's sweeps with the columns' update raised to the power `τ / (τ + ε)`: Chizat, Peyré, Schmitzer and Vialard
//! 2018, "Scaling algorithms for unbalanced optimal transport" ([arXiv 1607.05816](https://arxiv.org/abs/1607.05816),
//! section 4). At the optimum the columns hold `b_j exp(-g_j / τ)`, which `marginal_error` measures. Only the
//! proportions of `b` count: its total is taken to be that of `a`.

use super::{
    Columns, Error, Sinkhorn, Transport, check_epsilon, check_limits,
    entropic::Space,
    table::{Problem, Table},
};

/// Settings of transport with a penalty on the columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unbalanced {
    /// Weight of the entropy, in units of the cost.
    pub epsilon: f64,
    /// Weight of the penalty, in units of the cost. Larger: columns come closer to their masses.
    pub tau: f64,
    /// The `marginal_error` to stop at.
    pub tolerance: f64,
    /// Stop after so many sweeps.
    pub max_iterations: usize,
}

impl Default for Unbalanced {
    fn default() -> Self {
        Self { epsilon: 0.05, tau: 0.5, tolerance: 1e-6, max_iterations: 100_000 }
    }
}

impl Unbalanced {
    pub(super) fn check(&self) -> Result<(), Error> {
        check_epsilon(self.epsilon)?;
        if !(self.tau > 0.0 && self.tau.is_finite()) {
            let expected = "a positive finite number";
            return Err(Error::Setting { name: "tau", found: self.tau, expected });
        }
        check_limits(self.tolerance, self.max_iterations)
    }

    pub(super) fn solve<T: Copy + Into<f64>>(
        &self,
        problem: &Problem<'_, T>,
        table: &mut Table,
        space: &mut Space,
    ) -> Transport {
        let sweeps = Sinkhorn {
            epsilon: self.epsilon,
            tolerance: self.tolerance,
            max_iterations: self.max_iterations,
            max_relaxation: 1.0,
        };
        let held = Columns::Penalized(self.tau);
        sweeps.solve_held(problem, held, table, space)
    }
}
