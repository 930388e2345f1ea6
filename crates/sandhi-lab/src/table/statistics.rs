//! The sufficient statistics of utterances: what a corpus score is a function of the sum of.
//!
//! | metric | a prediction's statistics | corpus score |
//! |---|---|---|
//! | any, with two numbers in `counts` | numerator, denominator | ratio of the sums |
//! | `perplexity`, likewise | negative log-likelihood (nats), words | exponential of the ratio |
//! | `wer` | `edits`, `cascade_edits` | errors over reference words |
//! | `exact`, `accuracy` | `correct`, `text_correct`, `cascade_correct` | share |
//! | `wer`, `cer`, `bleu`, `chrf` without any of these | the texts, by the default scorers | |

use std::collections::HashMap;

use sandhi_data::score::{
    BleuConfig, BleuCounts, Bootstrap, ChrfConfig, ChrfCounts, EditCounts, Interval, bleu, cer,
    chrf, wer,
};

use crate::results::{CASCADE, Edits, Prediction, RECOVERED, TEXT};

/// The statistics of the utterances of one run, with their names.
#[derive(Debug, Clone)]
pub(super) struct Statistics {
    ids: Vec<String>,
    counts: Counts,
}

/// One entry an utterance.
#[derive(Debug, Clone)]
enum Counts {
    Ratio(Vec<Ratio>),
    Perplexity(Vec<Ratio>),
    Bleu(Vec<BleuCounts>),
    Chrf(Vec<ChrfCounts>),
}

/// A numerator and a denominator to be summed before they are divided.
#[derive(Debug, Clone, Copy, Default)]
struct Ratio {
    over: f64,
    under: f64,
}

impl std::ops::AddAssign for Ratio {
    fn add_assign(&mut self, other: Self) {
        self.over += other.over;
        self.under += other.under;
    }
}

impl Ratio {
    fn value(&self) -> f64 {
        if self.under == 0.0 { 0.0 } else { self.over / self.under }
    }
}

/// Which of a prediction's answers a metric is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Speech,
    Text,
    Cascade,
}

impl Side {
    fn hypothesis(self, prediction: &Prediction) -> Option<&str> {
        match self {
            Self::Speech => Some(&prediction.hypothesis),
            Self::Text => prediction.text_hypothesis.as_deref(),
            Self::Cascade => prediction.cascade_hypothesis.as_deref(),
        }
    }

    fn correct(self, prediction: &Prediction) -> Option<bool> {
        match self {
            Self::Speech => prediction.correct,
            Self::Text => prediction.text_correct,
            Self::Cascade => prediction.cascade_correct,
        }
    }

    fn edits(self, prediction: &Prediction) -> Option<Edits> {
        match self {
            Self::Speech => prediction.edits,
            Self::Text => None,
            Self::Cascade => prediction.cascade_edits,
        }
    }
}

impl Statistics {
    /// The statistics of a metric (with suffix); `None` when the predictions do not have them, or
    /// for shares recovered, which are ratios of two scores.
    pub(super) fn of(predictions: &[Prediction], metric: &str) -> Option<Self> {
        if predictions.is_empty() || metric.ends_with(RECOVERED) {
            return None;
        }
        let (base, side) = if let Some(base) = metric.strip_suffix(TEXT) {
            (base, Side::Text)
        } else if let Some(base) = metric.strip_suffix(CASCADE) {
            (base, Side::Cascade)
        } else {
            (metric, Side::Speech)
        };
        let ids = predictions.iter().map(|prediction| prediction.id.clone()).collect();
        let counts = Self::recorded(predictions, metric, base, side)
            .or_else(|| Self::from_texts(predictions, base, side))?;
        Some(Self { ids, counts })
    }

