//! From answers to numbers with intervals, and to predictions that can be scored again.

use indexmap::IndexMap;
use sandhi_data::{
    microworld::{Continuation, Item, check_continuation},
    score::{self, Bootstrap, Interval},
    text::normalize,
};

use super::{
    Likelihood, Outcome,
    cells::{Cell, Kind, levels},
};
use crate::results::{
    CASCADE, Edits, Metric, Prediction, RECOVERED, Results, TEXT, VECTORS_PER_SECOND,
    lower_is_better,
};

/// The settings of every scorer.
pub fn scorers() -> IndexMap<String, String> {
    let none: [&str; 0] = [];
    let bleu = score::bleu(&none, &none).map(|b| b.signature).unwrap_or_default();
    let chrf = score::chrf(&none, &none).map(|c| c.signature).unwrap_or_default();
    let likelihood =
        "sum of the option's token log-probabilities, end marker included; first of ties";
    let plain = "lower case, no punctuation but apostrophes";
    [
        ("wer", format!("corpus, words; {plain}")),
        ("cer", format!("corpus, characters; {plain}")),
        ("bleu", bleu),
        ("chrf", chrf),
        ("exact", format!("equal; {plain} (upper_case: to the letter)")),
        ("accuracy", likelihood.to_owned()),
        ("loss_per_word", "nats of the right ending, end marker included, per word".to_owned()),
        ("loss_per_second", "the same nats, per second in the base voices".to_owned()),
        ("perplexity", "exponential of loss_per_word".to_owned()),
        ("entity_recall", format!("share of rare names in the answer; {plain}")),
        ("interval", "95 % percentile bootstrap over utterances, 1,000 resamples".to_owned()),
    ]
    .map(|(name, how)| (name.to_owned(), how))
    .into()
}

/// A ratio of sums.
#[derive(Debug, Clone, Copy, Default)]
struct Ratio(f64, f64);

impl std::ops::AddAssign for Ratio {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
        self.1 += other.1;
    }
}

/// A value given the utterances that were drawn.
type Statistic = Box<dyn Fn(&[usize]) -> f64 + Send + Sync>;

/// A number of a cell as a function of which utterances are counted, so that whatever is made of several
/// numbers is drawn over the same utterances.
struct Number {
    name: String,
    n: usize,
    value: Statistic,
    /// Each utterance's counts where the number is a ratio of them.
    counts: Option<Vec<Ratio>>,
}

