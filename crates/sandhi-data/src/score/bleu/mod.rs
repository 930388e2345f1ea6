//! Corpus BLEU (Papineni et al., ACL 2002, <https://aclanthology.org/P02-1040>) as sacreBLEU
//! computes it (Post, WMT 2018, <https://aclanthology.org/W18-6319>).
//!
//! ```text
//! p_n  = matched n-grams / n-grams of the hypotheses     clipped per sentence, n = 1 … 4
//! BLEU = 100 · min(1, exp(1 - n_reference / n_hypothesis)) · exp(mean of ln p_n)
//! ```
//!
//! Where an order has n-grams but no match, `exp` smoothing puts `1 / (2^k n-grams)` for the k-th
//! such order (Chen and Cherry, WMT 2014, method 3). Scores equal those of sacreBLEU 2.6.0 with one
//! reference per sentence.

mod tokenize;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

pub use tokenize::BleuTokenizer;

use super::{Bootstrap, Error, Interval, check_lengths, is_space};

const MAX_ORDER: usize = 4;

/// What to put where no n-gram of an order matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Smoothing {
    /// Half, a quarter, an eighth … of a match; sacreBLEU's default.
    #[default]
    Exp,
    /// This share of a match.
    Floor(f64),
    /// This many more matches and n-grams for orders above one.
    AddK(f64),
    /// Nothing: the score is 0.
    None,
}

/// How BLEU is computed; the default is sacreBLEU's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BleuConfig {
    /// What a word is.
    pub tokenizer: BleuTokenizer,
    /// Whether case is ignored.
    pub lowercase: bool,
    /// What to put where nothing matches.
    pub smoothing: Smoothing,
    /// Whether orders beyond the length of the hypotheses are left out of the mean, for sentences.
    pub effective_order: bool,
}

/// The counts of one sentence, or sums of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BleuCounts {
    /// Tokens of the hypothesis.
    pub n_hypothesis: u64,
    /// Tokens of the reference.
    pub n_reference: u64,
    /// n-grams of the hypothesis that the reference has, at most as often as there.
    pub matches: [u64; MAX_ORDER],
    /// n-grams of the hypothesis.
    pub totals: [u64; MAX_ORDER],
}

impl std::ops::AddAssign for BleuCounts {
    fn add_assign(&mut self, other: Self) {
        self.n_hypothesis += other.n_hypothesis;
        self.n_reference += other.n_reference;
        for order in 0..MAX_ORDER {
            self.matches[order] += other.matches[order];
            self.totals[order] += other.totals[order];
        }
    }
}

/// A BLEU score with the evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bleu {
    /// From 0 to 100.
    pub score: f64,
    /// Percentage of n-grams that match, by order, smoothed.
    pub precisions: [f64; MAX_ORDER],
    /// The factor for short output, up to 1.
    pub brevity_penalty: f64,
    /// The counts of the corpus.
    pub counts: BleuCounts,
    /// The counts of every sentence, in order.
    pub per_utterance: Vec<BleuCounts>,
    /// The settings in sacreBLEU's notation, the version being ours.
    pub signature: String,
    config: BleuConfig,
}

impl Bleu {
    /// A bootstrap interval of the score over sentences.
    pub fn interval(&self, bootstrap: &Bootstrap) -> Interval {
        bootstrap.interval(&self.per_utterance, |counts| self.config.score(counts).score)
    }

    /// A paired bootstrap interval of this score minus another on the same sentences.
    ///
    /// # Errors
    ///
    /// [`Error::LengthMismatch`] when the two are not scores of the same number of sentences.
    pub fn difference(&self, other: &Self, bootstrap: &Bootstrap) -> Result<Interval, Error> {
        let score = |counts: &BleuCounts| self.config.score(counts).score;
        bootstrap.paired(&self.per_utterance, &other.per_utterance, score)
    }
}

/// Corpus BLEU with sacreBLEU's defaults.
///
/// # Errors
///
/// [`Error::LengthMismatch`] when the two lists differ in length.
pub fn bleu<R: AsRef<str>, H: AsRef<str>>(
    references: &[R],
    hypotheses: &[H],
) -> Result<Bleu, Error> {
    BleuConfig::default().bleu(references, hypotheses)
}

/// Score, precisions and penalty of counts.
struct Parts {
    score: f64,
    precisions: [f64; MAX_ORDER],
    brevity_penalty: f64,
}

impl BleuConfig {
    /// Corpus BLEU with these settings.
    ///
    /// # Errors
    ///
    /// [`Error::LengthMismatch`] when the two lists differ in length.
    pub fn bleu<R: AsRef<str>, H: AsRef<str>>(
        self,
        references: &[R],
        hypotheses: &[H],
    ) -> Result<Bleu, Error> {
        check_lengths(references.len(), hypotheses.len())?;
        let pairs = references.iter().zip(hypotheses);
        let per_utterance: Vec<BleuCounts> =
            pairs.map(|(r, h)| self.count(r.as_ref(), h.as_ref())).collect();
        let mut counts = BleuCounts::default();
        per_utterance.iter().for_each(|one| counts += *one);
        let Parts { score, precisions, brevity_penalty } = self.score(&counts);
        let signature = self.signature();
        Ok(Bleu {
            score,
            precisions,
            brevity_penalty,
            counts,
            per_utterance,
            signature,
            config: self,
        })
    }

