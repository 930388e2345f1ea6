//! What a language model has forgotten: the same texts before and after it was trained on speech.
//!
//! ```text
//!                    ┌─ before ─ log p ─┐  perplexity
//! document ─ tokens ─┤                  ├─ KL(before || after) at every token
//!                    └─ after ── log q ─┘  perplexity
//!
//! question of the almanac, in writing ─ which choice is likeliest, before and after
//! ```
//!
//! Perplexity is `exp` of the mean cross-entropy, over the tokens that a document is trained on (all but the one that
//! begins it, the one that ends it included), or of the sum over its words. Before and after are compared on the same
//! documents, drawn together.

use std::{ops::AddAssign, path::Path};

use rayon::prelude::*;
use sandhi_data::{
    language::Language,
    microworld::{Level, Microworld, Style},
    score::{Bootstrap, Interval},
};
use sandhi_nn::transformer::Dropout;
use serde::Serialize;

use super::{
    Error,
    divergence::{at_every_row, divergence},
};
use crate::{
    model::{
        TextModel,
        pack::{Segment, pack},
    },
    protocol::Protocol,
    recipe::Half,
    results::{Metric, Results},
    tasks::read_almanac,
};

/// Documents that go through a model at once.
const AT_ONCE: usize = 16;
/// Tokens of the longest document.
const MAX_TOKENS: usize = 8_192;
/// Sentences of a document; those that a language model is trained on have two to five.
const SENTENCES: usize = 4;
/// The name of what the almanac says, and of what it is asked.
const ALMANAC: &str = "almanac";

/// Documents of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    /// The kind.
    pub name: String,
    /// Its texts.
    pub documents: Vec<String>,
}

impl Corpus {
    /// Texts of a half of Microworld, up to `n` of each kind: sentences in every language and stories with their right
    /// ending, which no training has read; and facts of the almanac, each in one of its six wordings in turn, all of which
    /// were read in training: they are what there is to forget.
    pub fn of_world(world: &Microworld, half: Half, n: usize) -> Vec<Self> {
        let split = half.split();
        let mut all: Vec<Self> = Vec::new();
        for language in Language::ALL {
            let sentences = world.sentences(language, split, Style::Seen, SENTENCES * n);
            let joined = sentences.chunks_exact(SENTENCES).map(|sentences| {
                let texts: Vec<&str> = sentences.iter().map(|s| s.text.as_str()).collect();
                texts.join(" ")
            });
            all.push(Self { name: language.code().to_owned(), documents: joined.collect() });
        }
        let stories = Level::ALL.into_iter().flat_map(|level| {
            let stories = world.stories(split, Style::Seen, level, n.div_ceil(Level::ALL.len()));
            stories
                .into_iter()
                .map(|story| format!("{} {}", story.text(), story.endings[story.right]))
        });
        all.push(Self { name: "stories".to_owned(), documents: stories.take(n).collect() });
        let facts = world.facts().into_iter().filter(|fact| fact.split() == split).take(n);
        let facts = facts.enumerate().map(|(i, fact)| {
            let wordings = fact.paraphrases;
            wordings[i % wordings.len()].clone()
        });
        all.push(Self { name: ALMANAC.to_owned(), documents: facts.collect() });
        all
    }

    /// A text file, a document a line; lines of white space are none.
    ///
    /// # Errors
    ///
    /// [`Error::Corpus`] where there is no such file, no UTF-8 or no document in it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |message: String| Error::Corpus { path: path.to_owned(), message };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let documents: Vec<String> = lines.map(str::to_owned).collect();
        if documents.is_empty() {
            return Err(wrong("found no text, expected a document a line".to_owned()));
        }
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { name, documents })
    }
}

/// What is left of what a language model knew.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forgetting {
    /// A row a corpus.
    pub texts: Vec<TextRow>,
    /// Multiple choice of the almanac, where it was asked.
    pub almanac: Option<Almanac>,
}

/// Multiple choice of the almanac.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Almanac {
    /// Share that is right; of k choices that tie for the likeliest the right one counts 1/k.
    #[serde(flatten)]
    pub accuracy: Change,
    /// How it was asked.
    pub protocol: Protocol,
}

/// A corpus.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextRow {
    /// Its name.
    pub corpus: String,
    /// Its documents.
    pub n_documents: usize,
    /// Tokens that were predicted.
    pub n_tokens: usize,
    /// Words, between white space.
    pub n_words: usize,
    /// Perplexity per token.
    pub perplexity: Change,
    /// Perplexity per word, which models of other tokens share.
    pub perplexity_per_word: Change,
    /// Mean `KL(before || after)` of the next token, in nats a token: the forgetting of SALAD (Cuervo et al. 2025, [arXiv
    /// 2510.13632](https://arxiv.org/abs/2510.13632)). `before(. | t_1 … t_k)` and `after(. | t_1 … t_k)` are given the
    /// same tokens of the document, and every `k` from 0 to its end counts alike.
    pub divergence: Interval,
}

