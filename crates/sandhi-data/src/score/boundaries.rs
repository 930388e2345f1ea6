//! How far word times are from a reference.
//!
//! ```text
//! reference   |--- the ---|      |---- ball ----|
//! hypothesis     |-- the --|    |---- ball ---|
//!             |s|         |e|   |s|           |e|      boundary error: the mean of all |s| and |e|
//!             durations 11 and 10, 14 and 13           duration error: the mean of |1| and |1|
//! ```
//!
//! Words are matched by the shortest edits between the two sequences of labels, normalized as CTC characters are; what
//! has no equal counterpart is counted and not timed.

use serde::{Deserialize, Serialize};

use super::{Bootstrap, Edit, Error, Interval, align, check_lengths, edit::intern};
use crate::{alignment::Alignment, text::normalize};

/// Errors up to these many seconds have a share of their own.
pub const TOLERANCES_S: [f64; 3] = [0.02, 0.05, 0.1];

/// Errors of the words of one utterance, or of a sum of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct BoundaryCounts {
    /// Words that both sides have.
    pub n_matched: usize,
    /// Words of the reference.
    pub n_reference: usize,
    /// Words of the hypothesis.
    pub n_hypothesis: usize,
    /// Sum of the distances between starts, in seconds.
    pub start_s: f64,
    /// Sum of the distances between ends, in seconds.
    pub end_s: f64,
    /// Sum of the differences between durations, in seconds, their signs dropped.
    pub duration_s: f64,
    /// Sum of how much later a start is than the reference's, in seconds.
    pub late_start_s: f64,
    /// Sum of how much later an end is than the reference's, in seconds.
    pub late_end_s: f64,
    /// Starts and ends within each of [`TOLERANCES_S`].
    pub n_within: [usize; 3],
}

impl BoundaryCounts {
    /// Mean distance of a start or end from the reference's, in seconds; 0 where no word is matched.
    pub fn boundary_error_s(&self) -> f64 {
        (self.start_s + self.end_s) / (2 * self.n_matched).max(1) as f64
    }

    /// Mean difference of a word's duration from the reference's, in seconds; 0 where no word is matched.
    pub fn duration_error_s(&self) -> f64 {
        self.duration_s / self.n_matched.max(1) as f64
    }

    /// Shares of starts and ends within each of [`TOLERANCES_S`].
    pub fn shares_within(&self) -> [f64; 3] {
        self.n_within.map(|n| n as f64 / (2 * self.n_matched).max(1) as f64)
    }
}

impl std::ops::AddAssign for BoundaryCounts {
    fn add_assign(&mut self, other: Self) {
        self.n_matched += other.n_matched;
        self.n_reference += other.n_reference;
        self.n_hypothesis += other.n_hypothesis;
        self.start_s += other.start_s;
        self.end_s += other.end_s;
        self.duration_s += other.duration_s;
        self.late_start_s += other.late_start_s;
        self.late_end_s += other.late_end_s;
        for (sum, n) in self.n_within.iter_mut().zip(other.n_within) {
            *sum += n;
        }
    }
}

/// Boundary and duration errors of a corpus with the evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Boundaries {
    /// Sums over all utterances.
    pub counts: BoundaryCounts,
    /// Median distance of a start or end from the reference's, in seconds; 0 where no word is matched.
    pub median_s: f64,
    /// Counts of every utterance, in order.
    pub per_utterance: Vec<BoundaryCounts>,
}

impl Boundaries {
    /// A bootstrap interval of the boundary error, in seconds.
    pub fn boundary_error(&self, bootstrap: &Bootstrap) -> Interval {
        bootstrap.interval(&self.per_utterance, BoundaryCounts::boundary_error_s)
    }

    /// A bootstrap interval of the duration error, in seconds.
    pub fn duration_error(&self, bootstrap: &Bootstrap) -> Interval {
        bootstrap.interval(&self.per_utterance, BoundaryCounts::duration_error_s)
    }
}

