//! Exact match: the share of answers that equal the reference after trimming.

use serde::{Deserialize, Serialize};

use super::{Bootstrap, Error, Interval, check_lengths, is_space};

/// The share of right answers with the evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExactMatch {
    /// Share of utterances that match, a fraction; 0 for an empty corpus.
    pub rate: f64,
    /// Which utterances match, in order.
    pub per_utterance: Vec<bool>,
}

impl ExactMatch {
    /// A bootstrap interval of the rate over utterances.
    pub fn interval(&self, bootstrap: &Bootstrap) -> Interval {
        bootstrap.statistic(self.per_utterance.len(), |indices| {
            let n_right = indices.iter().filter(|&&index| self.per_utterance[index]).count();
            n_right as f64 / indices.len().max(1) as f64
        })
    }
}

/// Compares after trimming white space and joining inner runs of it; case and punctuation count
/// (normalize both sides first where they should not).
///
/// # Errors
///
/// [`Error::LengthMismatch`] when the two lists differ in length.
pub fn exact_match<R: AsRef<str>, H: AsRef<str>>(
    references: &[R],
    hypotheses: &[H],
) -> Result<ExactMatch, Error> {
    check_lengths(references.len(), hypotheses.len())?;
    let per_utterance: Vec<bool> = references
        .iter()
        .zip(hypotheses)
        .map(|(reference, hypothesis)| {
            let words = |text| str::split(text, is_space).filter(|word: &&str| !word.is_empty());
            words(reference.as_ref()).eq(words(hypothesis.as_ref()))
        })
        .collect();
    let n_right = per_utterance.iter().filter(|&&right| right).count();
    Ok(ExactMatch { rate: n_right as f64 / per_utterance.len().max(1) as f64, per_utterance })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_does_not_count_and_case_does() {
        let score =
            exact_match(&["in the hall", "Two", ""], &[" in  the hall\n", "two", ""]).unwrap();
        assert_eq!(score.per_utterance, [true, false, true]);
        assert!((score.rate - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn an_empty_corpus_has_rate_zero() {
        assert_eq!(exact_match::<&str, &str>(&[], &[]).unwrap().rate, 0.0);
    }
}