/// A number before and after, and by how much it grew, over the same documents.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Change {
    /// Of the language model as it was.
    pub before: Interval,
    /// Of the one that it became.
    pub after: Interval,
    /// After less before, with the interval of paired documents.
    pub change: Interval,
}

impl Change {
    fn of<T: Clone + Default + AddAssign>(
        bootstrap: &Bootstrap,
        counts: &[T],
        [before, after]: [impl Fn(&T) -> f64; 2],
    ) -> Self {
        Self {
            before: bootstrap.interval(counts, &before),
            after: bootstrap.interval(counts, &after),
            change: bootstrap.interval(counts, |counts| after(counts) - before(counts)),
        }
    }
}

/// What is counted of documents, to be added up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Counts {
    n_tokens: f64,
    n_words: f64,
    /// Cross-entropy before and after, in nats.
    losses: [f64; 2],
    divergence: f64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.n_tokens += other.n_tokens;
        self.n_words += other.n_words;
        self.divergence += other.divergence;
        self.losses.iter_mut().zip(other.losses).for_each(|(sum, loss)| *sum += loss);
    }
}

impl Counts {
    fn row(corpus: &str, counts: &[Self], bootstrap: &Bootstrap) -> TextRow {
        let mut sum = Self::default();
        counts.iter().for_each(|&counts| sum += counts);
        let a_token = [0, 1].map(|i| move |c: &Self| (c.losses[i] / c.n_tokens).exp());
        let a_word = [0, 1].map(|i| move |c: &Self| (c.losses[i] / c.n_words).exp());
        TextRow {
            corpus: corpus.to_owned(),
            n_documents: counts.len(),
            n_tokens: sum.n_tokens as usize,
            n_words: sum.n_words as usize,
            perplexity: Change::of(bootstrap, counts, a_token),
            perplexity_per_word: Change::of(bootstrap, counts, a_word),
            divergence: bootstrap.interval(counts, |c| c.divergence / c.n_tokens),
        }
    }
}

/// Perplexities and divergences of every corpus.
///
/// # Errors
///
/// [`Error::Vocabulary`] when the models do not cut a text into the same tokens, [`Error::Long`] for a document that is
/// longer than a model is given at once.
pub fn texts(
    before: &TextModel,
    after: &TextModel,
    corpora: &[Corpus],
    bootstrap: &Bootstrap,
    progress: &dyn Fn(&str, usize, usize),
) -> Result<Vec<TextRow>, Error> {
    let mut rows = Vec::with_capacity(corpora.len());
    for (i, Corpus { name, documents }) in corpora.iter().enumerate() {
        progress(&format!("reading {name}"), i, corpora.len());
        let chunks: Vec<(&[String], TextModel, TextModel)> =
            documents.chunks(AT_ONCE).map(|chunk| (chunk, before.clone(), after.clone())).collect();
        let counts: Vec<Vec<Counts>> = chunks
            .into_par_iter()
            .map(|(documents, before, after)| read(&before, &after, name, documents))
            .collect::<Result<_, _>>()?;
        rows.push(Counts::row(name, &counts.concat(), bootstrap));
    }
    Ok(rows)
}

/// Refuses two models of which one cannot stand for the other, token by token.
pub(super) fn check_tokens(before: &TextModel, after: &TextModel) -> Result<(), Error> {
    let [n_before, n_after] = [before, after].map(|model| model.lm.n_tokens());
    if n_before == n_after {
        return Ok(());
    }
    Err(Error::Vocabulary(format!("{n_before} tokens before, {n_after} after")))
}

/// The tokens of a text, which are those of both models.
pub(super) fn shared_tokens(
    [before, after]: [&TextModel; 2],
    tokens: impl Fn(&TextModel) -> Result<Vec<u32>, sandhi_data::text::Error>,
    text: &str,
) -> Result<Vec<u32>, Error> {
    let ids = tokens(after)?;
    if tokens(before)? == ids {
        return Ok(ids);
    }
    Err(Error::Vocabulary(format!("{text:?} has other tokens before and after")))
}

