//! From answers to numbers with intervals, and to predictions that can be scored again.

use indexmap::IndexMap;
use sandhi_data::{
    microworld::{Continuation, Item, check_continuation},
    score::{self, Bootstrap, Interval},
    text::normalize,
};

use super::{
    Outcome,
    cells::{Cell, Kind, levels, phenomena},
    choice::{self, Likelihood},
    follows::{self, follows},
};
use crate::{
    model::Steps,
    protocol::{PromptForm, Protocol, Score, Sides},
    results::{
        CASCADE, Edits, Metric, Prediction, RECOVERED, Results, STEPS_SAVED, TEXT, UNIT_ERROR_RATE,
        VECTORS_PER_SECOND, lower_is_better,
    },
};

/// The settings of every scorer.
pub fn scorers() -> IndexMap<String, String> {
    let none: [&str; 0] = [];
    let bleu = score::bleu(&none, &none).map(|b| b.signature).unwrap_or_default();
    let chrf = score::chrf(&none, &none).map(|c| c.signature).unwrap_or_default();
    let likelihood = |score: &str| {
        format!(
            "likeliest ending by {score}; no markers scored; 1/k for the right one of k that tie; \
             the protocol stands beside each number"
        )
    };
    let plain = "lower case, no punctuation but apostrophes";
    [
        ("wer", format!("corpus, words; {plain}")),
        ("cer", format!("corpus, characters; {plain}")),
        ("bleu", bleu),
        ("chrf", chrf),
        ("exact", format!("equal; {plain} (upper_case: to the letter)")),
        ("accuracy", likelihood("the sum of its tokens' log-probabilities")),
        ("accuracy_per_token", likelihood("their mean")),
        ("accuracy_per_character", likelihood("the sum over its characters")),
        ("loss_per_word", "nats of the right ending, end marker left out, per word".to_owned()),
        ("loss_per_second", "the same nats, per second in the base voices".to_owned()),
        ("perplexity", "exponential of loss_per_word".to_owned()),
        ("entity_recall", format!("share of rare names in the answer; {plain}")),
        (
            "follows",
            "share of answers of the form that the instruction asks for, whatever they say"
                .to_owned(),
        ),
        (
            UNIT_ERROR_RATE,
            "corpus, units, runs of one unit taken as one; against an utterance of the base voices; no vocoder"
                .to_owned(),
        ),
        (
            STEPS_SAVED,
            "1 - steps of the largest transformer per token that was read of the answers".to_owned(),
        ),
        ("interval", "95 % percentile bootstrap over utterances, 1,000 resamples".to_owned()),
    ]
    .map(|(name, how)| (name.to_owned(), how))
    .into()
}

/// A ratio of sums.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ratio(pub(super) f64, pub(super) f64);

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
pub(super) struct Number {
    name: String,
    /// What choices are compared by, where it counts choices.
    score: Option<Score>,
    n: usize,
    value: Statistic,
    /// Each utterance's counts where the number is a ratio of them.
    counts: Option<Vec<Ratio>>,
    /// Utterances that are drawn together, where they say much the same.
    groups: Option<Vec<Vec<usize>>>,
}

impl Number {
    /// Name of the metric.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether there is anything to divide by.
    pub(super) fn is_of_something(&self) -> bool {
        self.counts.as_ref().is_none_or(|counts| counts.iter().any(|count| count.1 > 0.0))
    }

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
        let (name, value) = (name.to_owned(), Box::new(value));
        Self { name, score: None, n, value, counts: None, groups: None }
    }

    /// A function of the ratio of summed counts; not a number where nothing is counted.
    pub(super) fn ratio(
        name: &str,
        counts: Vec<Ratio>,
        score: impl Fn(f64) -> f64 + Send + Sync + 'static,
    ) -> Self {
        let of = move |sum: &Ratio| if sum.1 > 0.0 { score(sum.0 / sum.1) } else { f64::NAN };
        Self { counts: Some(counts.clone()), ..Self::of(name, counts, of) }
    }

    /// The ratio of summed counts.
    pub(super) fn share(name: &str, counts: Vec<Ratio>) -> Self {
        Self::ratio(name, counts, |share| share)
    }

    /// Choices by a score.
    fn choices(name: &str, score: Score, credits: Vec<Ratio>) -> Self {
        Self { score: Some(score), ..Self::share(name, credits) }
    }

    /// The same number, whose interval is of draws of whole groups: the key of every utterance says which.
    fn by_group<K: std::hash::Hash + Eq>(mut self, keys: impl Iterator<Item = K>) -> Self {
        let mut groups: IndexMap<K, Vec<usize>> = IndexMap::new();
        keys.enumerate().for_each(|(i, key)| groups.entry(key).or_default().push(i));
        self.groups = Some(groups.into_values().collect());
        self
    }

    pub(super) fn metric(&self) -> Metric {
        let Some(groups) = &self.groups else {
            return Metric::from(Bootstrap::default().statistic(self.n, &self.value));
        };
        let value = |drawn: &[usize]| {
            let utterances: Vec<usize> = drawn.iter().flat_map(|&i| &groups[i]).copied().collect();
            (self.value)(&utterances)
        };
        let found = Bootstrap::default().statistic(groups.len(), value);
        Metric::from(Interval { n: self.n, ..found })
    }

    /// What the metric of this number is stamped with.
    fn under(&self, metric: Metric, choice: Option<(PromptForm, usize)>, sides: Sides) -> Metric {
        match (self.score, choice) {
            (Some(score), Some((prompt, shots))) => {
                metric.under(Protocol { sides, prompt, shots, score })
            }
            _ => metric,
        }
    }

    /// How much of `text` this number reaches, over the same utterances.
    fn recovered_of(&self, text: &Self) -> Metric {
        let share =
            |drawn: &[usize]| recovered(&self.name, (self.value)(drawn), (text.value)(drawn));
        Metric::from(Bootstrap::default().statistic(self.n, share))
    }
}

