//! A loss of the plan: what the transport costs, and how undecided its rows are.
//!
//! ```text
//! L = <P, C> + w S(P)                        OTReg (Xu et al. 2025, arXiv 2508.08131)
//!
//! S   entropy   mean over rows of H(q) / ln m      0 where a row goes to one column, 1 where to all alike
//!     peak      mean over rows of 1 - max_j q_j    q: the row of the plan, divided by its mass
//!
//! gradient   implicit    P + what moving the plan does to <P, C> + w S(P)
//!            envelope    of the minimum with its entropy: P; S through the plan
//!            detached    P; none of S
//! ```
//!
//! The paper says that the plan is differentiated; its formula of the term that makes rows decided is not known, and
//! these are two readings of it.

use rayon::prelude::*;

use super::{Batch, Entries, Error, Status, Transport, check_size, plan_gradient};

/// How undecided the rows of a plan are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sparsity {
    /// Mean entropy of the rows, as a share of the largest that there is.
    Entropy,
    /// One minus the mean of the rows' largest shares.
    Peak,
}

/// What moves with the costs when a loss is differentiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// The plan, by the implicit function theorem. A plan without entropy does not move, almost everywhere.
    Implicit,
    /// The plan, and the loss is the minimum of what was minimized instead of the cost: only [`Sparsity`] feels how the
    /// plan moves.
    Envelope,
    /// Nothing but the costs.
    Detached,
}

/// What is asked of a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// Which term makes rows decided.
    pub sparsity: Sparsity,
    /// Its weight, `w`.
    pub weight: f64,
    /// How the loss is differentiated.
    pub through: Through,
}

/// The loss of one problem.
#[derive(Debug, Clone, PartialEq)]
pub struct Lost {
    /// `L`.
    pub value: f64,
    /// `<P, C>`.
    pub cost: f64,
    /// `S(P)`.
    pub sparsity: f64,
    /// `dL / dC`, `[n_rows, n_columns]`.
    pub gradient: Vec<f64>,
    /// Whether the plan is the one that was asked for, and the gradient its own. Where the plan is too sharp for
    /// [`Through::Implicit`], the gradient is that of [`Through::Detached`].
    pub is_solved: bool,
}

impl Sparsity {
    /// `S(P)`.
    pub fn of(self, found: &Transport) -> f64 {
        let (sums, total) = (found.plan.row_sums(), found.moved_mass());
        let n_columns = found.plan.n_columns;
        if n_columns < 2 || total <= 0.0 {
            return 0.0;
        }
        match self {
            Self::Entropy => {
                let terms = found.plan.iter().filter(|(_, _, mass)| *mass > 0.0);
                let sum: f64 = terms.map(|(row, _, mass)| -mass * (mass / sums[row]).ln()).sum();
                sum / (total * (n_columns as f64).ln())
            }
            Self::Peak => {
                let mut peaks = vec![0.0_f64; sums.len()];
                found.plan.iter().for_each(|(row, _, mass)| peaks[row] = peaks[row].max(mass));
                1.0 - peaks.iter().sum::<f64>() / total
            }
        }
    }

    /// `dS / dP` times `weight`, added to `to`; a constant a row is left out, as rows keep their sums.
    fn add_gradient(self, found: &Transport, weight: f64, to: &mut [f64]) {
        let Entries::Dense(plan) = &found.plan.entries else { return };
        let (n_columns, total) = (found.plan.n_columns, found.moved_mass());
        if n_columns < 2 || total <= 0.0 {
            return;
        }
        for (row, to) in plan.chunks_exact(n_columns).zip(to.chunks_exact_mut(n_columns)) {
            let sum: f64 = row.iter().sum();
            if sum <= 0.0 {
                continue;
            }
            match self {
                Self::Entropy => {
                    let scale = weight / (total * (n_columns as f64).ln());
                    for (to, &mass) in to.iter_mut().zip(row).filter(|(_, mass)| **mass > 0.0) {
                        *to -= scale * (mass / sum).ln();
                    }
                }
                Self::Peak => {
                    let first = |best, j| if row[j] > row[best] { j } else { best };
                    to[(0..n_columns).fold(0, first)] -= weight / total;
                }
            }
        }
    }
}

