//! The sufficient statistics of utterances: what a corpus score is a function of the sum of.
//!
//! | metric | a prediction's statistics | corpus score |
//! |---|---|---|
//! | any, with two numbers in `counts` | numerator, denominator | ratio of the sums |
//! | `perplexity`, likewise | negative log-likelihood (nats), words | exponential of the ratio |
//! | `wer` | `edits` | errors over reference words |
//! | `exact`, `accuracy` | `correct` | share |
//! | `wer`, `cer`, `bleu`, `chrf` | the texts, as they are or normalized | the default scorer's |

use std::collections::HashMap;

use sandhi_data::score::{
    BleuConfig, BleuCounts, Bootstrap, ChrfConfig, ChrfCounts, EditCounts, Interval, bleu, cer,
    chrf, wer,
};
use sandhi_data::text::normalize;

use crate::results::Prediction;

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
    /// Not a number where nothing is counted.
    fn value(&self) -> f64 {
        if self.under == 0.0 { f64::NAN } else { self.over / self.under }
    }
}

impl Statistics {
    /// The statistics of a metric of the answers from speech that give `value` as their corpus score:
    /// what the evaluation wrote down, or else what the default scorers count in the texts as they
    /// are or normalized.
    ///
    /// # Errors
    ///
    /// The first score that the predictions give, or `None` when they hold nothing to score.
    pub(super) fn of(
        predictions: &[Prediction],
        metric: &str,
        value: f64,
    ) -> Result<Self, Option<f64>> {
        let candidates = recorded(predictions, metric)
            .into_iter()
            .chain(from_texts(predictions, metric, str::to_owned))
            .chain(from_texts(predictions, metric, normalize));
        let mut first = None;
        for counts in candidates {
            let score = counts.score();
            if (score - value).abs() <= 1e-6 * value.abs().max(1.0) {
                let ids = predictions.iter().map(|prediction| prediction.id.clone()).collect();
                return Ok(Self { ids, counts });
            }
            first.get_or_insert(score);
        }
        Err(first)
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
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

/// What the evaluation wrote down.
fn recorded(predictions: &[Prediction], metric: &str) -> Option<Counts> {
    let all = |ratio: &dyn Fn(&Prediction) -> Option<Ratio>| {
        predictions.iter().map(ratio).collect::<Option<Vec<Ratio>>>()
    };
    let written = all(&|prediction| match prediction.counts.get(metric)?.as_slice() {
        [over, under] => Some(Ratio { over: *over, under: *under }),
        _ => None,
    });
    if let Some(ratios) = written {
        let perplexity = metric == "perplexity";
        return Some(if perplexity { Counts::Perplexity(ratios) } else { Counts::Ratio(ratios) });
    }
    let ratios = match metric {
        "wer" => all(&|prediction| {
            let edits = prediction.edits?;
            Some(Ratio { over: edits.errors() as f64, under: edits.n_reference() as f64 })
        }),
        "exact" | "accuracy" => all(&|prediction| {
            Some(Ratio { over: f64::from(u8::from(prediction.correct?)), under: 1.0 })
        }),
        _ => None,
    };
    ratios.map(Counts::Ratio)
}

/// What the default scorers count in the texts.
fn from_texts(
    predictions: &[Prediction],
    metric: &str,
    prepare: fn(&str) -> String,
) -> Option<Counts> {
    let texts = |of: fn(&Prediction) -> &String| {
        predictions.iter().map(|prediction| prepare(of(prediction))).collect::<Vec<String>>()
    };
    let (references, hypotheses) = (texts(|p| &p.reference), texts(|p| &p.hypothesis));
    let ratios = |counts: Vec<EditCounts>| {
        let ratio =
            |c: EditCounts| Ratio { over: c.errors() as f64, under: c.n_reference() as f64 };
        Counts::Ratio(counts.into_iter().map(ratio).collect())
    };
    // Both lists have one entry a prediction, so that the scorers cannot refuse them.
    match metric {
        "wer" => wer(&references, &hypotheses).ok().map(|s| ratios(s.per_utterance)),
        "cer" => cer(&references, &hypotheses).ok().map(|s| ratios(s.per_utterance)),
        "bleu" => bleu(&references, &hypotheses).ok().map(|s| Counts::Bleu(s.per_utterance)),
        "chrf" => chrf(&references, &hypotheses).ok().map(|s| Counts::Chrf(s.per_utterance)),
        _ => None,
    }
}

impl Counts {
    /// The corpus score on the scale of `results.json`.
    fn score(&self) -> f64 {
        match self {
            Self::Ratio(all) => ratio_score(&sum(all)),
            Self::Perplexity(all) => perplexity_score(&sum(all)),
            Self::Bleu(all) => bleu_score(&sum(all)),
            Self::Chrf(all) => chrf_score(&sum(all)),
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
    BleuConfig::default().score_of(sum)
}

fn chrf_score(sum: &ChrfCounts) -> f64 {
    ChrfConfig::default().score_of(sum)
}

fn sum<T: Clone + Default + std::ops::AddAssign>(all: &[T]) -> T {
    let mut total = T::default();
    all.iter().for_each(|one| total += one.clone());
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Edits;
    use indexmap::IndexMap;

    fn prediction(id: &str, reference: &str, hypothesis: &str) -> Prediction {
        Prediction {
            id: id.to_owned(),
            reference: reference.to_owned(),
            hypothesis: hypothesis.to_owned(),
            ..Prediction::default()
        }
    }

    #[test]
    fn every_metric_has_its_statistics() {
        let mut one = prediction("a", "the cat sat on the mat", "the cat sat on the mat");
        let gives = |one: &Prediction, metric: &str, value: f64| {
            Statistics::of(std::slice::from_ref(one), metric, value).map(|all| all.len())
        };
        assert_eq!(gives(&one, "cer", 0.0), Ok(1));
        assert_eq!(gives(&one, "bleu", 100.0), Ok(1));
        assert_eq!(gives(&one, "chrf", 100.0), Ok(1));
        assert_eq!(gives(&one, "exact", 1.0), Err(None));
        one.correct = Some(true);
        one.counts = IndexMap::from([
            ("perplexity".to_owned(), vec![2.0 * 3.0_f64.ln(), 2.0]),
            ("entity_recall".to_owned(), vec![1.0, 4.0]),
        ]);
        assert_eq!(gives(&one, "exact", 1.0), Ok(1));
        // 2 words of 2 ln 3 nats: perplexity 3.
        assert_eq!(gives(&one, "perplexity", 3.0), Ok(1));
        assert_eq!(gives(&one, "entity_recall", 0.25), Ok(1));
        assert_eq!(gives(&one, "entity_recall", 0.5), Err(Some(0.25)));
    }

    #[test]
    fn the_statistics_that_give_the_number_are_taken() {
        let of = |one: &Prediction, value| Statistics::of(std::slice::from_ref(one), "wer", value);
        let mut one = prediction("a", "One, two", "one three");
        // As they are both words differ; normalized, one of two does.
        assert!(of(&one, 1.0).is_ok() && of(&one, 0.5).is_ok());
        assert_eq!(of(&one, 0.6).err(), Some(Some(1.0)));
        one.edits = Some(Edits { sub: 0, del: 0, ins: 0, hits: 2 });
        assert!(of(&one, 0.0).is_ok());
    }

    #[test]
    fn sides_are_paired_by_utterance() {
        let make = |ids: &[&str], value| {
            let all: Vec<_> = ids.iter().map(|id| prediction(id, "a", id)).collect();
            Statistics::of(&all, "wer", value).unwrap()
        };
        // "a" is right, everything else is wrong.
        let (mine, theirs) =
            make(&["c", "a", "b"], 2.0 / 3.0).paired_with(make(&["a", "d", "c"], 2.0 / 3.0));
        assert_eq!(mine.ids, ["c", "a"]);
        assert_eq!(theirs.ids, ["c", "a"]);
        assert_eq!((mine.counts.score(), theirs.counts.score()), (0.5, 0.5));
    }
}
