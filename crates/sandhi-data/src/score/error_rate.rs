//! Word and character error rates over a corpus.
//!
//! ```text
//! rate = (substitutions + deletions + insertions) / (hits + substitutions + deletions)
//! ```
//!
//! Counts are summed over the corpus before dividing, never averaged per utterance. Words and
//! characters are cut as `jiwer` 4 cuts them by default: runs of two or more white-space
//! characters become one space, the ends are trimmed, words are what stands between *spaces*
//! (a single tab or no-break space stays inside its word), characters include inner spaces. A
//! corpus without reference symbols has the number of insertions as its rate, as in `jiwer`.

use serde::{Deserialize, Serialize};

use super::{Bootstrap, Edit, Error, Interval, align, check_lengths, edit::intern, is_space};

/// How often each kind of edit occurs in one alignment, or in a sum of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EditCounts {
    /// Symbols recognized.
    pub hits: usize,
    /// Symbols replaced by others.
    pub substitutions: usize,
    /// Reference symbols without a counterpart.
    pub deletions: usize,
    /// Hypothesis symbols without a counterpart.
    pub insertions: usize,
}

impl EditCounts {
    /// Counts the edits of one alignment.
    pub fn of(edits: &[Edit]) -> Self {
        let mut counts = Self::default();
        for edit in edits {
            match edit {
                Edit::Equal => counts.hits += 1,
                Edit::Substitute => counts.substitutions += 1,
                Edit::Delete => counts.deletions += 1,
                Edit::Insert => counts.insertions += 1,
            }
        }
        counts
    }

    /// Substitutions, deletions and insertions together.
    pub fn errors(self) -> usize {
        self.substitutions + self.deletions + self.insertions
    }

    /// Length of the reference.
    pub fn n_reference(self) -> usize {
        self.hits + self.substitutions + self.deletions
    }

    /// Length of the hypothesis.
    pub fn n_hypothesis(self) -> usize {
        self.hits + self.substitutions + self.insertions
    }

    /// Errors per reference symbol, a fraction; the number of errors where the reference is empty.
    pub fn rate(self) -> f64 {
        self.errors() as f64 / self.n_reference().max(1) as f64
    }
}

impl std::ops::Add for EditCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            substitutions: self.substitutions + other.substitutions,
            deletions: self.deletions + other.deletions,
            insertions: self.insertions + other.insertions,
        }
    }
}

impl std::ops::AddAssign for EditCounts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::iter::Sum for EditCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), std::ops::Add::add)
    }
}

/// The error rate of a corpus with the counts that it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorRate {
    /// Errors per reference symbol, a fraction that can exceed 1.
    pub rate: f64,
    /// Symbols recognized.
    pub hits: usize,
    /// Symbols replaced by others.
    pub substitutions: usize,
    /// Reference symbols without a counterpart.
    pub deletions: usize,
    /// Hypothesis symbols without a counterpart.
    pub insertions: usize,
    /// Reference symbols in the corpus.
    pub n_reference: usize,
    /// Hypothesis symbols in the corpus.
    pub n_hypothesis: usize,
    /// The counts of every utterance, in order.
    pub per_utterance: Vec<EditCounts>,
}

impl ErrorRate {
    /// Sums the counts of utterances.
    pub fn from_counts(per_utterance: Vec<EditCounts>) -> Self {
        let total: EditCounts = per_utterance.iter().copied().sum();
        Self {
            rate: total.rate(),
            hits: total.hits,
            substitutions: total.substitutions,
            deletions: total.deletions,
            insertions: total.insertions,
            n_reference: total.n_reference(),
            n_hypothesis: total.n_hypothesis(),
            per_utterance,
        }
    }

    /// A bootstrap interval of the rate over utterances.
    pub fn interval(&self, bootstrap: &Bootstrap) -> Interval {
        bootstrap.interval(&self.per_utterance, |counts| counts.rate())
    }

    /// A paired bootstrap interval of this rate minus another on the same utterances.
    ///
    /// # Errors
    ///
    /// [`Error::LengthMismatch`] when the two are not rates of the same number of utterances.
    pub fn difference(&self, other: &Self, bootstrap: &Bootstrap) -> Result<Interval, Error> {
        let rate = |counts: &EditCounts| counts.rate();
        bootstrap.paired(&self.per_utterance, &other.per_utterance, rate)
    }
}

/// Edits that make units what they should be, after runs of one unit are one: what is said counts, how long each sound
/// lasts does not. Their [rate](EditCounts::rate) is the unit error rate.
pub fn unit_edits(reference: &[u32], hypothesis: &[u32]) -> Vec<Edit> {
    let collapsed = |units: &[u32]| {
        let mut units = units.to_vec();
        units.dedup();
        units
    };
    align(&collapsed(reference), &collapsed(hypothesis))
}