fn read(
    before: &TextModel,
    after: &TextModel,
    corpus: &str,
    documents: &[String],
) -> Result<Vec<Counts>, Error> {
    check_tokens(before, after)?;
    let mut counts = Vec::with_capacity(documents.len());
    let mut ids: Vec<Vec<u32>> = Vec::with_capacity(documents.len());
    for text in documents {
        let of = shared_tokens([before, after], |model| model.chat.document(text), text)?;
        if of.len() > MAX_TOKENS {
            return Err(Error::Long {
                corpus: corpus.to_owned(),
                text: text.chars().take(40).collect(),
                n_tokens: of.len(),
                most: MAX_TOKENS,
            });
        }
        let n_words = text.split_whitespace().count() as f64;
        counts.push(Counts { n_tokens: (of.len() - 1) as f64, n_words, ..Counts::default() });
        ids.push(of);
    }
    let sequences: Vec<[Segment; 1]> =
        ids.iter().map(|ids| [Segment::Tokens(ids[..ids.len() - 1].to_vec())]).collect();
    let readers = [before, after].map(|model| {
        let input = pack(&model.lm, &sequences, None);
        (&model.lm, model.lm.forward(&input, &[], Dropout::OFF).last)
    });
    // The document and the next token of every row.
    let next: Vec<(usize, u32)> = ids
        .iter()
        .enumerate()
        .flat_map(|(i, ids)| ids[1..].iter().map(move |&id| (i, id)))
        .collect();
    at_every_row(&readers, |row, expected| {
        let (document, token) = next[row];
        let counts = &mut counts[document];
        for (loss, expected) in counts.losses.iter_mut().zip(expected) {
            *loss -= expected[token as usize];
        }
        counts.divergence += divergence(&expected[0], &expected[1]);
    });
    Ok(counts)
}

/// The almanac's multiple choice in writing, `n` questions of the half.
///
/// # Errors
///
/// When the tokenizer refuses a text.
pub fn almanac(
    before: &TextModel,
    after: &TextModel,
    world: &Microworld,
    half: Half,
    n: usize,
    bootstrap: &Bootstrap,
) -> Result<Almanac, Error> {
    let (before, protocol) = read_almanac(before, world, half.split(), n)?;
    let (after, _) = read_almanac(after, world, half.split(), n)?;
    let pairs = before.into_iter().zip(after);
    let counts: Vec<Credits> =
        pairs.map(|(before, after)| Credits { n: 1.0, credits: [before, after] }).collect();
    let share = [0, 1].map(|i| move |c: &Credits| c.credits[i] / c.n);
    Ok(Almanac { accuracy: Change::of(bootstrap, &counts, share), protocol })
}

/// What the answers to questions were worth before and after.
#[derive(Debug, Clone, Copy, Default)]
struct Credits {
    n: f64,
    credits: [f64; 2],
}

impl AddAssign for Credits {
    fn add_assign(&mut self, other: Self) {
        self.n += other.n;
        self.credits.iter_mut().zip(other.credits).for_each(|(sum, credit)| *sum += credit);
    }
}

