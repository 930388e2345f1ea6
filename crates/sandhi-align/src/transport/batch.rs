//! Where the problems of a ragged batch begin: no padding, no two problems of one shape needed.
//!
//! ```text
//! row offsets     0      3    5      problem 0: rows 0..3, columns 0..2    cost[0..6]
//! column offsets  0   2     5        problem 1: rows 3..5, columns 2..5    cost[6..12]
//! ```
//!
//! The costs of a problem are a row-major matrix `[n_rows, n_columns]`; the matrices follow each other.

use std::ops::Range;

use super::{Error, Side};

/// Rows, columns and cells of the problems of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    rows: Vec<usize>,
    columns: Vec<usize>,
    cells: Vec<usize>,
}

impl Batch {
    /// A batch from the first row and column of every problem and, at the end, how many there are.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetCount`] when there are not as many row offsets as column offsets, [`Error::Offset`] when they do
    /// not begin at 0 or do not ascend (a problem has at least one row and one column), [`Error::TooLarge`].
    pub fn new(row_offsets: &[usize], column_offsets: &[usize]) -> Result<Self, Error> {
        if row_offsets.is_empty() || row_offsets.len() != column_offsets.len() {
            return Err(Error::OffsetCount {
                rows: row_offsets.len(),
                columns: column_offsets.len(),
            });
        }
        for (side, offsets) in [(Side::Rows, row_offsets), (Side::Columns, column_offsets)] {
            if offsets[0] != 0 {
                return Err(Error::Offset { side, index: 0, found: offsets[0], expected: 0 });
            }
            if let Some(i) = offsets.windows(2).position(|pair| pair[1] <= pair[0]) {
                let expected = offsets[i].saturating_add(1);
                return Err(Error::Offset { side, index: i + 1, found: offsets[i + 1], expected });
            }
        }
        let mut cells = Vec::with_capacity(row_offsets.len());
        cells.push(0_usize);
        for (problem, (rows, columns)) in
            row_offsets.windows(2).zip(column_offsets.windows(2)).enumerate()
        {
            let [n_rows, n_columns] = [rows[1] - rows[0], columns[1] - columns[0]];
            // Positions of lines are kept in 32 bits.
            let end = (n_rows.max(n_columns) < u32::MAX as usize)
                .then(|| n_rows.checked_mul(n_columns)?.checked_add(cells[problem]))
                .flatten();
            cells.push(end.ok_or(Error::TooLarge { problem, n_rows, n_columns })?);
        }
        Ok(Self { rows: row_offsets.to_vec(), columns: column_offsets.to_vec(), cells })
    }

    /// A batch of one problem.
    ///
    /// # Errors
    ///
    /// As [`Batch::new`].
    pub fn one([n_rows, n_columns]: [usize; 2]) -> Result<Self, Error> {
        Self::new(&[0, n_rows], &[0, n_columns])
    }

    /// How many problems there are.
    pub fn len(&self) -> usize {
        self.cells.len() - 1
    }

    /// Whether there is no problem.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows of a problem, among those of all.
    pub fn rows(&self, problem: usize) -> Range<usize> {
        self.rows[problem]..self.rows[problem + 1]
    }

    /// Columns of a problem, among those of all.
    pub fn columns(&self, problem: usize) -> Range<usize> {
        self.columns[problem]..self.columns[problem + 1]
    }

    /// Cells of a problem's matrix, among those of all.
    pub fn cells(&self, problem: usize) -> Range<usize> {
        self.cells[problem]..self.cells[problem + 1]
    }

    /// `[n_rows, n_columns]` of a problem.
    pub fn shape(&self, problem: usize) -> [usize; 2] {
        [self.rows(problem).len(), self.columns(problem).len()]
    }

    /// Rows, columns and cells of all problems.
    pub fn totals(&self) -> [usize; 3] {
        [&self.rows, &self.columns, &self.cells].map(|offsets| offsets[self.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_lie_behind_each_other() {
        let batch = Batch::new(&[0, 3, 5], &[0, 2, 5]).unwrap();
        assert_eq!((batch.len(), batch.is_empty(), batch.totals()), (2, false, [5, 5, 12]));
        assert_eq!((batch.shape(1), batch.rows(1), batch.columns(1)), ([2, 3], 3..5, 2..5));
        assert_eq!(batch.cells(1), 6..12);
        assert!(Batch::new(&[0], &[0]).unwrap().is_empty());
    }

    #[test]
    fn offsets_that_do_not_fit_are_refused() {
        let message =
            |rows: &[usize], columns: &[usize]| Batch::new(rows, columns).unwrap_err().to_string();
        assert_eq!(
            message(&[0, 3], &[0]),
            "2 row offsets and 1 column offsets, expected as many of both, at least one"
        );
        assert_eq!(
            message(&[], &[]),
            "0 row offsets and 0 column offsets, expected as many of both, at least one"
        );
        assert_eq!(message(&[1, 3], &[0, 2]), "offset 0 of the rows is 1, expected 0");
        assert_eq!(
            message(&[0, 3, 5], &[0, 2, 2]),
            "offset 2 of the columns is 2, expected at least 3: a problem has a row and a column"
        );
        let half = usize::MAX / 2;
        assert!(message(&[0, half], &[0, half]).contains("are more than fit"));
    }
}