/// Word error rate of `hypotheses` against `references`.
///
/// # Errors
///
/// [`Error::LengthMismatch`] when the two lists differ in length.
///
/// # Examples
///
/// ```
/// let rate = sandhi_data::score::wer(&["the cat sat"], &["the hat"])?;
/// assert_eq!((rate.hits, rate.substitutions, rate.deletions), (1, 1, 1));
/// assert!((rate.rate - 2.0 / 3.0).abs() < 1e-12);
/// # Ok::<(), sandhi_data::score::Error>(())
/// ```
pub fn wer<R: AsRef<str>, H: AsRef<str>>(
    references: &[R],
    hypotheses: &[H],
) -> Result<ErrorRate, Error> {
    check_lengths(references.len(), hypotheses.len())?;
    let pairs = references.iter().zip(hypotheses);
    let counts = pairs.map(|(r, h)| word_edits(r.as_ref(), h.as_ref()));
    Ok(ErrorRate::from_counts(counts.map(|edits| EditCounts::of(&edits)).collect()))
}

/// Character error rate of `hypotheses` against `references`; a character is a Unicode scalar.
///
/// # Errors
///
/// [`Error::LengthMismatch`] when the two lists differ in length.
pub fn cer<R: AsRef<str>, H: AsRef<str>>(
    references: &[R],
    hypotheses: &[H],
) -> Result<ErrorRate, Error> {
    check_lengths(references.len(), hypotheses.len())?;
    let count = |(reference, hypothesis): (&R, &H)| {
        let characters = |text: &str| -> Vec<u32> {
            text.trim_matches(is_space).chars().map(u32::from).collect()
        };
        let edits = align(&characters(reference.as_ref()), &characters(hypothesis.as_ref()));
        EditCounts::of(&edits)
    };
    Ok(ErrorRate::from_counts(references.iter().zip(hypotheses).map(count).collect()))
}

/// The word alignment that [`wer`] counts, for one utterance.
pub fn word_edits(reference: &str, hypothesis: &str) -> Vec<Edit> {
    let (reference, hypothesis) = (squeeze(reference), squeeze(hypothesis));
    let (reference, hypothesis) = intern(&cut(&reference), &cut(&hypothesis));
    align(&reference, &hypothesis)
}

/// The words that [`wer`] compares, which [`word_edits`] refers to.
pub fn words(text: &str) -> Vec<String> {
    cut(&squeeze(text)).into_iter().map(str::to_owned).collect()
}

fn cut(text: &str) -> Vec<&str> {
    text.split(' ').filter(|word| !word.is_empty()).collect()
}

/// Trims, and turns every run of at least two white-space characters into one space.
fn squeeze(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut run = 0_usize;
    for character in text.trim_matches(is_space).chars() {
        if !is_space(character) {
            run = 0;
            out.push(character);
        } else {
            run += 1;
            match run {
                1 => out.push(character),
                2 => {
                    out.pop();
                    out.push(' ');
                }
                _ => {}
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reference: &[&str], hypothesis: &[&str], expected: (f64, usize, usize, usize, usize)) {
        let rate = wer(reference, hypothesis).unwrap();
        let (value, hits, substitutions, deletions, insertions) = expected;
        assert!((rate.rate - value).abs() < 1e-12, "{rate:?}");
        let counts = EditCounts { hits, substitutions, deletions, insertions };
        assert_eq!(rate.per_utterance.iter().copied().sum::<EditCounts>(), counts);
    }

    #[test]
    fn corpus_counts_are_summed_before_dividing() {
        // 1 of 1 and 0 of 3 words wrong: 1 / 4, not (1 + 0) / 2.
        check(&["a", "b c d"], &["x", "b c d"], (0.25, 3, 1, 0, 0));
    }

    #[test]
    fn empty_sides() {
        check(&["", "a b"], &["x y", ""], (2.0, 0, 0, 2, 2));
        check(&[""], &["x y z"], (3.0, 0, 0, 0, 3));
        check(&[""], &[""], (0.0, 0, 0, 0, 0));
        check(&[], &[], (0.0, 0, 0, 0, 0));
    }

    #[test]
    fn white_space_is_cut_as_jiwer_does() {
        assert_eq!(words("  a\tb  c \t d\u{a0}e\u{1f}"), ["a\tb", "c", "d\u{a0}e"]);
    }

    #[test]
    fn characters_count_inner_spaces_and_combining_marks() {
        // "a b" against "ab": one deletion of three; e + U+0301 are two characters.
        let rate = cer(&[" a b ", "e\u{301}"], &["ab", "e"]).unwrap();
        assert_eq!((rate.deletions, rate.n_reference), (2, 5));
    }

    #[test]
    fn runs_of_units_are_one() {
        let rate =
            |reference: &[u32], said: &[u32]| EditCounts::of(&unit_edits(reference, said)).rate();
        // 7 9 7 against 7 9 4 7: one more than there are three.
        assert_eq!(rate(&[7, 7, 9, 7, 7], &[7, 9, 9, 9, 4, 7]), 1.0 / 3.0);
        assert_eq!(rate(&[3, 3, 3], &[3]), 0.0);
        assert_eq!(rate(&[3, 1], &[]), 1.0);
    }

    #[test]
    fn unequal_lists_are_refused() {
        let error = wer(&["a"], &["a", "b"]).unwrap_err();
        assert_eq!(error.to_string(), "1 references but 2 hypotheses");
    }
}
