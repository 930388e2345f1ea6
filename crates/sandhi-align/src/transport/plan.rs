//! The transport plan: how much goes from every row to every column.
//!
//! ```text
//! dense    .1 .0 .2      sparse   offsets  0  2  3     one row behind the other,
//!          .0 .3 .0               columns  0 2 1       columns ascend
//!                                 masses  .1 .2 .3
//! ```

/// A matrix `[n_rows, n_columns]` of masses.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Rows.
    pub n_rows: usize,
    /// Columns.
    pub n_columns: usize,
    /// The masses.
    pub entries: Entries,
}

/// How a plan is held.
#[derive(Debug, Clone, PartialEq)]
pub enum Entries {
    /// Row-major `[n_rows, n_columns]`: entropic plans, which have no zeros.
    Dense(Vec<f64>),
    /// Compressed rows: exact and monotone plans, about one entry a row.
    Sparse {
        /// First entry of every row and, at the end, how many entries there are.
        offsets: Vec<usize>,
        /// Column of every entry.
        columns: Vec<u32>,
        /// Mass of every entry, positive.
        masses: Vec<f64>,
    },
}

impl Plan {
    /// Every entry as `(row, column, mass)`, row by row.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (usize, usize, f64)> + '_> {
        match &self.entries {
            Entries::Dense(values) => {
                let n = self.n_columns;
                Box::new(values.iter().enumerate().map(move |(at, &mass)| (at / n, at % n, mass)))
            }
            Entries::Sparse { offsets, columns, masses } => {
                Box::new((0..self.n_rows).flat_map(move |row| {
                    (offsets[row]..offsets[row + 1])
                        .map(move |at| (row, columns[at] as usize, masses[at]))
                }))
            }
        }
    }

    /// Row-major `[n_rows, n_columns]`.
    pub fn to_dense(&self) -> Vec<f64> {
        if let Entries::Dense(values) = &self.entries {
            return values.clone();
        }
        let mut dense = vec![0.0; self.n_rows * self.n_columns];
        for (row, column, mass) in self.iter() {
            dense[row * self.n_columns + column] = mass;
        }
        dense
    }

    /// What the entries of every row sum to.
    pub fn row_sums(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.n_rows];
        self.iter().for_each(|(row, _, mass)| sums[row] += mass);
        sums
    }

    /// What the entries of every column sum to.
    pub fn column_sums(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.n_columns];
        self.iter().for_each(|(_, column, mass)| sums[column] += mass);
        sums
    }

    /// A sparse plan from entries in any order.
    pub(super) fn sparse(n_rows: usize, n_columns: usize, mut list: Vec<(u32, u32, f64)>) -> Self {
        list.sort_unstable_by_key(|&(row, column, _)| (row, column));
        let mut offsets = vec![0; n_rows + 1];
        for &(row, _, _) in &list {
            offsets[row as usize + 1] += 1;
        }
        for row in 0..n_rows {
            offsets[row + 1] += offsets[row];
        }
        let columns = list.iter().map(|&(_, column, _)| column).collect();
        let masses = list.iter().map(|&(_, _, mass)| mass).collect();
        Self { n_rows, n_columns, entries: Entries::Sparse { offsets, columns, masses } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_hold_the_same() {
        let sparse = Plan::sparse(3, 3, vec![(2, 1, 0.3), (0, 2, 0.2), (0, 0, 0.1)]);
        let dense = vec![0.1, 0.0, 0.2, 0.0, 0.0, 0.0, 0.0, 0.3, 0.0];
        assert_eq!(sparse.to_dense(), dense);
        assert_eq!(sparse.iter().next(), Some((0, 0, 0.1)));
        let full = Plan { n_rows: 3, n_columns: 3, entries: Entries::Dense(dense) };
        assert_eq!(
            (sparse.row_sums(), sparse.column_sums()),
            (full.row_sums(), full.column_sums())
        );
        assert_eq!(full.iter().count(), 9);
    }
}
