//! From answers to numbers with intervals, and to predictions that can be scored again.

use indexmap::IndexMap;
use sandhi_data::{
    microworld::{Item, check_continuation},
    score::{self, Bootstrap, Interval},
    text::normalize,
};

use super::{
    Likelihood, Outcome,
    cells::{Cell, Kind, levels},
};
use crate::results::{
    CASCADE, Edits, Metric, Prediction, RECOVERED, Results, TEXT, lower_is_better,
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

fn metric(interval: Interval) -> Metric {
    Metric::new(interval.value, interval.lo, interval.hi, interval.n)
}

fn ratio(counts: &[Ratio], score: impl Fn(&Ratio) -> f64) -> Metric {
    metric(Bootstrap::default().interval(counts, score))
}

fn share(counts: &[Ratio]) -> Metric {
    ratio(counts, |sum| if sum.1 > 0.0 { sum.0 / sum.1 } else { f64::NAN })
}

/// The metrics of one way of reading, by name, with each utterance's counts where they are a ratio.
fn metrics(cell: &Cell, outcomes: &[Outcome]) -> Vec<(String, Metric, Option<Vec<Ratio>>)> {
    let references: Vec<&str> = cell.items.iter().map(|item| item.answer.as_str()).collect();
    let hypotheses: Vec<&str> = outcomes.iter().map(|outcome| outcome.text.as_str()).collect();
    let boot = Bootstrap::default();
    let mut found: Vec<(String, Metric, Option<Vec<Ratio>>)> = Vec::new();
    let mut add_share = |name: &str, counts: Vec<Ratio>| {
        found.push((name.to_owned(), share(&counts), Some(counts)));
    };
    match cell.kind {
        Kind::Transcript => {
            let references: Vec<String> = references.iter().map(|text| normalize(text)).collect();
            let hypotheses: Vec<String> = hypotheses.iter().map(|text| normalize(text)).collect();
            let wer = score::wer(&references, &hypotheses).expect("an answer an item");
            let cer = score::cer(&references, &hypotheses).expect("an answer an item");
            found.push(("wer".into(), metric(wer.interval(&boot)), None));
            found.push(("cer".into(), metric(cer.interval(&boot)), None));
            if cell.items.iter().any(|item| !item.entities.is_empty()) {
                let recall = cell
                    .items
                    .iter()
                    .zip(&hypotheses)
                    .map(|(item, hypothesis)| entity_recall(item, hypothesis))
                    .collect::<Vec<_>>();
                found.push(("entity_recall".into(), share(&recall), Some(recall)));
            }
        }
        Kind::Translation => {
            let bleu = score::bleu(&references, &hypotheses).expect("an answer an item");
            let chrf = score::chrf(&references, &hypotheses).expect("an answer an item");
            found.push(("bleu".into(), metric(bleu.interval(&boot)), None));
            found.push(("chrf".into(), metric(chrf.interval(&boot)), None));
        }
        Kind::Exact | Kind::ExactCase => {
            let counts = cell
                .items
                .iter()
                .zip(outcomes)
                .map(|(item, outcome)| {
                    Ratio(f64::from(u8::from(correct(cell, item, outcome))), 1.0)
                })
                .collect();
            add_share("exact", counts);
        }
        Kind::Choice => add_share("accuracy", chosen(cell, outcomes, |_| true)),
        Kind::Story => {
            let checks: Vec<_> = cell
                .items
                .iter()
                .zip(outcomes)
                .map(|(item, outcome)| {
                    item.story.as_ref().map(|story| check_continuation(story, &outcome.text))
                })
                .collect();
            let of = |yes: &dyn Fn(&sandhi_data::microworld::Continuation) -> bool| {
                checks
                    .iter()
                    .map(|check| Ratio(f64::from(u8::from(check.as_ref().is_some_and(yes))), 1.0))
                    .collect::<Vec<_>>()
            };
            add_share("parses", of(&|check| check.parses));
            add_share("agrees", of(&|check| check.parses && check.agrees == Some(true)));
            add_share("accuracy", chosen(cell, outcomes, |_| true));
            for (level, name) in levels() {
                let counts = chosen(cell, outcomes, |item| item.level == Some(level));
                if counts.iter().any(|c| c.1 > 0.0) {
                    add_share(&name, counts);
                }
            }
            let loss_per = |length: &dyn Fn(&Likelihood) -> Option<f64>| -> Vec<Ratio> {
                let of = |right: &Likelihood| Some(Ratio(-right.log_prob, length(right)?));
                let none = Ratio(0.0, 0.0);
                outcomes.iter().map(|o| o.right.as_ref().and_then(of).unwrap_or(none)).collect()
            };
            let per_second = loss_per(&|right| right.seconds);
            if per_second.iter().any(|c| c.1 > 0.0) {
                add_share("loss_per_second", per_second);
            }
            let per_word = loss_per(&|right| Some(right.n_words as f64));
            add_share("loss_per_word", per_word.clone());
            let perplexity =
                ratio(&per_word, |sum| if sum.1 > 0.0 { (sum.0 / sum.1).exp() } else { f64::NAN });
            found.push(("perplexity".into(), perplexity, Some(per_word)));
        }
    }
    found
}

fn chosen(cell: &Cell, outcomes: &[Outcome], wanted: impl Fn(&Item) -> bool) -> Vec<Ratio> {
    cell.items
        .iter()
        .zip(outcomes)
        .map(|(item, outcome)| match outcome.chosen {
            Some(chosen) if wanted(item) => {
                Ratio(f64::from(u8::from(chosen == cell.right(item))), 1.0)
            }
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

/// Adds the scores of a cell: from speech, from the transcript, through the cascade, and the share
/// recovered.
pub(super) fn add(
    results: &mut Results,
    cell: &Cell,
    speech: &[Outcome],
    text: &[Outcome],
    cascade: &[Outcome],
) {
    let (speech, text, cascade) =
        (metrics(cell, speech), metrics(cell, text), metrics(cell, cascade));
    for (((name, speech, _), (_, text, _)), (_, cascade, _)) in
        speech.into_iter().zip(text).zip(cascade)
    {
        let mut set = |suffix: &str, metric| {
            results.set(&cell.task, &cell.domain, &format!("{name}{suffix}"), metric);
        };
        set("", speech);
        set(TEXT, text);
        set(CASCADE, cascade);
        set(RECOVERED, Metric::exact(recovered(&name, speech.value, text.value), speech.n));
    }
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
    for (name, metric, _) in metrics(cell, outcomes) {
        results.set(&cell.task, &cell.domain, &format!("{name}{suffix}"), metric);
    }
}

/// One line an item, with all that scoring again needs. A way of reading is a suffix and its answers;
/// the first is the one that `hypothesis` holds.
pub(super) fn predictions(cell: &Cell, ways: &[(&str, &Vec<Outcome>)]) -> Vec<Prediction> {
    let scored: Vec<_> = ways.iter().map(|(suffix, o)| (*suffix, metrics(cell, o))).collect();
    let yes_or_no = !matches!(cell.kind, Kind::Transcript | Kind::Translation);
    let words = cell.kind == Kind::Transcript;
    (0..cell.items.len())
        .map(|i| {
            let item = &cell.items[i];
            let counts = scored
                .iter()
                .flat_map(|(suffix, metrics)| {
                    metrics.iter().filter_map(move |(name, _, counts)| {
                        let Ratio(a, b) = counts.as_ref()?[i];
                        Some((format!("{name}{suffix}"), vec![a, b]))
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
    fn every_scorer_says_how_it_scores() {
        let scorers = scorers();
        assert!(scorers["bleu"].contains("tok:13a"), "{}", scorers["bleu"]);
        assert!(scorers["chrf"].contains("nc:6"), "{}", scorers["chrf"]);
    }
}
