//! Character n-gram F-score: chrF (Popović, WMT 2015, <https://aclanthology.org/W15-3049>) and
//! chrF++ with word n-grams (WMT 2017, <https://aclanthology.org/W17-4770>).
//!
//! ```text
//! P, R = means over the orders of matched / hypothesis and matched / reference n-grams
//! chrF = 100 · (1 + β²) P R / (β² P + R)            β = 2, orders 1 … 6 of characters
//! ```
//!
//! Counts are summed over the corpus; orders without n-grams on one side are left out of the
//! means. Scores equal those of sacreBLEU 2.6.0 with one reference per sentence.

use std::{collections::HashMap, hash::Hash};

use serde::{Deserialize, Serialize};

use super::{Bootstrap, Error, Interval, check_lengths, is_space};

/// How chrF is computed; the default is sacreBLEU's chrF2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChrfConfig {
    /// Longest character n-gram.
    pub char_order: usize,
    /// Longest word n-gram; 2 gives chrF++.
    pub word_order: usize,
    /// How many times recall counts more than precision.
    pub beta: u32,
    /// Whether case is ignored.
    pub lowercase: bool,
    /// Whether spaces are characters.
    pub whitespace: bool,
    /// Whether F is averaged over all orders with a tiny value for empty ones (as chrF++.py does),
    /// instead of taking it of the means over the orders that exist.
    pub eps_smoothing: bool,
}

impl Default for ChrfConfig {
    fn default() -> Self {
        Self {
            char_order: 6,
            word_order: 0,
            beta: 2,
            lowercase: false,
            whitespace: false,
            eps_smoothing: false,
        }
    }
}

/// n-grams of one order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GramCounts {
    /// In the hypothesis; 0 where the reference has none.
    pub n_hypothesis: u64,
    /// In the reference.
    pub n_reference: u64,
    /// In both, each at most as often as in either.
    pub matches: u64,
}

/// The counts of one sentence by order, character orders first; or sums of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChrfCounts(pub Vec<GramCounts>);

impl std::ops::AddAssign<&Self> for ChrfCounts {
    fn add_assign(&mut self, other: &Self) {
        self.0.resize(self.0.len().max(other.0.len()), GramCounts::default());
        for (sum, one) in self.0.iter_mut().zip(&other.0) {
            sum.n_hypothesis += one.n_hypothesis;
            sum.n_reference += one.n_reference;
            sum.matches += one.matches;
        }
    }
}

impl std::ops::AddAssign for ChrfCounts {
    fn add_assign(&mut self, other: Self) {
        *self += &other;
    }
}

/// A chrF score with the evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chrf {
    /// From 0 to 100.
    pub score: f64,
    /// The counts of every sentence, in order.
    pub per_utterance: Vec<ChrfCounts>,
    /// The settings in sacreBLEU's notation, the version being ours.
    pub signature: String,
    config: ChrfConfig,
}

impl Chrf {
    /// The name by which the score is known: `chrF2`, `chrF2++`.
    pub fn name(&self) -> String {
        format!("chrF{}{}", self.config.beta, "+".repeat(self.config.word_order))
    }

    /// A bootstrap interval of the score over sentences.
    pub fn interval(&self, bootstrap: &Bootstrap) -> Interval {
        bootstrap.interval(&self.per_utterance, |counts| self.config.score(counts))
    }

    /// A paired bootstrap interval of this score minus another on the same sentences.
    ///
    /// # Errors
    ///
    /// [`Error::LengthMismatch`] when the two are not scores of the same number of sentences.
    pub fn difference(&self, other: &Self, bootstrap: &Bootstrap) -> Result<Interval, Error> {
        let score = |counts: &ChrfCounts| self.config.score(counts);
        bootstrap.paired(&self.per_utterance, &other.per_utterance, score)
    }
}

/// Corpus chrF2: characters up to order 6, no words.
///
/// # Errors
///
/// [`Error::LengthMismatch`] when the two lists differ in length.
pub fn chrf<R: AsRef<str>, H: AsRef<str>>(
    references: &[R],
    hypotheses: &[H],
) -> Result<Chrf, Error> {
    ChrfConfig::default().chrf(references, hypotheses)
}

impl ChrfConfig {
    /// chrF2++: words up to order 2 as well.
    pub fn plus_plus() -> Self {
        Self { word_order: 2, ..Self::default() }
    }

    /// Corpus chrF with these settings.
    ///
    /// # Errors
    ///
    /// [`Error::LengthMismatch`] when the two lists differ in length.
    pub fn chrf<R: AsRef<str>, H: AsRef<str>>(
        self,
        references: &[R],
        hypotheses: &[H],
    ) -> Result<Chrf, Error> {
        check_lengths(references.len(), hypotheses.len())?;
        let pairs = references.iter().zip(hypotheses);
        let per_utterance: Vec<ChrfCounts> =
            pairs.map(|(r, h)| self.count(r.as_ref(), h.as_ref())).collect();
        let mut counts = ChrfCounts::default();
        per_utterance.iter().for_each(|one| counts += one);
        let (score, signature) = (self.score(&counts), self.signature());
        Ok(Chrf { score, per_utterance, signature, config: self })
    }

