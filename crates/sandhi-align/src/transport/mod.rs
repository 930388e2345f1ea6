//! Optimal transport: many small problems, solved exactly or with entropy, with gradients.
//!
//! A plan moves the mass of rows (speech frames, say) to columns (tokens) where that is cheap:
//!
//! ```text
//!   minimize  <P, C> = sum_ij P_ij C_ij     over P >= 0
//!   with      sum_j P_ij = a_i              every row gives what it has
//!             sum_i P_ij = b_j              every column gets what it takes
//!
//!   costs [n_rows, n_columns] ── solver ──> plan, duals, value, status ── gradient ──> d value / d costs
//!     embeddings ── cosine ──┘                                                └── pull_back ──> embeddings
//! ```
//!
//! | solver | what it minimizes | plan |
//! |---|---|---|
//! | [`Exact`] | `<P, C>` | sparse |
//! | [`Sinkhorn`], [`Newton`] | `<P, C> + ε KL(P \| a bᵀ)` | dense |
//! | [`SemiRelaxed`] | the same without the condition on columns | dense; sparse at ε 0 |
//! | [`Unbalanced`] | the same with the penalty `τ KL(Pᵀ1 \| b)` in its place | dense |
//! | [`Monotone`] | `<P, C>`, every row to one column, in order | sparse |
//!
//! With entropy, [`Newton`] is the one to begin with: it takes a few steps where sweeps take hundreds, most of all
//! where the plan is sharp. [`Sinkhorn`] is faster where a few dozen sweeps suffice: large ε, or costs without
//! structure. Both find the same plan.
//!
//! The problems of a batch have shapes of their own ([`Batch`]), run in parallel and know nothing of one another. Costs
//! may be `f32`; sums are in double precision. Peyré and Cuturi 2019, "Computational Optimal Transport", introduces the
//! field ([arXiv 1803.00567](https://arxiv.org/abs/1803.00567)).
//!
//! ```
//! use sandhi_align::transport::{self, Exact, Masses, Solver, Status};
//!
//! // Four frames, two tokens: the third frame prefers the first token, which has enough.
//! let costs = [0.1_f32, 0.9, 0.2, 0.8, 0.4, 0.5, 0.9, 0.1];
//! let solver = Solver::Exact(Exact::default());
//! let found = transport::solve(&costs, [4, 2], Masses::UNIFORM, Masses::UNIFORM, &solver)?;
//! assert!((found.value - (0.1 + 0.2 + 0.5 + 0.1) / 4.0).abs() < 1e-7);
//! assert_eq!(found.status, Status::Optimal);
//! # Ok::<(), transport::Error>(())
//! ```

mod batch;
mod cost;
mod entropic;
mod exact;
mod gradient;
mod loss;
mod masses;
mod monotone;
mod newton;
mod plan;
mod semi_relaxed;
pub(crate) mod simd;
mod sinkhorn;
mod table;
mod unbalanced;

pub use batch::Batch;
pub use cost::{Metric, Real, add_order_prior, embedding_costs, pull_back};
pub use exact::Exact;
pub use gradient::{Gradient, batch_cost_gradient, cost_gradient, plan_gradient};
pub use loss::{Loss, Lost, Sparsity, Through};
pub use masses::{Masses, Weights};
pub use monotone::Monotone;
pub use newton::Newton;
pub use plan::{Entries, Plan};
pub use semi_relaxed::SemiRelaxed;
pub use sinkhorn::Sinkhorn;
pub use unbalanced::Unbalanced;

use std::cell::RefCell;

use masses::Line;
use rayon::prelude::*;
use table::{Problem, Table};

/// Rows or columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first axis.
    Rows,
    /// The second axis.
    Columns,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Self::Rows { "rows" } else { "columns" })
    }
}

/// Costs beyond this in magnitude are refused: sums of them and quotients by ε would overflow.
pub const MAX_COST: f64 = 1e100;

/// How a problem is solved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Solver {
    /// The linear program.
    Exact(Exact),
    /// With entropy, by Sinkhorn's sweeps.
    Sinkhorn(Sinkhorn),
    /// With entropy, by Newton's method.
    Newton(Newton),
    /// Without a condition on the columns.
    SemiRelaxed(SemiRelaxed),
    /// With a penalty on the columns.
    Unbalanced(Unbalanced),
    /// In order.
    Monotone(Monotone),
}