/// Compares the words of utterances, in order.
///
/// # Errors
///
/// [`Error::LengthMismatch`] when there are not as many utterances on both sides.
pub fn boundaries<R, H>(references: &[R], hypotheses: &[H]) -> Result<Boundaries, Error>
where
    R: AsRef<[Alignment]>,
    H: AsRef<[Alignment]>,
{
    check_lengths(references.len(), hypotheses.len())?;
    let mut distances = Vec::new();
    let per_utterance: Vec<BoundaryCounts> = references
        .iter()
        .zip(hypotheses)
        .map(|(reference, hypothesis)| {
            utterance(reference.as_ref(), hypothesis.as_ref(), &mut distances)
        })
        .collect();
    let mut counts = BoundaryCounts::default();
    per_utterance.iter().for_each(|&utterance| counts += utterance);
    distances.sort_by(f64::total_cmp);
    let n = distances.len();
    let middle = n.checked_sub(1).map(|last| (distances[last / 2] + distances[n / 2]) / 2.0);
    Ok(Boundaries { counts, median_s: middle.unwrap_or(0.0), per_utterance })
}

fn utterance(
    reference: &[Alignment],
    hypothesis: &[Alignment],
    distances: &mut Vec<f64>,
) -> BoundaryCounts {
    let labels =
        |words: &[Alignment]| words.iter().map(|w| normalize(&w.label)).collect::<Vec<_>>();
    let (ours, theirs) = (labels(reference), labels(hypothesis));
    let (ours, theirs): (Vec<&str>, Vec<&str>) =
        (ours.iter().map(String::as_str).collect(), theirs.iter().map(String::as_str).collect());
    let (ours, theirs) = intern(&ours, &theirs);
    let mut counts = BoundaryCounts {
        n_reference: reference.len(),
        n_hypothesis: hypothesis.len(),
        ..BoundaryCounts::default()
    };
    let (mut references, mut hypotheses) = (reference.iter(), hypothesis.iter());
    for edit in align(&ours, &theirs) {
        let right = if edit == Edit::Insert { None } else { references.next() };
        let found = if edit == Edit::Delete { None } else { hypotheses.next() };
        let (Edit::Equal, Some(right), Some(found)) = (edit, right, found) else { continue };
        let (start_s, end_s) = (found.start_s - right.start_s, found.end_s - right.end_s);
        counts.n_matched += 1;
        counts.start_s += start_s.abs();
        counts.end_s += end_s.abs();
        counts.late_start_s += start_s;
        counts.late_end_s += end_s;
        counts.duration_s += (end_s - start_s).abs();
        for distance in [start_s.abs(), end_s.abs()] {
            distances.push(distance);
            for (n, tolerance) in counts.n_within.iter_mut().zip(TOLERANCES_S) {
                // What is exactly at the tolerance is within it, however the times were rounded.
                *n += usize::from(distance <= tolerance + 1e-9);
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alignment::tests::label as word;

    #[test]
    fn distances_are_those_of_equal_words() {
        let reference =
            vec![word("The", 0.10, 0.30), word("old", 0.30, 0.50), word("ball,", 0.60, 1.00)];
        // "old" is missing; the others are 20 ms late and 50 ms early, 100 ms late and 10 ms late.
        let hypothesis = vec![word("the", 0.12, 0.25), word("ball", 0.70, 1.01)];
        let found = boundaries(&[reference, vec![]], &[hypothesis, vec![]]).unwrap();
        let counts = found.counts;
        assert_eq!((counts.n_matched, counts.n_reference, counts.n_hypothesis), (2, 3, 2));
        assert!((counts.boundary_error_s() - 0.18 / 4.0).abs() < 1e-9);
        assert!((counts.duration_error_s() - (0.07 + 0.09) / 2.0).abs() < 1e-9);
        assert!((counts.late_start_s - 0.12).abs() < 1e-9);
        assert!((counts.late_end_s + 0.04).abs() < 1e-9);
        assert_eq!(counts.shares_within(), [0.5, 0.75, 1.0]);
        // Of 10, 20, 50 and 100 ms.
        assert!((found.median_s - 0.035).abs() < 1e-9);
        let interval = found.boundary_error(&Bootstrap::default());
        assert!((interval.value - 0.045).abs() < 1e-9 && interval.n == 2);
    }

    #[test]
    fn nothing_in_common_is_no_error_and_no_word() {
        let found = boundaries(&[vec![word("a", 0.0, 1.0)]], &[vec![word("b", 0.0, 1.0)]]).unwrap();
        assert_eq!((found.counts.n_matched, found.counts.boundary_error_s()), (0, 0.0));
        assert_eq!((found.median_s, found.counts.shares_within()), (0.0, [0.0; 3]));
        let none: [Vec<Alignment>; 0] = [];
        assert!(boundaries(&none, &[vec![word("a", 0.0, 1.0)]]).is_err());
    }
}