impl Number {
    /// A function of summed counts.
    fn of<T>(name: &str, counts: Vec<T>, score: impl Fn(&T) -> f64 + Send + Sync + 'static) -> Self
    where
        T: Clone + Default + std::ops::AddAssign + Send + Sync + 'static,
    {
        let n = counts.len();
        let value = move |drawn: &[usize]| {
            let mut total = T::default();
            drawn.iter().for_each(|&i| total += counts[i].clone());
            score(&total)
        };
        Self { name: name.to_owned(), n, value: Box::new(value), counts: None }
    }

    /// A function of the ratio of summed counts; not a number where nothing is counted.
    fn ratio(
        name: &str,
        counts: Vec<Ratio>,
        score: impl Fn(f64) -> f64 + Send + Sync + 'static,
    ) -> Self {
        let of = move |sum: &Ratio| if sum.1 > 0.0 { score(sum.0 / sum.1) } else { f64::NAN };
        Self { counts: Some(counts.clone()), ..Self::of(name, counts, of) }
    }

    fn share(name: &str, counts: Vec<Ratio>) -> Self {
        Self::ratio(name, counts, |share| share)
    }

    fn metric(&self) -> Metric {
        metric(Bootstrap::default().statistic(self.n, &self.value))
    }

    /// How much of `text` this number reaches, over the same utterances.
    fn recovered_of(&self, text: &Self) -> Metric {
        let share =
            |drawn: &[usize]| recovered(&self.name, (self.value)(drawn), (text.value)(drawn));
        metric(Bootstrap::default().statistic(self.n, share))
    }
}

fn metric(interval: Interval) -> Metric {
    Metric::new(interval.value, interval.lo, interval.hi, interval.n)
}

/// The numbers of one way of reading.
fn numbers(cell: &Cell, outcomes: &[Outcome]) -> Vec<Number> {
    let references: Vec<&str> = cell.items.iter().map(|item| item.answer.as_str()).collect();
    let hypotheses: Vec<&str> = outcomes.iter().map(|outcome| outcome.text.as_str()).collect();
    let pairs = || cell.items.iter().zip(outcomes);
    match cell.kind {
        Kind::Transcript => {
            let references: Vec<String> = references.iter().map(|text| normalize(text)).collect();
            let hypotheses: Vec<String> = hypotheses.iter().map(|text| normalize(text)).collect();
            let wer = score::wer(&references, &hypotheses).expect("an answer an item");
            let cer = score::cer(&references, &hypotheses).expect("an answer an item");
            let mut found = vec![
                Number::of("wer", wer.per_utterance, |counts| counts.rate()),
                Number::of("cer", cer.per_utterance, |counts| counts.rate()),
            ];
            if cell.items.iter().any(|item| !item.entities.is_empty()) {
                let both = cell.items.iter().zip(&hypotheses);
                let recall = both.map(|(item, text)| entity_recall(item, text)).collect();
                found.push(Number::share("entity_recall", recall));
            }
            found
        }
        Kind::Translation => {
            let bleu = score::bleu(&references, &hypotheses).expect("an answer an item");
            let chrf = score::chrf(&references, &hypotheses).expect("an answer an item");
            let (of_bleu, of_chrf) = (score::BleuConfig::default(), score::ChrfConfig::default());
            vec![
                Number::of("bleu", bleu.per_utterance, move |counts| of_bleu.score_of(counts)),
                Number::of("chrf", chrf.per_utterance, move |counts| of_chrf.score_of(counts)),
            ]
        }
        Kind::Exact | Kind::ExactCase => {
            let counts = pairs().map(|(item, outcome)| yes(correct(cell, item, outcome))).collect();
            vec![Number::share("exact", counts)]
        }
        Kind::Choice => vec![Number::share("accuracy", chosen(cell, outcomes, |_| true))],
        Kind::Story => story(cell, outcomes),
    }
}

fn yes(is: bool) -> Ratio {
    Ratio(f64::from(u8::from(is)), 1.0)
}

/// Free endings that parse and agree, choices by level, and how likely the right endings are.
fn story(cell: &Cell, outcomes: &[Outcome]) -> Vec<Number> {
    let checks: Vec<_> = cell
        .items
        .iter()
        .zip(outcomes)
        .map(|(item, outcome)| {
            item.story.as_ref().map(|story| check_continuation(story, &outcome.text))
        })
        .collect();
    let that = |is: &dyn Fn(&Continuation) -> bool| -> Vec<Ratio> {
        checks.iter().map(|check| yes(check.as_ref().is_some_and(is))).collect()
    };
    let mut found = vec![
        Number::share("parses", that(&|check| check.parses)),
        Number::share("agrees", that(&|check| check.parses && check.agrees == Some(true))),
        Number::share("accuracy", chosen(cell, outcomes, |_| true)),
    ];
    for (level, name) in levels() {
        let counts = chosen(cell, outcomes, |item| item.level == Some(level));
        if counts.iter().any(|c| c.1 > 0.0) {
            found.push(Number::share(&name, counts));
        }
    }
    let loss_per = |length: &dyn Fn(&Likelihood) -> Option<f64>| -> Vec<Ratio> {
        let of = |right: &Likelihood| Some(Ratio(-right.log_prob, length(right)?));
        let none = Ratio(0.0, 0.0);
        outcomes.iter().map(|o| o.right.as_ref().and_then(of).unwrap_or(none)).collect()
    };
    let per_second = loss_per(&|right| right.seconds);
    if per_second.iter().any(|c| c.1 > 0.0) {
        found.push(Number::share("loss_per_second", per_second));
    }
    let per_word = loss_per(&|right| Some(right.n_words as f64));
    found.push(Number::share("loss_per_word", per_word.clone()));
    found.push(Number::ratio("perplexity", per_word, f64::exp));
    found
}

fn chosen(cell: &Cell, outcomes: &[Outcome], wanted: impl Fn(&Item) -> bool) -> Vec<Ratio> {
    cell.items
        .iter()
        .zip(outcomes)
        .map(|(item, outcome)| match outcome.chosen {
            Some(chosen) if wanted(item) => yes(chosen == cell.right(item)),
            _ => Ratio(0.0, 0.0),
        })
        .collect()
}

fn entity_recall(item: &Item, hypothesis: &str) -> Ratio {
    let words: Vec<&str> = hypothesis.split(' ').collect();
    let hits = item.entities.iter().filter(|e| words.contains(&normalize(e).as_str())).count();
    Ratio(hits as f64, item.entities.len() as f64)
}

fn correct(cell: &Cell, item: &Item, outcome: &Outcome) -> bool {
    match cell.kind {
        Kind::ExactCase => outcome.text.trim() == item.answer.trim(),
        Kind::Choice | Kind::Story => outcome.chosen == Some(cell.right(item)),
        _ => normalize(&outcome.text) == normalize(&item.answer),
    }
}

/// Adds the scores of a cell: from speech, from the transcript, through the cascade where there is one, and
/// the share recovered.
pub(super) fn add(
    results: &mut Results,
    cell: &Cell,
    speech: &[Outcome],
    text: &[Outcome],
    cascade: Option<&[Outcome]>,
) {
    let numbers = |outcomes| numbers(cell, outcomes);
    let cascade = cascade.map(numbers);
    for (i, (speech, text)) in numbers(speech).iter().zip(&numbers(text)).enumerate() {
        let cascade = cascade.as_ref().map(|numbers| &numbers[i]);
        assert!(
            speech.name == text.name && cascade.is_none_or(|cascade| cascade.name == speech.name),
            "ways of one cell"
        );
        let mut set = |suffix: &str, metric| {
            results.set(&cell.task, &cell.domain, &format!("{}{suffix}", speech.name), metric);
        };
        // A thousand resamples each.
        let ((of_speech, of_text), (of_cascade, recovered)) = rayon::join(
            || (speech.metric(), text.metric()),
            || (cascade.map(Number::metric), speech.recovered_of(text)),
        );
        set("", of_speech);
        set(TEXT, of_text);
        if let Some(of_cascade) = of_cascade {
            set(CASCADE, of_cascade);
        }
        set(RECOVERED, recovered);
    }
}

/// Adds how many vectors the language model is given for a second of speech.
pub(super) fn add_length(results: &mut Results, domain: &str, lengths: Vec<(usize, f64)>) {
    let counts = lengths.into_iter().map(|(n, seconds)| Ratio(n as f64, seconds)).collect();
    let number = Number::share(VECTORS_PER_SECOND, counts);
    results.set("length", domain, &number.name, number.metric());
}

/// How much of the upper bound speech reaches: the ratio of scores, of `1 - error` for error rates, and
/// of the inverses for losses and perplexity.
fn recovered(name: &str, speech: f64, text: f64) -> f64 {
    if name == "perplexity" || name.starts_with("loss") {
        text / speech
    } else if lower_is_better(name) {
        (1.0 - speech) / (1.0 - text)
    } else {
        speech / text
    }
}

fn edits(item: &Item, outcome: &Outcome) -> Edits {
    let counts = score::EditCounts::of(&score::word_edits(
        &normalize(&item.answer),
        &normalize(&outcome.text),
    ));
    Edits {
        sub: counts.substitutions,
        del: counts.deletions,
        ins: counts.insertions,
        hits: counts.hits,
    }
}

/// Adds the scores of one way of reading.
pub(super) fn add_one(results: &mut Results, cell: &Cell, suffix: &str, outcomes: &[Outcome]) {
    for number in numbers(cell, outcomes) {
        let name = format!("{}{suffix}", number.name);
        results.set(&cell.task, &cell.domain, &name, number.metric());
    }
}

/// One line an item, with all that scoring again needs. A way of reading is a suffix and its answers;
/// the first is the one that `hypothesis` holds.
pub(super) fn predictions(cell: &Cell, ways: &[(&str, &Vec<Outcome>)]) -> Vec<Prediction> {
    let scored: Vec<_> = ways.iter().map(|(suffix, o)| (*suffix, numbers(cell, o))).collect();
    let yes_or_no = !matches!(cell.kind, Kind::Transcript | Kind::Translation);
    let words = cell.kind == Kind::Transcript;
    (0..cell.items.len())
        .map(|i| {
            let item = &cell.items[i];
            let counts = scored
                .iter()
                .flat_map(|(suffix, numbers)| {
                    numbers.iter().filter_map(move |number| {
                        let Ratio(a, b) = number.counts.as_ref()?[i];
                        Some((format!("{}{suffix}", number.name), vec![a, b]))
                    })
                })
                .collect();
            let of = |suffix: &str| ways.iter().find(|(s, _)| *s == suffix).map(|(_, o)| &o[i]);
            let right = |outcome: &Outcome| correct(cell, item, outcome);
            Prediction {
                id: item.id.clone(),
                task: cell.task.clone(),
                domain: cell.domain.clone(),
                instruction: Some(item.instruction.clone()),
                transcript: Some(item.spoken.clone()),
                reference: item.answer.clone(),
                hypothesis: ways[0].1[i].text.clone(),
                text_hypothesis: of(TEXT).map(|o| o.text.clone()),
                cascade_hypothesis: of(CASCADE).map(|o| o.text.clone()),
                correct: of("").filter(|_| yes_or_no).map(right),
                text_correct: of(TEXT).filter(|_| yes_or_no).map(right),
                cascade_correct: of(CASCADE).filter(|_| yes_or_no).map(right),
                edits: of("").filter(|_| words).map(|o| edits(item, o)),
                cascade_edits: of(CASCADE).filter(|_| words).map(|o| edits(item, o)),
                counts,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recovered_is_1_at_the_upper_bound() {
        assert_eq!(recovered("bleu", 30.0, 60.0), 0.5);
        // 20 % errors where reading makes none.
        assert!((recovered("wer", 0.2, 0.0) - 0.8).abs() < 1e-12);
        assert_eq!(recovered("perplexity", 4.0, 2.0), 0.5);
    }

    #[test]
    fn what_is_recovered_has_the_interval_of_pairs() {
        // Speech is right on half of what text is right on, whichever utterances are drawn.
        let counts = |share: f64| vec![Ratio(share, 1.0); 40];
        let speech = Number::share("exact", counts(0.4));
        let found = speech.recovered_of(&Number::share("exact", counts(0.8)));
        assert_eq!((found.value, found.lo, found.hi, found.n), (0.5, 0.5, 0.5, 40));
        // And on the second half of the utterances alone, it varies with the draw.
        let half = (0..40).map(|i| yes(i >= 20)).collect();
        let found = Number::share("exact", half).recovered_of(&Number::share("exact", counts(1.0)));
        assert!(found.value == 0.5 && found.lo < 0.4 && found.hi > 0.6, "{found:?}");
    }

    #[test]
    fn every_scorer_says_how_it_scores() {
        let scorers = scorers();
        assert!(scorers["bleu"].contains("tok:13a"), "{}", scorers["bleu"]);
        assert!(scorers["chrf"].contains("nc:6"), "{}", scorers["chrf"]);
    }
}