    /// The settings in sacreBLEU's notation; the version is ours, because the code is.
    pub fn signature(self) -> String {
        let yes = |yes: bool| if yes { "yes" } else { "no" };
        format!(
            "nrefs:1|case:{}|eff:{}|nc:{}|nw:{}|space:{}|version:{}",
            if self.lowercase { "lc" } else { "mixed" },
            yes(!self.eps_smoothing),
            self.char_order,
            self.word_order,
            yes(self.whitespace),
            super::version(),
        )
    }

    fn count(self, reference: &str, hypothesis: &str) -> ChrfCounts {
        let prepared = |text: &str| {
            let text = if self.lowercase { text.to_lowercase() } else { text.to_owned() };
            let kept = |character: &char| self.whitespace || !is_space(*character);
            (text.chars().filter(kept).collect::<Vec<char>>(), words(&text))
        };
        let (reference, reference_words) = prepared(reference);
        let (hypothesis, hypothesis_words) = prepared(hypothesis);
        let characters = (1..=self.char_order).map(|order| grams(&reference, &hypothesis, order));
        let words =
            (1..=self.word_order).map(|order| grams(&reference_words, &hypothesis_words, order));
        ChrfCounts(characters.chain(words).collect())
    }

    /// The score (0 to 100) of summed counts.
    pub fn score_of(self, counts: &ChrfCounts) -> f64 {
        self.score(counts)
    }

    fn score(self, counts: &ChrfCounts) -> f64 {
        const EPSILON: f64 = 1e-16;
        let factor = f64::from(self.beta).powi(2);
        let f_score = |precision: f64, recall: f64| {
            let denominator = factor * precision + recall;
            (denominator > 0.0).then(|| (1.0 + factor) * precision * recall / denominator)
        };
        let (mut precision, mut recall, mut n_orders, mut sum) = (0.0, 0.0, 0_u32, 0.0);
        for order in &counts.0 {
            let share = |n: u64| if n > 0 { order.matches as f64 / n as f64 } else { EPSILON };
            let (p, r) = (share(order.n_hypothesis), share(order.n_reference));
            sum += f_score(p, r).unwrap_or(EPSILON);
            if order.n_hypothesis > 0 && order.n_reference > 0 {
                precision += p;
                recall += r;
                n_orders += 1;
            }
        }
        if self.eps_smoothing {
            return 100.0 * sum / ((self.char_order + self.word_order).max(1) as f64);
        }
        let n_orders = f64::from(n_orders.max(1));
        100.0 * f_score(precision / n_orders, recall / n_orders).unwrap_or(0.0)
    }
}

fn grams<T: Hash + Eq>(reference: &[T], hypothesis: &[T], order: usize) -> GramCounts {
    let mut known: HashMap<&[T], u64> = HashMap::new();
    for gram in reference.windows(order) {
        *known.entry(gram).or_default() += 1;
    }
    let n_reference = (reference.len() + 1).saturating_sub(order) as u64;
    let n_hypothesis = (hypothesis.len() + 1).saturating_sub(order) as u64;
    let mut matches = 0;
    for gram in hypothesis.windows(order) {
        if let Some(left) = known.get_mut(gram).filter(|left| **left > 0) {
            *left -= 1;
            matches += 1;
        }
    }
    GramCounts {
        n_hypothesis: if n_reference > 0 { n_hypothesis } else { 0 },
        n_reference,
        matches,
    }
}

/// Words with one ASCII punctuation mark taken off: from the end, or else from the start.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for word in text.split(is_space).filter(|word| !word.is_empty()) {
        let is_mark = |character: char| character.is_ascii_punctuation();
        let mut inner = word.chars();
        let (first, last) = (inner.next(), inner.next_back());
        match (first, last) {
            (_, Some(last)) if is_mark(last) => {
                let end = word.len() - last.len_utf8();
                words.extend([word[..end].to_owned(), last.to_string()]);
            }
            (Some(first), Some(_)) if is_mark(first) => {
                words.extend([first.to_string(), word[first.len_utf8()..].to_owned()]);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_score_100_and_different_ones_0() {
        assert!((chrf(&["the cat"], &["the cat"]).unwrap().score - 100.0).abs() < 1e-9);
        assert_eq!(chrf(&["abc"], &["xyz"]).unwrap().score, 0.0);
        assert_eq!(chrf(&[""], &[""]).unwrap().score, 0.0);
    }

    #[test]
    fn f_is_taken_of_mean_precision_and_recall() {
        // ab / abc. Order 1: P 2/2, R 2/3. Order 2: P 1/1, R 1/2. Order 3: no hypothesis.
        // P = 1, R = 7/12, F2 = 5 P R / (4 P + R) = (35/12) / (55/12) = 7/11.
        let score = chrf(&["abc"], &["ab"]).unwrap();
        assert!((score.score - 700.0 / 11.0).abs() < 1e-9, "{}", score.score);
        assert_eq!(score.name(), "chrF2");
    }

    #[test]
    fn one_mark_is_taken_off_a_word() {
        assert_eq!(words("(hi) \"x . don't «y»"), ["(hi", ")", "\"", "x", ".", "don't", "«y»"]);
    }

    #[test]
    fn the_signature_names_every_setting() {
        let score = ChrfConfig::plus_plus().chrf(&["a"], &["a"]).unwrap();
        assert!(
            score
                .signature
                .starts_with("nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no|version:sandhi-")
        );
        assert_eq!(score.name(), "chrF2++");
    }
}
