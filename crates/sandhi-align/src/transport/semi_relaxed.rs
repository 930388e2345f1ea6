//! Transport whose columns take whatever comes: every row decides alone.
//!
//! ```text
//! ε > 0   P_ij = a_i softmax_j(ln b_j - C_ij / ε)      every row a softmax over tokens
//! ε = 0   P_ij = a_i where C_ij is least               every row to its nearest token
//! ```
//!
//! The row-wise minimum of `<P, C> + ε KL(P | a bᵀ)` (Rabin, Ferradans and Papadakis 2014, "Adaptive color transfer
//! with relaxed optimal transport"). What it lacks against the others shows what the condition on the columns is good
//! for.

use super::{
    Columns, Duals, Entries, Error, Plan, Smoothing, Status, Transport, check_epsilon,
    entropic::soft_minimum, table::Problem,
};

/// Settings of transport without a condition on the columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SemiRelaxed {
    /// Weight of the entropy, in units of the cost. At 0 every row goes to one column.
    pub epsilon: f64,
}

impl Default for SemiRelaxed {
    fn default() -> Self {
        Self { epsilon: 0.05 }
    }
}

impl SemiRelaxed {
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.epsilon == 0.0 { Ok(()) } else { check_epsilon(self.epsilon) }
    }

    pub(super) fn solve<T: Copy + Into<f64>>(&self, problem: &Problem<'_, T>) -> Transport {
        let Problem { costs, rows, columns, .. } = problem;
        let [n_rows, n_columns] = problem.shape();
        let carries = || (0..n_columns).filter(|&j| columns.shares[j] > 0.0);
        let mut f = Vec::with_capacity(n_rows);
        let (mut value, mut cost) = (0.0, 0.0);
        let mut entries = vec![];
        let mut dense = vec![0.0; if self.epsilon > 0.0 { costs.len() } else { 0 }];
        for (i, row) in costs.chunks_exact(n_columns).enumerate() {
            let mass = rows.shares[i] * rows.total;
            let at = |j: usize| -> f64 { row[j].into() };
            let potential = if self.epsilon > 0.0 {
                let pairs = carries().map(|j| (columns.shares[j], at(j)));
                let potential = soft_minimum(pairs, self.epsilon);
                for j in carries() {
                    let share = columns.shares[j] * ((potential - at(j)) / self.epsilon).exp();
                    dense[i * n_columns + j] = mass * share;
                    cost += mass * share * at(j);
                }
                potential
            } else {
                let nearest = carries().min_by(|&j, &k| at(j).total_cmp(&at(k)));
                let nearest = nearest.expect("some column has mass");
                if mass > 0.0 {
                    entries.push((i as u32, nearest as u32, mass));
                }
                cost += mass * at(nearest);
                at(nearest)
            };
            value += mass * potential;
            f.push(potential);
        }
        let plan = if self.epsilon > 0.0 {
            Plan { n_rows, n_columns, entries: Entries::Dense(dense) }
        } else {
            Plan::sparse(n_rows, n_columns, entries)
        };
        let wanted = rows.shares.iter().map(|share| share * rows.total);
        let error: f64 = plan.row_sums().iter().zip(wanted).map(|(sum, a)| (sum - a).abs()).sum();
        Transport {
            value,
            cost,
            plan,
            duals: Some(Duals { f, g: vec![0.0; n_columns] }),
            marginal_error: error / rows.total,
            iterations: 1,
            status: Status::Optimal,
            smoothing: (self.epsilon > 0.0)
                .then_some(Smoothing { epsilon: self.epsilon, columns: Columns::Free }),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::transport::{self, Masses, SemiRelaxed, Solver};

    #[test]
    fn rows_are_softmaxes_or_nearest_columns() {
        let costs = [0.0, 2.0_f64.ln(), 5.0, 1.0];
        let solve = |epsilon| {
            let solver = Solver::SemiRelaxed(SemiRelaxed { epsilon });
            transport::solve(&costs, [2, 2], Masses::UNIFORM, Masses::UNIFORM, &solver).unwrap()
        };
        // exp(-ln 2) is a half: the first row is two to one.
        let plan = solve(1.0).plan.to_dense();
        assert!((plan[0] - 1.0 / 3.0).abs() < 1e-15 && (plan[1] - 1.0 / 6.0).abs() < 1e-15);
        let hard = solve(0.0);
        assert_eq!(hard.plan.to_dense(), [0.5, 0.0, 0.0, 0.5]);
        assert_eq!((hard.value, hard.cost), (0.5, 0.5));
        // A column without mass takes nothing.
        let (solver, b) = (Solver::SemiRelaxed(SemiRelaxed { epsilon: 0.0 }), [1.0, 0.0]);
        let found =
            transport::solve(&costs, [2, 2], Masses::UNIFORM, Masses::given(&b), &solver).unwrap();
        assert_eq!(found.plan.column_sums(), [1.0, 0.0]);
    }
}