/// The numbers of one way of reading.
pub(super) fn numbers(cell: &Cell, outcomes: &[Outcome]) -> Vec<Number> {
    let mut found = of_content(cell, outcomes);
    if cell.kind.generates() {
        let pairs = cell.items.iter().zip(outcomes);
        let counts: Option<Vec<Ratio>> =
            pairs.map(|(item, o)| Some(yes(follows(item, &o.text)?))).collect();
        found.extend(counts.map(|counts| Number::share(follows::METRIC, counts)));
    }
    found
}

/// The numbers that say what the answers are worth.
pub(super) fn of_content(cell: &Cell, outcomes: &[Outcome]) -> Vec<Number> {
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
        Kind::Choice { .. } | Kind::Pair => accuracies(cell, outcomes),
        Kind::Units => Vec::new(),
        Kind::Story => story(cell, outcomes),
    }
}

/// How far units are from those of true utterances: an error rate over all of them. Of units alone; what a recognizer
/// hears of sound that is made of them would be further numbers of the same cell.
pub(super) fn unit_errors(pairs: impl IntoIterator<Item = (Vec<u32>, Vec<u32>)>) -> Number {
    let counts = |(said, truth): (Vec<u32>, Vec<u32>)| {
        let counts = score::EditCounts::of(&score::unit_edits(&truth, &said));
        Ratio(counts.errors() as f64, counts.n_reference() as f64)
    };
    Number::share(UNIT_ERROR_RATE, pairs.into_iter().map(counts).collect())
}

/// An error rate of a recognizer.
pub(super) fn error_rate(name: &str, rate: &score::ErrorRate) -> Number {
    let counts = rate.per_utterance.iter();
    let ratio = |c: &score::EditCounts| Ratio(c.errors() as f64, c.n_reference() as f64);
    Number::share(name, counts.map(ratio).collect())
}

/// The share of steps of the largest transformer that answers did not take.
pub(super) fn steps_saved(steps: &[Steps]) -> Number {
    let saved = |steps: &Steps| Ratio(steps.read as f64 - steps.taken as f64, steps.read as f64);
    Number::share(STEPS_SAVED, steps.iter().map(saved).collect())
}

/// Solved examples before an item, their mean: fewer where the context has no room for all.
pub(super) fn shots(n_shots: &[usize]) -> Number {
    Number::share("shots", n_shots.iter().map(|&n| Ratio(n as f64, 1.0)).collect())
}

/// The choices of a cell by every score, and by level or by phenomenon where items have one.
pub(super) fn accuracies(cell: &Cell, outcomes: &[Outcome]) -> Vec<Number> {
    let rights: Vec<usize> = cell.items.iter().map(|item| cell.right(item)).collect();
    let of = |belongs: &dyn Fn(&Item) -> bool| cell.items.iter().map(belongs).collect();
    let by_level =
        levels().map(|(level, name)| (name, of(&|item: &Item| item.level == Some(level))));
    let by_phenomenon = phenomena()
        .map(|(phenomenon, name)| (name, of(&|item: &Item| item.phenomenon == Some(phenomenon))));
    let found = choices(outcomes, &rights, by_level.into_iter().chain(by_phenomenon));
    if cell.kind != Kind::Pair {
        return found;
    }
    // Many pairs have one word, each beside another pseudo-word.
    let of_words = |number: Number| number.by_group(cell.items.iter().map(|item| &item.answer));
    found.into_iter().map(of_words).collect()
}

