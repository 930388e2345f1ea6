//! A problem as the solvers want it: only lines with mass, the longer side first, costs in double precision.
//!
//! ```text
//! caller's costs [n_rows, n_columns]        by the short side [m, stride]         by the long side [n, stride]
//!   frames x tokens, some without mass  ──>  one row a token, all frames      or   one row a frame, all tokens
//!                                            Sinkhorn, Newton                      exact
//! ```
//!
//! Rows of the table are padded to whole registers. Costs are taken less the lowest, which changes no plan and keeps
//! the digits that matter.

use super::{Error, MAX_COST, masses::Line, simd::LANES};

/// Which side's lines are the rows of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    ByShort,
    ByLong,
}

/// A problem as the caller has it, checked.
pub(super) struct Problem<'a, T> {
    /// Row-major `[n_rows, n_columns]`.
    pub costs: &'a [T],
    pub rows: &'a Line,
    pub columns: &'a Line,
    /// The lowest and the highest cost.
    range: [f64; 2],
}

impl<'a, T: Copy + Into<f64>> Problem<'a, T> {
    /// Refuses costs that are not finite; `index` is the problem's number in its batch.
    pub(super) fn new(
        costs: &'a [T],
        rows: &'a Line,
        columns: &'a Line,
        index: usize,
    ) -> Result<Self, Error> {
        let range = check_costs(costs, columns.shares.len(), index)?;
        Ok(Self { costs, rows, columns, range })
    }

    /// `[n_rows, n_columns]`.
    pub(super) fn shape(&self) -> [usize; 2] {
        [self.rows.shares.len(), self.columns.shares.len()]
    }

    pub(super) fn cost(&self, row: usize, column: usize) -> f64 {
        self.costs[row * self.columns.shares.len() + column].into()
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    /// Lines of the longer side.
    pub n: usize,
    /// Lines of the shorter side.
    pub m: usize,
    /// Values from one row of the table to the next.
    pub stride: usize,
    /// Whether the caller's columns are the longer side.
    pub swapped: bool,
    /// The caller's numbers of the lines.
    pub long: Vec<u32>,
    pub short: Vec<u32>,
    /// Costs less the lowest; 0 in the padding of [`Layout::ByShort`], infinite in that of [`Layout::ByLong`].
    pub costs: Vec<f64>,
    /// Shares of the long side, 0 in the padding, and of the short side.
    pub a: Vec<f64>,
    pub b: Vec<f64>,
    /// The lowest cost, and how far above it the highest is, lines without mass included.
    pub lowest: f64,
    pub spread: f64,
}

/// The lowest and the highest cost; refuses those that are not finite.
fn check_costs<T: Copy + Into<f64>>(
    costs: &[T],
    n_columns: usize,
    problem: usize,
) -> Result<[f64; 2], Error> {
    const WIDTH: usize = 8;
    let (mut low, mut high) = ([f64::INFINITY; WIDTH], [f64::NEG_INFINITY; WIDTH]);
    // Without a branch in the loop, as nearly every matrix passes. A product with 0 is NaN where a cost is not finite.
    let mut poison = [0.0; WIDTH];
    let (blocks, rest) = costs.as_chunks::<WIDTH>();
    let mut look = |l: usize, cost: f64| {
        low[l] = if cost < low[l] { cost } else { low[l] };
        high[l] = if cost > high[l] { cost } else { high[l] };
        poison[l] += cost * 0.0;
    };
    for block in blocks {
        block.iter().enumerate().for_each(|(l, &cost)| look(l, cost.into()));
    }
    rest.iter().enumerate().for_each(|(l, &cost)| look(l, cost.into()));
    let lowest = low.into_iter().fold(low[0], f64::min);
    let highest = high.into_iter().fold(high[0], f64::max);
    if poison == [0.0; WIDTH] && lowest >= -MAX_COST && highest <= MAX_COST {
        return Ok([lowest, highest]);
    }
    let beyond = |cost: f64| cost.is_nan() | (cost.abs() > MAX_COST);
    let at = costs.iter().position(|&cost| beyond(cost.into())).expect("the loop found one");
    let (row, column) = (at / n_columns, at % n_columns);
    Err(Error::Cost { problem, row, column, found: costs[at].into() })
}

impl Table {
    /// Takes over a problem.
    pub(super) fn fill<T: Copy + Into<f64>>(&mut self, problem: &Problem<'_, T>, layout: Layout) {
        let &Problem { costs, rows, columns, range: [lowest, highest] } = problem;
        let n_columns = columns.shares.len();
        let carries = |line: &Line, lines: &mut Vec<u32>| {
            lines.clear();
            lines.extend((0..line.shares.len() as u32).filter(|&i| line.shares[i as usize] > 0.0));
        };
        carries(rows, &mut self.long);
        carries(columns, &mut self.short);
        let (mut of_long, mut of_short) = (rows, columns);
        self.swapped = self.short.len() > self.long.len();
        if self.swapped {
            std::mem::swap(&mut self.long, &mut self.short);
            std::mem::swap(&mut of_long, &mut of_short);
        }
        let [n, m] = [self.long.len(), self.short.len()];
        [self.n, self.m] = [n, m];
        let [outer, inner] = if layout == Layout::ByShort { [m, n] } else { [n, m] };
        self.stride = inner.next_multiple_of(LANES);
        if outer > 8 && self.stride.is_multiple_of(128) {
            // Rows a power of two apart would crowd into few sets of the first cache.
            self.stride += LANES;
        }
        let step_of = |of_rows: bool| if of_rows { n_columns } else { 1 };
        let [long_step, short_step] = [step_of(!self.swapped), step_of(self.swapped)];
        let padding = if layout == Layout::ByShort { 0.0 } else { f64::INFINITY };
        let [outer_lines, inner_lines] = match layout {
            Layout::ByShort => [&self.short, &self.long],
            Layout::ByLong => [&self.long, &self.short],
        };
        let [outer_step, inner_step] = match layout {
            Layout::ByShort => [short_step, long_step],
            Layout::ByLong => [long_step, short_step],
        };
        self.costs.clear();
        self.costs.resize(outer * self.stride, padding);
        // A block of lines at a time, so that both matrices are walked through whole cache lines.
        for (block, lines) in inner_lines.chunks(LANES).enumerate() {
            for (row, &line) in self.costs.chunks_exact_mut(self.stride).zip(outer_lines) {
                let from = line as usize * outer_step;
                let row = &mut row[block * LANES..][..lines.len()];
                for (cell, &other) in row.iter_mut().zip(lines) {
                    *cell = costs[from + other as usize * inner_step].into() - lowest;
                }
            }
        }
        [self.lowest, self.spread] = [lowest, highest - lowest];
        self.a.clear();
        self.a.extend(self.long.iter().map(|&i| of_long.shares[i as usize]));
        if layout == Layout::ByShort {
            self.a.resize(self.stride, 0.0);
        }
        self.b.clear();
        self.b.extend(self.short.iter().map(|&j| of_short.shares[j as usize]));
    }

    /// The caller's row and column of a line of the long and one of the short side.
    pub(super) fn cell(&self, i: usize, j: usize) -> (u32, u32) {
        if self.swapped { (self.short[j], self.long[i]) } else { (self.long[i], self.short[j]) }
    }
}