impl Forgetting {
    /// Adds the numbers to a run's: under `forgetting`, a domain a corpus.
    pub fn add_to(&self, results: &mut Results) {
        let mut set = |corpus: &str, metric: &str, interval: Interval| {
            results.set("forgetting", corpus, metric, Metric::from(interval));
        };
        for row in &self.texts {
            let perplexity = &row.perplexity;
            set(&row.corpus, "perplexity", perplexity.after);
            set(&row.corpus, "perplexity_before", perplexity.before);
            set(&row.corpus, "perplexity_change", perplexity.change);
            set(&row.corpus, "divergence", row.divergence);
        }
        if let Some(Almanac { accuracy: Change { before, after, change }, protocol }) = self.almanac
        {
            for (metric, interval) in
                [("accuracy", after), ("accuracy_before", before), ("accuracy_change", change)]
            {
                let number = Metric::from(interval).under(protocol);
                results.set("forgetting", ALMANAC, metric, number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use burn::prelude::Device;
    use sandhi_data::microworld::{Item, Task};
    use sandhi_nn::weights;

    use super::*;
    use crate::{
        hf::Hub,
        inspect::testing::text_model,
        model::AnyModel,
        recipe::LossConfig,
        train::learner::{Learner, Measured, TextBatch, TextItem},
    };

    const DOCUMENTS: [&str; 4] =
        ["Anna took the red ball.", "Where is it?", "Ben has the key. Anna has the ball.", "ñ"];

    fn corpus() -> Corpus {
        Corpus { name: "mine".to_owned(), documents: DOCUMENTS.map(str::to_owned).to_vec() }
    }

    fn one(before: &TextModel, after: &TextModel, corpus: Corpus) -> TextRow {
        let rows = texts(before, after, &[corpus], &Bootstrap::default(), &|_, _, _| {});
        rows.unwrap().remove(0)
    }

    #[test]
    fn a_model_has_forgotten_nothing_of_what_it_is() {
        let model = text_model(3);
        let row = one(&model, &model, corpus());
        let zero = |interval: Interval| {
            assert_eq!((interval.value, interval.lo, interval.hi), (0.0, 0.0, 0.0));
        };
        zero(row.divergence);
        zero(row.perplexity.change);
        zero(row.perplexity_per_word.change);
        assert_eq!(row.perplexity.before, row.perplexity.after);
        assert_eq!((row.n_documents, row.n_words), (4, 5 + 3 + 8 + 1));
    }

    /// Perplexity is `exp` of the loss that the trainer reports on the same documents.
    #[test]
    fn perplexity_is_that_of_the_trainer() {
        let (before, after) = (text_model(3), text_model(4));
        let row = one(&before, &after, corpus());
        let item = |text: &&str| TextItem { ids: before.chat.document(text).unwrap(), n_prompt: 0 };
        let batch = TextBatch { items: DOCUMENTS.iter().map(item).collect() };
        let config = LossConfig::default();
        let count = batch.size(&config).counts[0].1;
        assert_eq!(row.n_tokens as f64, count);
        for (model, found) in [(&before, row.perplexity.before), (&after, row.perplexity.after)] {
            let terms = model.lm.terms(&batch, &config, Dropout::OFF);
            let sum = sandhi_nn::weights::host(terms[0].sum.clone())[0];
            let expected = (f64::from(sum) / count).exp();
            assert!((found.value / expected - 1.0).abs() < 1e-5, "{found:?} {expected}");
        }
        let change = row.perplexity.after.value - row.perplexity.before.value;
        assert!((row.perplexity.change.value - change).abs() < 1e-9);
        // Per word, of the same sum.
        let of_words = |perplexity: f64| perplexity.powf(count / row.n_words as f64);
        let [found, expected] =
            [row.perplexity_per_word.after.value, of_words(row.perplexity.after.value)];
        assert!((found / expected - 1.0).abs() < 1e-6, "{found} {expected}");
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let model = text_model(3);
        let read = |before: &TextModel, documents: Vec<String>| {
            let corpus = Corpus { name: "mine".to_owned(), documents };
            let rows = texts(before, &model, &[corpus], &Bootstrap::default(), &|_, _, _| {});
            rows.unwrap_err().to_string()
        };
        let mut wider = model.clone();
        wider.lm = wider
            .config
            .init(model.lm.n_tokens() + 1, &sandhi_nn::init::Init::new(1, &Device::flex()));
        let error = read(&wider, vec!["a".to_owned()]);
        assert!(error.contains("tokens before") && error.contains("after"), "{error}");
        let error = read(&model, vec!["b".to_owned(), "xy ".repeat(MAX_TOKENS)]);
        assert!(
            error.contains("mine") && error.contains("8192") && error.contains("xy xy"),
            "{error}"
        );

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.txt");
        std::fs::write(&path, "One.\n\n  Two two.  \n").unwrap();
        let corpus = Corpus::read(&path).unwrap();
        assert_eq!(
            (corpus.name.as_str(), corpus.documents),
            ("web", vec!["One.".into(), "Two two.".into()])
        );
        std::fs::write(&path, " \n").unwrap();
        for path in [path, dir.path().join("none.txt")] {
            let error = Corpus::read(&path).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }

    #[test]
    fn texts_are_of_the_half_and_in_their_language() {
        let world = Microworld::new(1);
        let corpora = Corpus::of_world(&world, Half::Dev, 6);
        let names: Vec<&str> = corpora.iter().map(|corpus| corpus.name.as_str()).collect();
        assert_eq!(names, ["en", "de", "es", "stories", "almanac"]);
        assert!(corpora.iter().all(|corpus| corpus.documents.len() == 6), "{corpora:?}");
        let other = Corpus::of_world(&world, Half::Test, 6);
        for (dev, test) in corpora.iter().zip(&other) {
            assert!(dev.documents.iter().all(|text| !test.documents.contains(text)));
        }
    }

    /// A foundation model without the gated layers of its first two blocks.
    #[test]
    fn a_language_model_that_was_damaged_has_forgotten() {
        let dir =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/language_model");
        let hub = Hub::offline(PathBuf::new());
        let before = AnyModel::load_text(&dir, &Device::flex(), &hub).unwrap();
        let mut after = before.clone();
        let mut damaged = weights::weights(&after.lm);
        for (name, tensor) in &mut damaged {
            if name.contains("layers.0.mlp.down_proj") || name.contains("layers.1.mlp.down_proj") {
                tensor.values.fill(0.0);
            }
        }
        after.lm = weights::load(after.lm, damaged).unwrap();
        let world = Microworld::new(1);
        let bootstrap = Bootstrap { n_resamples: 200, ..Bootstrap::default() };
        let corpora = Corpus::of_world(&world, Half::Dev, 12);
        for row in texts(&before, &after, &corpora, &bootstrap, &|_, _, _| {}).unwrap() {
            assert!(row.perplexity.before.value < 40.0, "{row:?}");
            assert!(row.perplexity.change.lo > 0.0 && row.divergence.lo > 0.0, "{row:?}");
        }
        let of = |after| almanac(&before, after, &world, Half::Dev, 12, &bootstrap).unwrap();
        let choices = of(&after).accuracy;
        let found = [choices.before.value, choices.after.value];
        assert_eq!(found, [&before, &after].map(|model| share_right(model, &world, 12)));
        let change = choices.change.value - (found[1] - found[0]);
        assert!(change.abs() < 1e-12 && choices.change.n == 12, "{choices:?}");
        let same = of(&before).accuracy;
        assert_eq!((same.before, same.change.value), (choices.before, 0.0));
    }

    /// Of a model to which all tokens are alike the shortest choices are the likeliest, and share what is right.
    #[test]
    fn choices_that_tie_share_what_is_right() {
        let mut model = text_model(3);
        let mut blind = weights::weights(&model.lm);
        for (name, tensor) in &mut blind {
            if name.contains("lm_head") {
                tensor.values.fill(0.0);
            }
        }
        model.lm = weights::load(model.lm, blind).unwrap();
        let (world, split) = (Microworld::new(1), Half::Dev.split());
        let items = world.items(Task::FactChoice, Language::English, split, Style::Seen, 60);
        let credit = |item: &Item| {
            let lengths: Vec<usize> =
                item.choices.iter().map(|c| model.chat.answer(c).unwrap().len()).collect();
            let fewest = *lengths.iter().min().unwrap();
            let n_best = lengths.iter().filter(|&&n| n == fewest).count();
            if lengths[item.right] == fewest { 1.0 / n_best as f64 } else { 0.0 }
        };
        let credits: Vec<f64> = items.iter().map(credit).collect();
        assert!(credits.iter().any(|credit| *credit > 0.0 && *credit < 1.0), "{credits:?}");
        let bootstrap = Bootstrap { n_resamples: 20, ..Bootstrap::default() };
        let found = almanac(&model, &model, &world, Half::Dev, 60, &bootstrap).unwrap();
        let mean = credits.iter().sum::<f64>() / credits.len() as f64;
        assert!((found.accuracy.after.value - mean).abs() < 1e-12, "{found:?} {mean}");

        let mut results = Results::default();
        Forgetting { texts: Vec::new(), almanac: Some(found) }.add_to(&mut results);
        let rules = "turns tokenized apart; no markers scored; k tied for best share 1";
        for metric in ["accuracy", "accuracy_before", "accuracy_change"] {
            let protocol = results.get("forgetting", ALMANAC, metric).unwrap().protocol.unwrap();
            assert_eq!(protocol.to_string(), format!("T→T, chat, 0-shot, sum; {rules}"));
        }
    }

    /// Every choice read behind its question, without the marker that would end it.
    fn share_right(model: &TextModel, world: &Microworld, n: usize) -> f64 {
        let split = Half::Dev.split();
        let items = world.items(Task::FactChoice, Language::English, split, Style::Seen, n);
        let log_prob = |item: &Item, choice: &str| {
            let spoken = Segment::Tokens(model.chat.transcript(&item.spoken).unwrap());
            let mut sequence = model.chat.prompt(&item.instruction, vec![spoken]).unwrap();
            let mut choice = model.chat.answer(choice).unwrap();
            choice.pop().unwrap();
            sequence.push(Segment::Tokens(choice[..choice.len() - 1].to_vec()));
            let input = pack(&model.lm, &[sequence], None);
            let hidden = model.lm.forward_tails(&input, &[choice.len()], Dropout::OFF);
            let mut sum = 0.0;
            at_every_row(&[(&model.lm, hidden)], |row, expected| {
                sum += expected[0][choice[row] as usize];
            });
            sum
        };
        let is_right = |item: &&Item| {
            let of: Vec<f64> = item.choices.iter().map(|choice| log_prob(item, choice)).collect();
            of.iter().all(|&other| other <= of[item.right])
        };
        items.iter().filter(is_right).count() as f64 / n as f64
    }
}