/// Choices by every score, and by the first one in groups: whether each item belongs.
pub(super) fn choices(
    outcomes: &[Outcome],
    rights: &[usize],
    groups: impl IntoIterator<Item = (String, Vec<bool>)>,
) -> Vec<Number> {
    let credits = |score: Score, belongs: &dyn Fn(usize) -> bool| -> Vec<Ratio> {
        let credit = |i: usize| match &outcomes[i].endings[..] {
            endings if !endings.is_empty() && belongs(i) => {
                Ratio(choice::credit(endings, rights[i], score), 1.0)
            }
            _ => Ratio::default(),
        };
        (0..outcomes.len()).map(credit).collect()
    };
    let of = |score: Score| Number::choices(score.metric(), score, credits(score, &|_| true));
    let mut found: Vec<Number> = Score::ALL.map(of).into();
    for (name, belongs) in groups {
        let counts = credits(Score::Sum, &|i| belongs[i]);
        if counts.iter().any(|c| c.1 > 0.0) {
            found.push(Number::choices(&name, Score::Sum, counts));
        }
    }
    found
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
    ];
    found.extend(accuracies(cell, outcomes));
    let loss_per = |length: &dyn Fn(&str) -> Option<f64>| -> Vec<Ratio> {
        let of = |item: &Item, endings: &[Likelihood]| {
            let right = cell.right(item);
            Some(Ratio(-endings.get(right)?.log_prob, length(&cell.options(item)[right])?))
        };
        let pairs = cell.items.iter().zip(outcomes);
        pairs.map(|(item, o)| of(item, &o.endings).unwrap_or_default()).collect()
    };
    let per_second = loss_per(&|right| cell.right_s.get(right).copied());
    if per_second.iter().any(|c| c.1 > 0.0) {
        found.push(Number::share("loss_per_second", per_second));
    }
    let per_word = loss_per(&|right| Some(right.split_whitespace().count() as f64));
    found.push(Number::share("loss_per_word", per_word.clone()));
    found.push(Number::ratio("perplexity", per_word, f64::exp));
    found
}

fn entity_recall(item: &Item, hypothesis: &str) -> Ratio {
    let words: Vec<&str> = hypothesis.split(' ').collect();
    let hits = item.entities.iter().filter(|e| words.contains(&normalize(e).as_str())).count();
    Ratio(hits as f64, item.entities.len() as f64)
}

fn correct(cell: &Cell, item: &Item, outcome: &Outcome) -> bool {
    match cell.kind {
        Kind::ExactCase => outcome.text.trim() == item.answer.trim(),
        Kind::Choice { .. } | Kind::Pair | Kind::Story => is_chosen(outcome, cell.right(item)),
        _ => normalize(&outcome.text) == normalize(&item.answer),
    }
}

/// Whether the right ending, and no other one, is the likeliest.
pub(super) fn is_chosen(outcome: &Outcome, right: usize) -> bool {
    choice::best(&outcome.endings, Score::Sum) == [right]
}

/// The likeliest ending, the first of those that tie.
pub(super) fn chosen<'a>(outcome: &Outcome, options: &'a [String]) -> &'a str {
    let best = choice::best(&outcome.endings, Score::Sum);
    best.first().and_then(|&i| options.get(i)).map_or("", String::as_str)
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
    let ways = Ways { speech: numbers(speech), text: numbers(text), cascade: cascade.map(numbers) };
    ways.add(results, &cell.task, &cell.domain, cell.kind.choice());
}

/// The same numbers of speech, of its upper bound and of the cascade.
pub(super) struct Ways {
    pub(super) speech: Vec<Number>,
    pub(super) text: Vec<Number>,
    pub(super) cascade: Option<Vec<Number>>,
}

