//! How much of the mass every row or column holds.
//!
//! ```text
//! uniform      1    1    1    1      every line as much
//! counts       3    1    2    1      a word that is said three times weighs three times
//! given       .2   .1   .4   .3      as it is
//! with pad    ──── 1 - p ────  p     the last line gets the share p, the others the rest in their proportions
//! ```
//!
//! Uniform masses and counts are ratios of integers. The exact solver counts in units of their common denominator, so
//! that nothing is ever "almost used up".

use super::{Batch, Error, Side};

/// Proportions of the lines, packed over all problems.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weights<'a> {
    /// Every line as much; a problem's masses sum to 1.
    Uniform,
    /// By how often a line occurs; a problem's masses sum to 1.
    Counts(&'a [u32]),
    /// As they are. Rows and columns of a problem must sum to the same within 1e-6 of it.
    Given(&'a [f64]),
}

/// The masses of one side of all problems.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Masses<'a> {
    /// Proportions of the lines.
    pub weights: Weights<'a>,
    /// One number in `[0, 1]` a problem: the share of its last line, whose own weight is then not used.
    pub pad_share: Option<&'a [f64]>,
}

impl<'a> Masses<'a> {
    /// Every line as much.
    pub const UNIFORM: Self = Self { weights: Weights::Uniform, pad_share: None };

    /// By how often a line occurs.
    pub fn counts(counts: &'a [u32]) -> Self {
        Self { weights: Weights::Counts(counts), pad_share: None }
    }

    /// As given.
    pub fn given(masses: &'a [f64]) -> Self {
        Self { weights: Weights::Given(masses), pad_share: None }
    }

    /// The same, with a share of every problem's mass for its last line.
    pub fn with_pad(self, shares: &'a [f64]) -> Self {
        Self { pad_share: Some(shares), ..self }
    }

    /// Refuses masses that are not one a line.
    pub(super) fn check(&self, batch: &Batch, side: Side) -> Result<(), Error> {
        let [n_rows, n_columns, _] = batch.totals();
        let expected = if side == Side::Rows { n_rows } else { n_columns };
        let found = match self.weights {
            Weights::Uniform => expected,
            Weights::Counts(counts) => counts.len(),
            Weights::Given(masses) => masses.len(),
        };
        if found != expected {
            return Err(Error::MassCount { side, found, expected });
        }
        match self.pad_share {
            Some(shares) if shares.len() != batch.len() => {
                Err(Error::PadCount { side, found: shares.len(), expected: batch.len() })
            }
            _ => Ok(()),
        }
    }
}

/// The masses of one side of one problem, made ready for a solver.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Shares of the total; they sum to 1 within rounding.
    pub shares: Vec<f64>,
    /// What the caller's masses sum to.
    pub total: f64,
    /// Whole numbers in proportion to the masses, where there are some.
    units: Option<Vec<i64>>,
}

impl Line {
    /// The masses of a problem's rows or columns.
    pub(super) fn fill(
        &mut self,
        masses: &Masses<'_>,
        batch: &Batch,
        problem: usize,
        side: Side,
    ) -> Result<(), Error> {
        let range = if side == Side::Rows { batch.rows(problem) } else { batch.columns(problem) };
        let n = range.len();
        let kept = self.units.take();
        let shares = &mut self.shares;
        shares.clear();
        match masses.weights {
            Weights::Uniform => shares.resize(n, 1.0),
            Weights::Counts(counts) => {
                shares.extend(counts[range].iter().map(|&count| f64::from(count)));
            }
            Weights::Given(masses) => shares.extend_from_slice(&masses[range]),
        }
        if let Some(index) = shares.iter().position(|&mass| !(mass >= 0.0 && mass.is_finite())) {
            return Err(Error::Mass { problem, side, index, found: shares[index] });
        }
        let whole = masses.pad_share.is_none() && !matches!(masses.weights, Weights::Given(_));
        if whole {
            let mut units = kept.unwrap_or_default();
            units.clear();
            units.extend(shares.iter().map(|&count| count as i64));
            self.units = Some(units);
        }
        let others = if masses.pad_share.is_some() { n - 1 } else { n };
        let sum = shares[..others].iter().fold(0.0, |sum, share| sum + share);
        let pad = masses.pad_share.map_or(0.0, |shares| shares[problem]);
        if !(0.0..=1.0).contains(&pad) {
            return Err(Error::PadShare { problem, side, found: pad });
        }
        if !sum.is_finite() || (sum <= 0.0 && pad < 1.0) {
            return Err(Error::NoMass { problem, side, found: sum });
        }
        // With a pad, what is given for the others are proportions only.
        let given = matches!(masses.weights, Weights::Given(_)) && masses.pad_share.is_none();
        self.total = if given { sum } else { 1.0 };
        for share in &mut shares[..others] {
            *share = if pad < 1.0 { *share / sum * (1.0 - pad) } else { 0.0 };
        }
        if masses.pad_share.is_some() {
            shares[n - 1] = pad;
        }
        Ok(())
    }
}

