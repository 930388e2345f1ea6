//! Bootstrap intervals: how far a score could lie from its value with other utterances.
//!
//! ```text
//! counts of utterances  c0 c1 c2 c3     value = score(c0 + c1 + c2 + c3)
//! resample              c2 c0 c2 c3     score(c2 + c0 + c2 + c3)        1,000 times
//! interval              the 2.5 % and 97.5 % quantiles of these
//! ```
//!
//! Percentile intervals (Efron, 1979), for systems on the same utterances paired: both are
//! resampled alike (Koehn, EMNLP 2004, <https://aclanthology.org/W04-3250>). The same seed gives
//! the same interval.

use serde::{Deserialize, Serialize};

use super::{Error, check_lengths};
use crate::rng::Stream;

/// A value with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The value on all utterances.
    pub value: f64,
    /// Lower end of the interval.
    pub lo: f64,
    /// Upper end of the interval.
    pub hi: f64,
    /// Number of utterances.
    pub n: usize,
}

/// How intervals are made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bootstrap {
    /// Where the resampling derives from.
    pub seed: u64,
    /// How often utterances are drawn anew.
    pub n_resamples: usize,
    /// The share of resamples that the interval covers, as 0.95.
    pub coverage: f64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { seed: 0, n_resamples: 1_000, coverage: 0.95 }
    }
}

impl Bootstrap {
    /// The default of 1,000 resamples and 95 %, with a seed.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// The interval of a score that is a function of summed counts.
    pub fn interval<T>(&self, counts: &[T], score: impl Fn(&T) -> f64) -> Interval
    where
        T: Clone + Default + std::ops::AddAssign,
    {
        self.statistic(counts.len(), |indices| score(&sum(counts, indices)))
    }

    /// The interval of the difference `score(first) - score(second)` of two systems on the same
    /// utterances. A difference is beyond chance when the interval excludes 0.
    ///
    /// # Errors
    ///
    /// [`Error::LengthMismatch`] when the lists differ in length.
    pub fn paired<T>(
        &self,
        first: &[T],
        second: &[T],
        score: impl Fn(&T) -> f64,
    ) -> Result<Interval, Error>
    where
        T: Clone + Default + std::ops::AddAssign,
    {
        self.paired_within(&[(first, second)], score)
    }

    /// The interval of the mean difference over several runs (seeds), each a pair of lists over
    /// the same utterances: utterances are drawn within each run.
    ///
    /// # Errors
    ///
    /// [`Error::LengthMismatch`] when the lists of a run differ in length.
    pub fn paired_within<T>(
        &self,
        runs: &[(&[T], &[T])],
        score: impl Fn(&T) -> f64,
    ) -> Result<Interval, Error>
    where
        T: Clone + Default + std::ops::AddAssign,
    {
        for (first, second) in runs {
            check_lengths(first.len(), second.len())?;
        }
        let lengths: Vec<usize> = runs.iter().map(|(first, _)| first.len()).collect();
        Ok(self.grouped(&lengths, |draws| {
            let differences = runs.iter().zip(draws).map(|((first, second), indices)| {
                score(&sum(first, indices)) - score(&sum(second, indices))
            });
            differences.sum::<f64>() / runs.len().max(1) as f64
        }))
    }

    /// The interval of any statistic of `n` utterances, given which of them were drawn.
    pub fn statistic(&self, n: usize, statistic: impl Fn(&[usize]) -> f64) -> Interval {
        self.grouped(&[n], |draws| statistic(&draws[0]))
    }

    fn grouped(&self, lengths: &[usize], statistic: impl Fn(&[Vec<usize>]) -> f64) -> Interval {
        let mut draws: Vec<Vec<usize>> = lengths.iter().map(|&n| (0..n).collect()).collect();
        let value = statistic(&draws);
        let mut random = Stream::named(self.seed, "bootstrap");
        let mut values: Vec<f64> = (0..self.n_resamples)
            .map(|_| {
                for draw in &mut draws {
                    let n = draw.len();
                    draw.iter_mut().for_each(|index| *index = random.below(n));
                }
                statistic(&draws)
            })
            .collect();
        // A draw of nothing that counts says nothing.
        if value.is_nan() {
            values.clear();
        } else {
            values.retain(|value| !value.is_nan());
        }
        values.sort_by(f64::total_cmp);
        let tail = (1.0 - self.coverage) / 2.0;
        Interval {
            value,
            lo: quantile(&values, tail).unwrap_or(value),
            hi: quantile(&values, 1.0 - tail).unwrap_or(value),
            n: lengths.iter().sum(),
        }
    }
}