/// What a solver found.
#[derive(Debug, Clone, PartialEq)]
pub struct Transport {
    /// The minimum of what the solver minimizes: with the entropy term `ε KL(P | a bᵀ / total)` where it has one, and
    /// with the penalty on the columns where it has that.
    pub value: f64,
    /// `<P, C>` alone.
    pub cost: f64,
    /// The plan.
    pub plan: Plan,
    /// `f` and `g`, where the problem has them. Exact: `f_i + g_j <= C_ij`, equal where the plan is positive.
    /// With entropy: `P_ij = a_i b_j exp((f_i + g_j - C_ij) / ε) / total`.
    pub duals: Option<Duals>,
    /// How far the plan's sums are from the masses they should have: absolute differences, summed over rows and
    /// columns, as a share of the total mass.
    pub marginal_error: f64,
    /// Steps that the solver took: augmentations, sweeps or Newton steps, without the sweeps that go before those.
    pub iterations: usize,
    /// Whether it is what was asked for.
    pub status: Status,
    /// What gradients need to know of the problem.
    pub smoothing: Option<Smoothing>,
}

/// Potentials of rows and columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Duals {
    /// One a row.
    pub f: Vec<f64>,
    /// One a column.
    pub g: Vec<f64>,
}

/// The entropy of a problem, and how its columns are held.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Smoothing {
    /// Weight of the entropy, in units of the cost.
    pub epsilon: f64,
    /// What holds the sums of the columns.
    pub columns: Columns,
}

/// What holds the sums of the columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Columns {
    /// They are given.
    Fixed,
    /// A penalty of this weight on their divergence from what is given.
    Penalized(f64),
    /// Nothing.
    Free,
}

/// Whether a solver found what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The optimum, up to rounding.
    Optimal,
    /// Within the tolerance.
    Converged,
    /// Within the tolerance, but by Sinkhorn's sweeps after Newton's steps had led nowhere.
    FellBack,
    /// The limit on iterations was reached, or rounding forbids the tolerance; `marginal_error` says how far it is.
    NotConverged,
}

impl Status {
    /// Whether the result is what was asked for.
    pub fn is_solved(self) -> bool {
        self != Self::NotConverged
    }
}