/// How finely masses that are no ratios of small integers are counted.
const FINEST: i64 = 1 << 52;

/// Whole numbers in proportion to the masses of both sides, which sum to the same; returns the sum.
pub(super) fn units(
    rows: &Line,
    columns: &Line,
    of_rows: &mut Vec<i64>,
    of_columns: &mut Vec<i64>,
) -> i64 {
    of_rows.clear();
    of_columns.clear();
    if let (Some(rows), Some(columns)) = (&rows.units, &columns.units) {
        let sums = [rows, columns].map(|units| units.iter().sum::<i64>());
        let divisor = gcd(sums[0], sums[1]);
        if let Some(sum) = (sums[0] / divisor).checked_mul(sums[1]).filter(|&sum| sum <= FINEST) {
            of_rows.extend(rows.iter().map(|unit| unit * (sums[1] / divisor)));
            of_columns.extend(columns.iter().map(|unit| unit * (sums[0] / divisor)));
            return sum;
        }
    }
    round(&rows.shares, of_rows);
    round(&columns.shares, of_columns);
    FINEST
}

/// Shares in units of 2^-52. What rounding leaves over goes to the largest, where it matters least.
fn round(shares: &[f64], units: &mut Vec<i64>) {
    units.extend(shares.iter().map(|share| (share * FINEST as f64).round() as i64));
    let largest = (0..shares.len()).max_by(|&i, &j| shares[i].total_cmp(&shares[j]));
    let rest = FINEST - units.iter().sum::<i64>();
    units[largest.expect("a problem has at least one line")] += rest;
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(masses: Masses<'_>, n: usize) -> Result<Vec<f64>, Error> {
        let batch = Batch::one([n, 1]).unwrap();
        masses.check(&batch, Side::Rows)?;
        let mut line = Line::default();
        line.fill(&masses, &batch, 0, Side::Rows)?;
        Ok(line.shares)
    }

    #[test]
    fn shares_follow_the_weights() {
        assert_eq!(shares(Masses::UNIFORM, 4).unwrap(), [0.25; 4]);
        assert_eq!(shares(Masses::counts(&[3, 1, 0]), 3).unwrap(), [0.75, 0.25, 0.0]);
        assert_eq!(shares(Masses::given(&[2.0, 6.0]), 2).unwrap(), [0.25, 0.75]);
        // The pad takes half; the others share the rest three to one, whatever the pad's own count.
        assert_eq!(
            shares(Masses::counts(&[3, 1, 9]).with_pad(&[0.5]), 3).unwrap(),
            [0.375, 0.125, 0.5]
        );
        assert_eq!(shares(Masses::UNIFORM.with_pad(&[1.0]), 1).unwrap(), [1.0]);
    }

    #[test]
    fn impossible_masses_are_refused() {
        let message = |masses, n| shares(masses, n).unwrap_err().to_string();
        assert_eq!(message(Masses::counts(&[1]), 2), "1 masses for the rows, expected 2");
        assert_eq!(
            message(Masses::given(&[1.0, -2.0]), 2),
            "problem 0: mass 1 of the rows is -2, expected a finite number, not negative"
        );
        assert!(message(Masses::given(&[f64::NAN]), 1).contains("mass 0 of the rows is NaN"));
        assert!(message(Masses::given(&[0.0, 0.0]), 2).contains("sum to 0, expected"));
        assert!(message(Masses::given(&[f64::MAX, f64::MAX]), 2).contains("sum to inf, expected"));
        assert!(message(Masses::UNIFORM.with_pad(&[1.5]), 2).contains("is 1.5, expected 0 to 1"));
        assert!(message(Masses::UNIFORM.with_pad(&[0.5]), 1).contains("sum to 0, expected"));
        assert!(message(Masses::UNIFORM.with_pad(&[]), 1).contains("0 pad shares"));
    }

    #[test]
    fn units_of_both_sides_sum_to_the_same() {
        let lines = |masses: [Masses<'_>; 2], shape| {
            let batch = Batch::one(shape).unwrap();
            let [mut rows, mut columns] = [Line::default(), Line::default()];
            rows.fill(&masses[0], &batch, 0, Side::Rows).unwrap();
            columns.fill(&masses[1], &batch, 0, Side::Columns).unwrap();
            let (mut a, mut b) = (vec![], vec![]);
            let sum = units(&rows, &columns, &mut a, &mut b);
            assert_eq!([a.iter().sum::<i64>(), b.iter().sum::<i64>()], [sum, sum]);
            (a, b)
        };
        // 1/6 and 1/4 in twelfths.
        assert_eq!(lines([Masses::UNIFORM; 2], [6, 4]), (vec![2; 6], vec![3; 4]));
        let counts = Masses::counts(&[1, 2]);
        assert_eq!(lines([Masses::UNIFORM, counts], [6, 2]), (vec![1; 6], vec![2, 4]));
        let given = [0.1, 0.2, 0.7];
        lines([Masses::UNIFORM, Masses::given(&given)], [7, 3]);
    }
}