impl Transport {
    /// All mass that the plan moves.
    fn moved_mass(&self) -> f64 {
        self.plan.iter().map(|(_, _, mass)| mass).sum()
    }
}

impl Loss {
    /// The loss of a plan that was found for these costs.
    ///
    /// # Shapes
    ///
    /// - `costs`: `[n_rows, n_columns]`
    ///
    /// # Errors
    ///
    /// [`Error::Size`] when `costs` are not the plan's.
    pub fn of<T: Copy + Into<f64>>(&self, found: &Transport, costs: &[T]) -> Result<Lost, Error> {
        check_size("costs", costs.len(), found.plan.n_rows * found.plan.n_columns)?;
        let sparsity = self.sparsity.of(found);
        let minimum = if self.through == Through::Envelope { found.value } else { found.cost };
        let mut gradient = found.plan.to_dense();
        let mut is_solved = found.status != Status::NotConverged;
        let mut upstream = vec![0.0; gradient.len()];
        if self.through == Through::Implicit {
            upstream.iter_mut().zip(costs).for_each(|(up, &cost)| *up = cost.into());
        }
        let moves = self.through == Through::Implicit || self.weight != 0.0;
        if found.smoothing.is_some() && self.through != Through::Detached && moves {
            self.sparsity.add_gradient(found, self.weight, &mut upstream);
            match plan_gradient(found, &upstream) {
                Ok(moved) => gradient.iter_mut().zip(moved).for_each(|(sum, g)| *sum += g),
                Err(Error::Singular) => is_solved = false,
                Err(error) => return Err(error),
            }
        }
        let value = minimum + self.weight * sparsity;
        Ok(Lost { value, cost: found.cost, sparsity, gradient, is_solved })
    }