/// Why a problem cannot be solved.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The two lists of offsets do not describe the same problems.
    #[error(
        "{rows} row offsets and {columns} column offsets, expected as many of both, at least one"
    )]
    OffsetCount {
        /// Row offsets.
        rows: usize,
        /// Column offsets.
        columns: usize,
    },
    /// Offsets do not begin at 0, or a problem has no line.
    #[error("offset {index} of the {side} is {found}, expected {}{expected}{}",
        if *.index == 0 { "" } else { "at least " },
        if *.index == 0 { "" } else { ": a problem has a row and a column" })]
    Offset {
        /// Of which side.
        side: Side,
        /// Which offset.
        index: usize,
        /// What it is.
        found: usize,
        /// What it is at least.
        expected: usize,
    },
    /// Sizes that overflow.
    #[error("problem {problem}: {n_rows} rows by {n_columns} columns are more than fit")]
    TooLarge {
        /// Which problem.
        problem: usize,
        /// Its rows.
        n_rows: usize,
        /// Its columns.
        n_columns: usize,
    },
    /// A slice is not as long as the shapes say.
    #[error("{what}: {found} values, expected {expected}")]
    Size {
        /// Which slice.
        what: &'static str,
        /// Its length.
        found: usize,
        /// Its length by the shapes.
        expected: usize,
    },
    /// A cost that is not a number, infinite or beyond [`MAX_COST`].
    #[error(
        "problem {problem}: the cost at [{row}, {column}] is {found}, expected a finite number up to 1e100"
    )]
    Cost {
        /// Which problem.
        problem: usize,
        /// Row of the problem.
        row: usize,
        /// Column of the problem.
        column: usize,
        /// The cost.
        found: f64,
    },
    /// Masses are not one a line.
    #[error("{found} masses for the {side}, expected {expected}")]
    MassCount {
        /// Of which side.
        side: Side,
        /// Masses given.
        found: usize,
        /// Lines there are.
        expected: usize,
    },
    /// Pad shares are not one a problem.
    #[error("{found} pad shares for the {side}, expected {expected}, one a problem")]
    PadCount {
        /// Of which side.
        side: Side,
        /// Shares given.
        found: usize,
        /// Problems there are.
        expected: usize,
    },
    /// A mass that is negative or not finite.
    #[error(
        "problem {problem}: mass {index} of the {side} is {found}, expected a finite number, not negative"
    )]
    Mass {
        /// Which problem.
        problem: usize,
        /// Of which side.
        side: Side,
        /// Which line of the problem.
        index: usize,
        /// The mass.
        found: f64,
    },
    /// A pad's share that is no share.
    #[error("problem {problem}: the pad share of the {side} is {found}, expected 0 to 1")]
    PadShare {
        /// Which problem.
        problem: usize,
        /// Of which side.
        side: Side,
        /// The share.
        found: f64,
    },
    /// Nothing to transport, or more than can be counted.
    #[error(
        "problem {problem}: the masses of the {side} sum to {found}, expected a positive finite number"
    )]
    NoMass {
        /// Which problem.
        problem: usize,
        /// Of which side.
        side: Side,
        /// The sum.
        found: f64,
    },
    /// Rows and columns hold different masses.
    #[error(
        "problem {problem}: the rows hold {rows} and the columns {columns}, expected the same within 1e-6 of it"
    )]
    Totals {
        /// Which problem.
        problem: usize,
        /// Sum of the rows.
        rows: f64,
        /// Sum of the columns.
        columns: f64,
    },
    /// Fewer rows than columns that must be visited.
    #[error("problem {problem}: {n_rows} rows cannot visit {n_needed} columns in order")]
    TooFewRows {
        /// Which problem.
        problem: usize,
        /// Its rows.
        n_rows: usize,
        /// Columns to visit.
        n_needed: usize,
    },
    /// An embedding that is not finite, or too long to be squared.
    #[error("row {row} of the embeddings of the {side} has a value that is not finite")]
    Embedding {
        /// Of which side.
        side: Side,
        /// Which, among those of all problems.
        row: usize,
    },
    /// An embedding without a direction, of which there is no cosine.
    #[error("row {row} of the embeddings of the {side} is zero, expected a direction")]
    ZeroEmbedding {
        /// Of which side.
        side: Side,
        /// Which, among those of all problems.
        row: usize,
    },
    /// A solver's result has no such gradient.
    #[error("the gradient mode {name} found {found}, expected {expected}")]
    GradientMode {
        /// Which mode.
        name: &'static str,
        /// What it was given.
        found: &'static str,
        /// What it needs.
        expected: &'static str,
    },
    /// The plan is so sharp that rounding leaves no system to solve.
    #[error(
        "the plan is too sharp to be differentiated; use a larger epsilon or the envelope gradient"
    )]
    Singular,
    /// A setting of a solver, a metric or a prior that makes no sense.
    #[error("{name} is {found}, expected {expected}")]
    Setting {
        /// Which setting.
        name: &'static str,
        /// What it is.
        found: f64,
        /// What it may be.
        expected: &'static str,
    },
}