    /// The settings in sacreBLEU's notation; the version is ours, because the code is.
    pub fn signature(self) -> String {
        let case = if self.lowercase { "lc" } else { "mixed" };
        let effective = if self.effective_order { "yes" } else { "no" };
        let smoothing = match self.smoothing {
            Smoothing::Exp => "exp".to_owned(),
            Smoothing::None => "none".to_owned(),
            Smoothing::Floor(value) => format!("floor[{value:.2}]"),
            Smoothing::AddK(value) => format!("add-k[{value:.2}]"),
        };
        let tokenizer = self.tokenizer.name();
        let version = super::version();
        format!(
            "nrefs:1|case:{case}|eff:{effective}|tok:{tokenizer}|smooth:{smoothing}|version:{version}"
        )
    }

    fn count(self, reference: &str, hypothesis: &str) -> BleuCounts {
        let tokens = |text: &str| {
            let lower = if self.lowercase { text.to_lowercase() } else { text.to_owned() };
            self.tokenizer.tokens(lower.trim_end_matches(is_space))
        };
        let (reference, hypothesis) = (tokens(reference), tokens(hypothesis));
        let mut counts = BleuCounts {
            n_hypothesis: hypothesis.len() as u64,
            n_reference: reference.len() as u64,
            ..BleuCounts::default()
        };
        for order in 1..=MAX_ORDER {
            let mut known: HashMap<&[String], u64> = HashMap::new();
            for gram in reference.windows(order) {
                *known.entry(gram).or_default() += 1;
            }
            for gram in hypothesis.windows(order) {
                counts.totals[order - 1] += 1;
                if let Some(left) = known.get_mut(gram).filter(|left| **left > 0) {
                    *left -= 1;
                    counts.matches[order - 1] += 1;
                }
            }
        }
        counts
    }

    /// The score (0 to 100) of summed counts.
    pub fn score_of(self, counts: &BleuCounts) -> f64 {
        self.score(counts).score
    }

    fn score(self, counts: &BleuCounts) -> Parts {
        let (n_hypothesis, n_reference) = (counts.n_hypothesis as f64, counts.n_reference as f64);
        let brevity_penalty = if n_hypothesis >= n_reference {
            1.0
        } else if n_hypothesis > 0.0 {
            (1.0 - n_reference / n_hypothesis).exp()
        } else {
            0.0
        };
        let mut precisions = [0.0; MAX_ORDER];
        if counts.matches.iter().all(|&matches| matches == 0) {
            return Parts { score: 0.0, precisions, brevity_penalty };
        }
        let mut halving = 1.0;
        let mut n_orders = MAX_ORDER;
        for (order, precision) in precisions.iter_mut().enumerate() {
            let (mut matches, mut total) =
                (counts.matches[order] as f64, counts.totals[order] as f64);
            if let (Smoothing::AddK(k), 1..) = (self.smoothing, order) {
                matches += k;
                total += k;
            }
            if total == 0.0 {
                break;
            }
            if self.effective_order {
                n_orders = order + 1;
            }
            *precision = if matches > 0.0 {
                100.0 * matches / total
            } else {
                match self.smoothing {
                    Smoothing::Exp => {
                        halving *= 2.0;
                        100.0 / (halving * total)
                    }
                    Smoothing::Floor(value) => 100.0 * value / total,
                    Smoothing::AddK(_) | Smoothing::None => 0.0,
                }
            };
        }
        let orders = &precisions[..n_orders];
        let score = if orders.contains(&0.0) {
            0.0
        } else {
            let mean = orders.iter().map(|precision| precision.ln()).sum::<f64>() / n_orders as f64;
            brevity_penalty * mean.exp()
        };
        Parts { score, precisions, brevity_penalty }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_corpus_scores_100() {
        let score = bleu(&["the cat sat on the mat ."], &["the cat sat on the mat."]).unwrap();
        assert!((score.score - 100.0).abs() < 1e-9);
        assert_eq!(score.brevity_penalty, 1.0);
    }

    #[test]
    fn matches_are_clipped_and_orders_smoothed() {
        // "the" three times, at most twice in the reference: 2/3. No bigram of "the the the"
        // matches: 1/(2·2), 1/(4·1); no 4-gram exists: score 0 without effective order.
        let score = bleu(&["the cat the"], &["the the the"]).unwrap();
        assert_eq!(score.counts.matches, [2, 0, 0, 0]);
        assert_eq!(score.counts.totals, [3, 2, 1, 0]);
        let expected = [200.0 / 3.0, 25.0, 25.0, 0.0];
        assert!(score.precisions.iter().zip(expected).all(|(p, e)| (p - e).abs() < 1e-9));
        assert_eq!(score.score, 0.0);
        let config = BleuConfig { effective_order: true, ..BleuConfig::default() };
        let score = config.bleu(&["the cat the"], &["the the the"]).unwrap().score;
        // Geometric mean of 2/3, 1/4, 1/4.
        assert!((score - 100.0 * (2.0_f64 / 3.0 / 16.0).cbrt()).abs() < 1e-9);
    }

    #[test]
    fn short_output_is_penalized() {
        // Four of eight tokens, all right: exp(1 - 2).
        let score = bleu(&["a b c d e f g h"], &["a b c d"]).unwrap();
        assert!((score.score - 100.0 * (-1.0_f64).exp()).abs() < 1e-9);
    }

    #[test]
    fn the_signature_names_every_setting() {
        let signature = bleu(&[""], &[""]).unwrap().signature;
        let (settings, version) = signature.rsplit_once("|version:").unwrap();
        assert_eq!(settings, "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp");
        assert!(version.starts_with("sandhi-"));
        let config = BleuConfig {
            tokenizer: BleuTokenizer::Char,
            lowercase: true,
            smoothing: Smoothing::Floor(0.1),
            effective_order: true,
        };
        assert!(
            config.signature().starts_with("nrefs:1|case:lc|eff:yes|tok:char|smooth:floor[0.10]|")
        );
    }
}