    /// [`Loss::of`] every problem of a batch, in parallel.
    ///
    /// # Errors
    ///
    /// As [`Loss::of`].
    pub fn of_batch<T: Copy + Into<f64> + Sync>(
        &self,
        found: &[Transport],
        costs: &[T],
        batch: &Batch,
    ) -> Result<Vec<Lost>, Error> {
        check_size("costs", costs.len(), batch.totals()[2])?;
        check_size("transports", found.len(), batch.len())?;
        let lost = found.par_iter().enumerate().with_max_len(1);
        lost.map(|(problem, found)| self.of(found, &costs[batch.cells(problem)])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{
        Exact, Masses, Newton, SemiRelaxed, Sinkhorn, Solver, Unbalanced, solve,
    };

    const SHAPE: [usize; 2] = [7, 4];

    fn costs() -> Vec<f64> {
        (0..28).map(|i| ((i * 37 % 29) as f64 / 29.0).powi(2) + 0.01 * i as f64).collect()
    }

    fn lost(costs: &[f64], solver: &Solver, loss: &Loss) -> Lost {
        let columns = [0.1, 0.4, 0.2, 0.3];
        let masses = [Masses::UNIFORM, Masses::given(&columns)];
        let found = solve(costs, SHAPE, masses[0], masses[1], solver).unwrap();
        loss.of(&found, costs).unwrap()
    }

    fn sharp() -> [Solver; 3] {
        let (epsilon, tolerance) = (0.07, 1e-13);
        [
            Solver::Newton(Newton { epsilon, tolerance, ..Newton::default() }),
            Solver::Unbalanced(Unbalanced { epsilon, tolerance, ..Unbalanced::default() }),
            Solver::SemiRelaxed(SemiRelaxed { epsilon }),
        ]
    }

    fn differences(solver: &Solver, loss: &Loss) -> Vec<f64> {
        let (step, mut moved) = (1e-5, costs());
        (0..moved.len())
            .map(|i| {
                let at = moved[i];
                moved[i] = at + step;
                let up = lost(&moved, solver, loss).value;
                moved[i] = at - step;
                let down = lost(&moved, solver, loss).value;
                moved[i] = at;
                (up - down) / (2.0 * step)
            })
            .collect()
    }

    #[test]
    fn gradients_match_differences() {
        for solver in sharp() {
            for sparsity in [Sparsity::Entropy, Sparsity::Peak] {
                for through in [Through::Implicit, Through::Envelope] {
                    for weight in [0.0, 0.5] {
                        let loss = Loss { sparsity, weight, through };
                        let found = lost(&costs(), &solver, &loss);
                        assert!(found.is_solved);
                        let expected = differences(&solver, &loss);
                        let largest = expected.iter().fold(0.0_f64, |max, g| max.max(g.abs()));
                        for (found, expected) in found.gradient.iter().zip(&expected) {
                            assert!(
                                (found - expected).abs() < 1e-6 * largest,
                                "{found} and {expected}, {solver:?}, {loss:?}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_detached_plan_ignores_how_it_moves() {
        let solver = sharp()[0];
        let loss = Loss { sparsity: Sparsity::Entropy, weight: 0.5, through: Through::Detached };
        let implicit = Loss { through: Through::Implicit, ..loss };
        let (held, moved) = (lost(&costs(), &solver, &loss), lost(&costs(), &solver, &implicit));
        assert_eq!(held.value, moved.value);
        // The plan itself: what goes from row to row sums to the row's mass.
        let sums: Vec<f64> = held.gradient.chunks(4).map(|row| row.iter().sum()).collect();
        assert!(sums.iter().all(|sum| (sum - 1.0 / 7.0).abs() < 1e-12));
        let apart = held.gradient.iter().zip(&moved.gradient).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f64::max) > 0.01);
    }

    #[test]
    fn decided_rows_cost_nothing_and_undecided_ones_all() {
        let flat = [1.0; 28];
        for sparsity in [Sparsity::Entropy, Sparsity::Peak] {
            let loss = Loss { sparsity, weight: 1.0, through: Through::Implicit };
            let columns = Masses::UNIFORM;
            let sinkhorn = Solver::Sinkhorn(Sinkhorn::default());
            let found = solve(&flat, SHAPE, Masses::UNIFORM, columns, &sinkhorn).unwrap();
            let most = if sparsity == Sparsity::Entropy { 1.0 } else { 0.75 };
            assert!((loss.of(&found, &flat).unwrap().sparsity - most).abs() < 1e-9);
            // Eight rows, four columns: the exact plan splits none.
            let eight: Vec<f64> = (0..32).map(|i| f64::from(i * 37 % 31)).collect();
            let exact = Solver::Exact(Exact::default());
            let found = solve(&eight, [8, 4], Masses::UNIFORM, columns, &exact).unwrap();
            let lost = loss.of(&found, &eight).unwrap();
            assert_eq!((lost.sparsity, lost.value), (0.0, found.cost));
            assert_eq!(lost.gradient, found.plan.to_dense());
        }
    }

    #[test]
    fn one_column_is_always_decided() {
        let loss = Loss { sparsity: Sparsity::Entropy, weight: 1.0, through: Through::Implicit };
        let newton = Solver::Newton(Newton::default());
        let found = solve(&[0.5, 1.5], [2, 1], Masses::UNIFORM, Masses::UNIFORM, &newton).unwrap();
        let lost = loss.of(&found, &[0.5, 1.5]).unwrap();
        assert!((lost.value - 1.0).abs() < 1e-9 && lost.sparsity == 0.0 && lost.is_solved);
        assert!(lost.gradient.iter().all(|g| (g - 0.5).abs() < 1e-9));
        assert!(loss.of(&found, &[0.5]).unwrap_err().to_string().contains("expected 2"));
    }
}