fn sum<T: Clone + Default + std::ops::AddAssign>(counts: &[T], indices: &[usize]) -> T {
    let mut total = T::default();
    indices.iter().for_each(|&index| total += counts[index].clone());
    total
}

/// Linear between order statistics; `None` of no values.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    // Equal ends must not pick up rounding.
    Some(if part == 0.0 {
        sorted[below]
    } else {
        sorted[below] * (1.0 - part) + sorted[above] * part
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::{EditCounts, wer};

    fn coin(n_right: usize, n: usize) -> Vec<EditCounts> {
        let counts = |right: bool| EditCounts {
            hits: usize::from(right),
            substitutions: usize::from(!right),
            ..EditCounts::default()
        };
        (0..n).map(|i| counts(i < n_right)).collect()
    }

    fn rate(counts: &EditCounts) -> f64 {
        counts.rate()
    }

    #[test]
    fn a_coin_has_the_interval_of_the_binomial() {
        // 100 of 400 wrong: 0.25 ± 1.96 · sqrt(0.25 · 0.75 / 400) = 0.25 ± 0.0424.
        let interval = Bootstrap::seeded(1).interval(&coin(300, 400), rate);
        assert_eq!((interval.value, interval.n), (0.25, 400));
        assert!((interval.lo - 0.2076).abs() < 0.008, "{interval:?}");
        assert!((interval.hi - 0.2924).abs() < 0.008, "{interval:?}");
    }

    #[test]
    fn draws_of_nothing_that_counts_are_left_out() {
        // One utterance in three counts, and it is right: there is no interval but that of being right.
        let share = |indices: &[usize]| {
            let n = indices.iter().filter(|&&i| i == 0).count() as f64;
            if n > 0.0 { n / n } else { f64::NAN }
        };
        let interval = Bootstrap::seeded(1).statistic(3, share);
        assert_eq!((interval.value, interval.lo, interval.hi), (1.0, 1.0, 1.0));
    }

    #[test]
    fn the_seed_decides() {
        let mean = |seed| {
            let mean = |indices: &[usize]| indices.iter().sum::<usize>() as f64 / 70.0;
            Bootstrap::seeded(seed).statistic(70, mean)
        };
        assert_eq!(mean(1), mean(1));
        assert_ne!(mean(1), mean(2));
    }

    #[test]
    fn nothing_and_one_have_no_width() {
        let bootstrap = Bootstrap::default();
        let empty = bootstrap.interval(&coin(0, 0), rate);
        assert_eq!(empty, Interval { value: 0.0, lo: 0.0, hi: 0.0, n: 0 });
        let one = bootstrap.interval(&coin(0, 1), rate);
        assert_eq!(one, Interval { value: 1.0, lo: 1.0, hi: 1.0, n: 1 });
        let no_resamples = Bootstrap { n_resamples: 0, ..bootstrap }.interval(&coin(1, 2), rate);
        assert_eq!(no_resamples, Interval { value: 0.5, lo: 0.5, hi: 0.5, n: 2 });
    }

    #[test]
    fn pairing_removes_what_both_have_in_common() {
        // The second system fails wherever the first does, and on five more of 200.
        let (first, second) = (coin(120, 200), coin(115, 200));
        let bootstrap = Bootstrap::seeded(3);
        let paired = bootstrap.paired(&second, &first, rate).unwrap();
        assert!((paired.value - 0.025).abs() < 1e-12);
        assert!(paired.lo > 0.0, "{paired:?}");
        // Drawn apart, the difference would vary more than either rate alone.
        let alone = bootstrap.interval(&first, rate);
        assert!(alone.hi - alone.lo > 2.0 * (paired.hi - paired.lo), "{alone:?} {paired:?}");
        assert!(bootstrap.paired(&second, &first[1..], rate).is_err());
    }

    #[test]
    fn runs_are_averaged() {
        let (a, b, c) = (coin(10, 20), coin(20, 20), coin(5, 20));
        let bootstrap = Bootstrap::default();
        // (0.5 - 0) and (0.75 - 0), averaged.
        let mean = bootstrap.paired_within(&[(&a, &b), (&c, &b)], rate).unwrap();
        assert_eq!((mean.value, mean.n), (0.625, 40));
    }

    #[test]
    fn word_errors_are_ratios_of_sums() {
        let score = wer(&["a b c d", "e"], &["a b c d", "x"]).unwrap();
        let interval = score.interval(&Bootstrap::default());
        // Both utterances: 1 of 5; the second alone twice: 2 of 2.
        assert_eq!((interval.value, interval.lo, interval.hi), (0.2, 0.0, 1.0));
    }

    #[test]
    fn quantiles_lie_between_values() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), Some(3.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