    /// What the evaluation wrote down.
    fn recorded(
        predictions: &[Prediction],
        metric: &str,
        base: &str,
        side: Side,
    ) -> Option<Counts> {
        let all = |ratio: &dyn Fn(&Prediction) -> Option<Ratio>| {
            predictions.iter().map(ratio).collect::<Option<Vec<Ratio>>>()
        };
        let written = all(&|prediction| match prediction.counts.get(metric)?.as_slice() {
            [over, under] => Some(Ratio { over: *over, under: *under }),
            _ => None,
        });
        if let Some(ratios) = written {
            let perplexity = base == "perplexity";
            return Some(if perplexity {
                Counts::Perplexity(ratios)
            } else {
                Counts::Ratio(ratios)
            });
        }
        let ratios = match base {
            "wer" => all(&|prediction| {
                let edits = side.edits(prediction)?;
                let (over, under) = (edits.errors() as f64, edits.n_reference() as f64);
                Some(Ratio { over, under })
            }),
            "exact" | "accuracy" => all(&|prediction| {
                let over = f64::from(u8::from(side.correct(prediction)?));
                Some(Ratio { over, under: 1.0 })
            }),
            _ => None,
        };
        ratios.map(Counts::Ratio)
    }

    /// What the default scorers count in the texts.
    fn from_texts(predictions: &[Prediction], base: &str, side: Side) -> Option<Counts> {
        let references: Vec<&str> = predictions.iter().map(|p| p.reference.as_str()).collect();
        let hypotheses: Vec<&str> =
            predictions.iter().map(|p| side.hypothesis(p)).collect::<Option<_>>()?;
        let ratios = |counts: Vec<EditCounts>| {
            let ratio =
                |c: EditCounts| Ratio { over: c.errors() as f64, under: c.n_reference() as f64 };
            Counts::Ratio(counts.into_iter().map(ratio).collect())
        };
        // Both lists have one entry a prediction, so that the scorers cannot refuse them.
        match base {
            "wer" => wer(&references, &hypotheses).ok().map(|s| ratios(s.per_utterance)),
            "cer" => cer(&references, &hypotheses).ok().map(|s| ratios(s.per_utterance)),
            "bleu" => bleu(&references, &hypotheses).ok().map(|s| Counts::Bleu(s.per_utterance)),
            "chrf" => chrf(&references, &hypotheses).ok().map(|s| Counts::Chrf(s.per_utterance)),
            _ => None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The corpus score, a fraction as in `results.json`.
    pub(super) fn score(&self) -> f64 {
        match &self.counts {
            Counts::Ratio(all) => ratio_score(&sum(all)),
            Counts::Perplexity(all) => perplexity_score(&sum(all)),
            Counts::Bleu(all) => bleu_score(&sum(all)),
            Counts::Chrf(all) => chrf_score(&sum(all)),
        }
    }

    /// Both sides cut to the utterances that they share, in the order of this side.
    pub(super) fn paired_with(self, other: Self) -> (Self, Self) {
        let places: HashMap<&str, usize> =
            other.ids.iter().enumerate().map(|(place, id)| (id.as_str(), place)).collect();
        let (mine, theirs): (Vec<usize>, Vec<usize>) = self
            .ids
            .iter()
            .enumerate()
            .filter_map(|(place, id)| Some((place, *places.get(id.as_str())?)))
            .unzip();
        (self.pick(&mine), other.pick(&theirs))
    }

    fn pick(&self, places: &[usize]) -> Self {
        fn pick<T: Clone>(all: &[T], places: &[usize]) -> Vec<T> {
            places.iter().map(|&place| all[place].clone()).collect()
        }
        let counts = match &self.counts {
            Counts::Ratio(all) => Counts::Ratio(pick(all, places)),
            Counts::Perplexity(all) => Counts::Perplexity(pick(all, places)),
            Counts::Bleu(all) => Counts::Bleu(pick(all, places)),
            Counts::Chrf(all) => Counts::Chrf(pick(all, places)),
        };
        Self { ids: pick(&self.ids, places), counts }
    }

    /// The interval of the difference, averaged over runs, utterances drawn within each. `None`
    /// without a pair, or when the sides hold statistics of different kinds.
    pub(super) fn difference(pairs: &[(Self, Self)], bootstrap: &Bootstrap) -> Option<Interval> {
        macro_rules! paired {
            ($kind:ident, $score:expr) => {{
                let slices = pairs
                    .iter()
                    .map(|(mine, theirs)| match (&mine.counts, &theirs.counts) {
                        (Counts::$kind(a), Counts::$kind(b)) => Some((a.as_slice(), b.as_slice())),
                        _ => None,
                    })
                    .collect::<Option<Vec<_>>>()?;
                bootstrap.paired_within(&slices, $score).ok()
            }};
        }
        match &pairs.first()?.0.counts {
            Counts::Ratio(_) => paired!(Ratio, ratio_score),
            Counts::Perplexity(_) => paired!(Perplexity, perplexity_score),
            Counts::Bleu(_) => paired!(Bleu, bleu_score),
            Counts::Chrf(_) => paired!(Chrf, chrf_score),
        }
    }
}

fn ratio_score(sum: &Ratio) -> f64 {
    sum.value()
}

fn perplexity_score(sum: &Ratio) -> f64 {
    sum.value().exp()
}

fn bleu_score(sum: &BleuCounts) -> f64 {
    BleuConfig::default().score_of(sum) / 100.0
}

fn chrf_score(sum: &ChrfCounts) -> f64 {
    ChrfConfig::default().score_of(sum) / 100.0
}

fn sum<T: Clone + Default + std::ops::AddAssign>(all: &[T]) -> T {
    let mut total = T::default();
    all.iter().for_each(|one| total += one.clone());
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use indexmap::IndexMap;

    fn prediction(id: &str, reference: &str, hypothesis: &str) -> Prediction {
        Prediction {
            id: id.to_owned(),
            reference: reference.to_owned(),
            hypothesis: hypothesis.to_owned(),
            ..Prediction::default()
        }
    }

    fn score(predictions: &[Prediction], metric: &str) -> Option<f64> {
        Statistics::of(predictions, metric).map(|statistics| statistics.score())
    }

    #[test]
    fn what_was_recorded_goes_before_what_can_be_counted() {
        let mut one = prediction("a", "x y", "x z");
        assert_eq!(score(&[one.clone()], "wer"), Some(0.5));
        one.edits = Some(Edits { sub: 0, del: 0, ins: 0, hits: 2 });
        assert_eq!(score(&[one.clone()], "wer"), Some(0.0));
        one.counts = IndexMap::from([("wer".to_owned(), vec![3.0, 4.0])]);
        assert_eq!(score(&[one], "wer"), Some(0.75));
    }

    #[test]
    fn every_metric_has_its_statistics() {
        let mut one = prediction("a", "the cat sat on the mat", "the cat sat on the mat");
        assert_eq!(score(&[one.clone()], "cer"), Some(0.0));
        assert!((score(&[one.clone()], "bleu").unwrap() - 1.0).abs() < 1e-12);
        assert!((score(&[one.clone()], "chrf").unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(score(&[one.clone()], "bleu_text"), None);
        assert_eq!(score(&[one.clone()], "exact"), None);
        assert_eq!(score(&[], "wer"), None);
        one.correct = Some(true);
        one.cascade_correct = Some(false);
        one.text_hypothesis = Some("the cat".to_owned());
        one.counts = IndexMap::from([("perplexity".to_owned(), vec![2.0 * 3.0_f64.ln(), 2.0])]);
        assert_eq!(score(&[one.clone()], "exact"), Some(1.0));
        assert_eq!(score(&[one.clone()], "exact_cascade"), Some(0.0));
        assert_eq!(score(&[one.clone()], "exact_recovered"), None);
        // 4 of 6 words are missing.
        assert_eq!(score(&[one.clone()], "wer_text"), Some(4.0 / 6.0));
        // 2 words of 2 ln 3 nats: perplexity 3.
        assert!((score(&[one], "perplexity").unwrap() - 3.0).abs() < 1e-12);
    }

    #[test]
    fn sides_are_paired_by_utterance() {
        let make = |ids: &[&str]| {
            let all: Vec<_> = ids.iter().map(|id| prediction(id, "a", id)).collect();
            Statistics::of(&all, "wer").unwrap()
        };
        // "a" is right, everything else is wrong.
        let (mine, theirs) = make(&["c", "a", "b"]).paired_with(make(&["a", "d", "c"]));
        assert_eq!(mine.ids, ["c", "a"]);
        assert_eq!(theirs.ids, ["c", "a"]);
        assert_eq!((mine.score(), theirs.score()), (0.5, 0.5));
    }
}