impl Ways {
    /// Adds all of them and the share recovered; choices with what they are made in and after how many solved items.
    pub(super) fn add(
        &self,
        results: &mut Results,
        task: &str,
        domain: &str,
        choice: Option<(PromptForm, usize)>,
    ) {
        for (i, (speech, text)) in self.speech.iter().zip(&self.text).enumerate() {
            let cascade = self.cascade.as_ref().map(|numbers| &numbers[i]);
            assert!(
                speech.name == text.name
                    && cascade.is_none_or(|cascade| cascade.name == speech.name),
                "ways of one cell"
            );
            let mut set = |suffix: &str, metric| {
                results.set(task, domain, &format!("{}{suffix}", speech.name), metric);
            };
            // A thousand resamples each.
            let ((of_speech, of_text), (of_cascade, recovered)) = rayon::join(
                || (speech.metric(), text.metric()),
                || (cascade.map(Number::metric), speech.recovered_of(text)),
            );
            set("", speech.under(of_speech, choice, Sides::S2T));
            set(TEXT, text.under(of_text, choice, Sides::T2T));
            if let Some(of_cascade) = of_cascade {
                set(CASCADE, speech.under(of_cascade, choice, Sides::S2T));
            }
            set(RECOVERED, recovered);
        }
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

pub(super) fn edits(item: &Item, outcome: &Outcome) -> Edits {
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
    let sides = if suffix == TEXT { Sides::T2T } else { Sides::S2T };
    let place = (cell.task.as_str(), cell.domain.as_str());
    add_side(results, place, suffix, &numbers(cell, outcomes), cell.kind.choice(), sides);
}

/// Adds the numbers of one side to a task and domain.
pub(super) fn add_side(
    results: &mut Results,
    (task, domain): (&str, &str),
    suffix: &str,
    numbers: &[Number],
    choice: Option<(PromptForm, usize)>,
    sides: Sides,
) {
    for number in numbers {
        let metric = number.under(number.metric(), choice, sides);
        results.set(task, domain, &format!("{}{suffix}", number.name), metric);
    }
}

/// What an item counts in every number that is a ratio, by the number's name with the suffix.
pub(super) fn counts<N: AsRef<[Number]>>(
    ways: &[(&str, N)],
    i: usize,
) -> IndexMap<String, Vec<f64>> {
    let of = |(suffix, number): (&str, &Number)| {
        let Ratio(a, b) = number.counts.as_ref()?[i];
        Some((format!("{}{suffix}", number.name), vec![a, b]))
    };
    let numbers =
        ways.iter().flat_map(|(suffix, numbers)| numbers.as_ref().iter().map(|n| (*suffix, n)));
    numbers.filter_map(of).collect()
}

/// One line an item, with all that scoring again needs. A way of reading is a suffix and its answers;
/// the first is the one that `hypothesis` holds.
pub(super) fn predictions(cell: &Cell, ways: &[(&str, &Vec<Outcome>)]) -> Vec<Prediction> {
    let scored: Vec<_> = ways.iter().map(|(suffix, o)| (*suffix, numbers(cell, o))).collect();
    let yes_or_no = !matches!(cell.kind, Kind::Transcript | Kind::Translation);
    let words = cell.kind == Kind::Transcript;
    // A document asks for nothing.
    let is_asked = !matches!(cell.kind.choice(), Some((PromptForm::Plain, _)));
    (0..cell.items.len())
        .map(|i| {
            let item = &cell.items[i];
            let said = |outcome: &Outcome| match cell.kind {
                Kind::Choice { .. } | Kind::Pair => chosen(outcome, &cell.options(item)).to_owned(),
                _ => outcome.text.clone(),
            };
            let of = |suffix: &str| ways.iter().find(|(s, _)| *s == suffix).map(|(_, o)| &o[i]);
            let right = |outcome: &Outcome| correct(cell, item, outcome);
            Prediction {
                id: item.id.clone(),
                task: cell.task.clone(),
                domain: cell.domain.clone(),
                instruction: is_asked.then(|| item.instruction.clone()),
                transcript: Some(item.spoken.clone()),
                reference: item.answer.clone(),
                hypothesis: said(&ways[0].1[i]),
                text_hypothesis: of(TEXT).map(said),
                cascade_hypothesis: of(CASCADE).map(said),
                correct: of("").filter(|_| yes_or_no).map(right),
                text_correct: of(TEXT).filter(|_| yes_or_no).map(right),
                cascade_correct: of(CASCADE).filter(|_| yes_or_no).map(right),
                edits: of("").filter(|_| words).map(|o| edits(item, o)),
                cascade_edits: of(CASCADE).filter(|_| words).map(|o| edits(item, o)),
                counts: counts(&scored, i),
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
    fn units_and_steps_by_hand() {
        // 1 2 3 against 1 2 2 4: one of three is another. Runs count once, so 5 5 against 5 is no error.
        let pairs = [(vec![1, 1, 2, 4], vec![1, 2, 2, 3]), (vec![5, 5], vec![5])];
        let number = unit_errors(pairs);
        assert_eq!((number.value)(&[0, 1]), 1.0 / 4.0);
        // 8 tokens with 2 steps, 4 with 4: half of 12 are saved.
        let steps = [Steps { taken: 2, read: 8 }, Steps { taken: 4, read: 4 }];
        let number = steps_saved(&steps);
        assert_eq!((number.name.as_str(), (number.value)(&[0, 1])), ("steps_saved", 0.5));
    }

    #[test]
    fn every_scorer_says_how_it_scores() {
        let scorers = scorers();
        assert!(scorers["bleu"].contains("tok:13a"), "{}", scorers["bleu"]);
        assert!(scorers["chrf"].contains("nc:6"), "{}", scorers["chrf"]);
    }
}
