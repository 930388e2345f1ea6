//! Transport that keeps the order: rows go to columns from left to right, every column gets at least one row.
//!
//! ```text
//!          frames ->                      with pad, the last column: rows may rest on it
//! t0   x x . . . . . .                    before, between and after the others
//! t1   . . x . . . . .
//! t2   . . . x x x x x                    pad  x . . x . . . x
//!                                         t0   . x x . . . . .
//!                                         t1   . . . . x x x .
//! ```
//!
//! Masses of rows weigh their costs; those of columns play no part, as the order decides who gets how much. The best
//! path is found by dynamic programming in `n_rows n_columns` steps, as in monotonic alignment search (Kim et al.
//! 2020, "Glow-TTS", [arXiv 2005.11129](https://arxiv.org/abs/2005.11129), algorithm 1); with a pad the states are
//! those of CTC (Graves et al. 2006), except that no column is the same as another, so that none needs the pad
//! between.

use super::{Error, Plan, Status, Transport, table::Problem};

/// Settings of order-preserving transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Monotone {
    /// Whether the last column is a pad, on which rows may rest before, between and after the others.
    pub pad: bool,
}

/// What a thread keeps for the next problem.
#[derive(Debug, Default)]
pub(super) struct Space {
    best: Vec<f64>,
    /// How many states back the best path comes from, `[n_rows, n_states]`.
    back: Vec<u8>,
}

impl Monotone {
    /// How many rows a problem takes at least.
    pub fn n_rows_needed(&self, n_columns: usize) -> usize {
        n_columns - usize::from(self.pad)
    }

    pub(super) fn solve<T: Copy + Into<f64>>(
        &self,
        problem: &Problem<'_, T>,
        index: usize,
        space: &mut Space,
    ) -> Result<Transport, Error> {
        let Problem { costs, rows, .. } = problem;
        let [n_rows, n_columns] = problem.shape();
        let n_tokens = self.n_rows_needed(n_columns);
        if n_rows < n_tokens {
            return Err(Error::TooFewRows { problem: index, n_rows, n_needed: n_tokens });
        }
        // With a pad, even states are the pad and state 2 k + 1 is column k.
        let n_states = if self.pad { 2 * n_tokens + 1 } else { n_tokens };
        let column = |state: usize| match self.pad {
            false => state,
            true if state % 2 == 1 => state / 2,
            true => n_tokens,
        };
        let Space { best, back } = space;
        best.clear();
        best.resize(n_states, f64::INFINITY);
        back.clear();
        back.resize(n_rows * n_states, 0);
        for (i, row) in costs.chunks_exact(n_columns).enumerate() {
            // From the last state down, so that those before are still of the row before.
            for state in (0..n_states).rev() {
                let mut from = if i == 0 && state > usize::from(self.pad) {
                    f64::INFINITY
                } else if i == 0 {
                    0.0
                } else {
                    best[state]
                };
                let reach = if self.pad && state % 2 == 1 { 2 } else { 1 };
                for step in 1..=reach.min(state).min(if i == 0 { 0 } else { 2 }) {
                    if best[state - step] < from {
                        from = best[state - step];
                        back[i * n_states + state] = step as u8;
                    }
                }
                best[state] = from + rows.shares[i] * row[column(state)].into();
            }
        }
        // The path ends in the last column or in the pad behind it.
        let mut state = n_states - 1;
        if self.pad && state > 0 && best[state - 1] <= best[state] {
            state -= 1;
        }
        let mut entries = Vec::with_capacity(n_rows);
        let mut cost = 0.0;
        for i in (0..n_rows).rev() {
            let mass = rows.shares[i] * rows.total;
            let at = problem.cost(i, column(state));
            if mass > 0.0 {
                entries.push((i as u32, column(state) as u32, mass));
            }
            cost += mass * at;
            state -= back[i * n_states + state] as usize;
        }
        Ok(Transport {
            value: cost,
            cost,
            plan: Plan::sparse(n_rows, n_columns, entries),
            duals: None,
            marginal_error: 0.0,
            iterations: 1,
            status: Status::Optimal,
            smoothing: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transport::{self, Masses, Solver};

    /// The cheapest of all assignments that keep the order, one by one.
    fn brute_force(costs: &[f64], n_rows: usize, n_columns: usize, pad: bool) -> f64 {
        let n_tokens = n_columns - usize::from(pad);
        let mut least = f64::INFINITY;
        for number in 0..n_columns.pow(n_rows as u32) {
            let path: Vec<usize> =
                (0..n_rows).map(|i| number / n_columns.pow(i as u32) % n_columns).collect();
            let mut tokens: Vec<usize> = path.clone();
            // A token may not come again after the pad, so runs are counted with the pad in place.
            tokens.dedup();
            tokens.retain(|&k| !(pad && k == n_tokens));
            if tokens.iter().copied().eq(0..n_tokens) {
                let cost = path.iter().enumerate().map(|(i, k)| costs[i * n_columns + k]).sum();
                least = f64::min(least, cost);
            }
        }
        least / n_rows as f64
    }

    proptest! {
        #[test]
        fn no_assignment_in_order_is_cheaper(
            costs in proptest::collection::vec(0.0_f64..1.0, 15),
            pad in any::<bool>(),
        ) {
            let solver = Solver::Monotone(Monotone { pad });
            let found =
                transport::solve(&costs, [5, 3], Masses::UNIFORM, Masses::UNIFORM, &solver).unwrap();
            let expected = brute_force(&costs, 5, 3, pad);
            prop_assert!((found.value - expected).abs() < 1e-12, "{} {expected}", found.value);
            let again: f64 =
                found.plan.iter().map(|(i, j, mass)| mass * costs[i * 3 + j]).sum();
            prop_assert!((again - expected).abs() < 1e-12);
            prop_assert!(found.plan.row_sums().iter().all(|sum| (sum - 0.2).abs() < 1e-15));
        }
    }

    #[test]
    fn fewer_rows_than_columns_are_refused() {
        let solve = |pad, shape: [usize; 2]| {
            let costs = vec![1.0_f32; shape[0] * shape[1]];
            let solver = Solver::Monotone(Monotone { pad });
            transport::solve(&costs, shape, Masses::UNIFORM, Masses::UNIFORM, &solver)
        };
        assert_eq!(
            solve(false, [2, 3]).unwrap_err().to_string(),
            "problem 0: 2 rows cannot visit 3 columns in order"
        );
        assert!(solve(true, [2, 3]).is_ok());
        // Nothing but the pad.
        assert_eq!(solve(true, [2, 1]).unwrap().plan.to_dense(), [0.5, 0.5]);
    }
}