/// What a thread keeps from one problem to the next, so that solving allocates nothing but the result.
#[derive(Debug, Default)]
struct Workspace {
    rows: Line,
    columns: Line,
    table: Table,
    exact: exact::Space,
    entropic: entropic::Space,
    monotone: monotone::Space,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// Solves one problem.
///
/// # Shapes
///
/// - `costs`: `[n_rows, n_columns]`, row-major, `f32` or `f64`
///
/// # Errors
///
/// As [`solve_batch`].
pub fn solve<T: Copy + Into<f64> + Sync>(
    costs: &[T],
    shape: [usize; 2],
    rows: Masses<'_>,
    columns: Masses<'_>,
    solver: &Solver,
) -> Result<Transport, Error> {
    let batch = Batch::one(shape)?;
    check(costs, &batch, &rows, &columns, solver)?;
    solve_one(costs, &batch, 0, &rows, &columns, solver)
}

/// Solves every problem of a batch, in parallel. A problem's result does not depend on the others.
///
/// # Shapes
///
/// - `costs`: the matrices of all problems, as [`Batch`] says
///
/// # Errors
///
/// When parts do not fit, a setting makes no sense, a cost is not finite, or masses cannot be transported. The error
/// is that of the first problem that has one. A problem that does not converge is no error: see [`Status`].
pub fn solve_batch<T: Copy + Into<f64> + Sync>(
    costs: &[T],
    batch: &Batch,
    rows: Masses<'_>,
    columns: Masses<'_>,
    solver: &Solver,
) -> Result<Vec<Transport>, Error> {
    check(costs, batch, &rows, &columns, solver)?;
    let solved: Vec<_> = (0..batch.len())
        .into_par_iter()
        .with_max_len(1)
        .map(|problem| solve_one(costs, batch, problem, &rows, &columns, solver))
        .collect();
    solved.into_iter().collect()
}

fn check<T>(
    costs: &[T],
    batch: &Batch,
    rows: &Masses<'_>,
    columns: &Masses<'_>,
    solver: &Solver,
) -> Result<(), Error> {
    let [_, _, expected] = batch.totals();
    check_size("costs", costs.len(), expected)?;
    rows.check(batch, Side::Rows)?;
    columns.check(batch, Side::Columns)?;
    match solver {
        Solver::Exact(_) | Solver::Monotone(_) => Ok(()),
        Solver::Sinkhorn(sinkhorn) => sinkhorn.check(),
        Solver::Newton(newton) => newton.check(),
        Solver::SemiRelaxed(semi) => semi.check(),
        Solver::Unbalanced(unbalanced) => unbalanced.check(),
    }
}

fn check_epsilon(epsilon: f64) -> Result<(), Error> {
    if epsilon > 0.0 && epsilon.is_finite() {
        return Ok(());
    }
    Err(Error::Setting { name: "epsilon", found: epsilon, expected: "a positive finite number" })
}

fn check_limits(tolerance: f64, max_iterations: usize) -> Result<(), Error> {
    if !(tolerance > 0.0 && tolerance.is_finite()) {
        let expected = "a positive finite number";
        return Err(Error::Setting { name: "tolerance", found: tolerance, expected });
    }
    if max_iterations == 0 {
        return Err(Error::Setting { name: "max_iterations", found: 0.0, expected: "at least 1" });
    }
    Ok(())
}

fn check_size(what: &'static str, found: usize, expected: usize) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::Size { what, found, expected }) }
}

fn solve_one<T: Copy + Into<f64>>(
    costs: &[T],
    batch: &Batch,
    problem: usize,
    rows: &Masses<'_>,
    columns: &Masses<'_>,
    solver: &Solver,
) -> Result<Transport, Error> {
    WORKSPACE.with_borrow_mut(|space| {
        let Workspace { rows: a, columns: b, table, .. } = space;
        a.fill(rows, batch, problem, Side::Rows)?;
        b.fill(columns, batch, problem, Side::Columns)?;
        let is_balanced =
            matches!(solver, Solver::Exact(_) | Solver::Sinkhorn(_) | Solver::Newton(_));
        if is_balanced && (a.total - b.total).abs() > 1e-6 * a.total {
            return Err(Error::Totals { problem, rows: a.total, columns: b.total });
        }
        let given = Problem::new(&costs[batch.cells(problem)], a, b, problem)?;
        Ok(match solver {
            Solver::Exact(exact) => exact.solve(&given, table, &mut space.exact),
            Solver::Sinkhorn(sinkhorn) => sinkhorn.solve(&given, table, &mut space.entropic),
            Solver::Newton(newton) => newton.solve(&given, table, &mut space.entropic),
            Solver::SemiRelaxed(semi) => semi.solve(&given),
            Solver::Unbalanced(unbalanced) => unbalanced.solve(&given, table, &mut space.entropic),
            Solver::Monotone(monotone) => monotone.solve(&given, problem, &mut space.monotone)?,
        })
    })
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
