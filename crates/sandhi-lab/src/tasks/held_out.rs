//! How likely utterances of unit files are: written, spoken and interleaved.
//!
//! ```text
//! utterance ─┬─ written      <|begin|> <|text|> pieces                 loss_per_word    perplexity_pieces
//!            ├─ spoken       <|begin|> <|speech|> units                loss_per_second  perplexity_units
//!            └─ interleaved  <|begin|> <|text|> pieces <|speech|> …    loss_per_word_interleaved, loss_per_second_interleaved
//! ```
//!
//! Markers and the end are read and not counted. Blocks are those of one reading, the same for every model; longer documents
//! are cut to the context.

use std::{
    ops::AddAssign,
    path::{Path, PathBuf},
    sync::Arc,
};

use sandhi_data::{
    interleave,
    text::Symbol,
    units::{UnitCorpus, UnitUtterance},
};

use super::{
    Error,
    score::{Number, Ratio},
};
use crate::{
    model::SpeechTextModel,
    recipe::{EvalConfig, Form},
    results::Results,
    sources::{Workshop, cut},
    train::speech_text::{Reading, document_of},
};

/// Name of the task.
const HELD_OUT: &str = "held_out";

/// Utterances scored at once.
const AT_ONCE: usize = 16;

/// What utterances cost, by what it is of.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    /// Nats of text, and its words.
    words: Ratio,
    /// The same nats, and pieces.
    pieces: Ratio,
    /// Nats of speech, and its units.
    units: Ratio,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.words += other.words;
        self.pieces += other.pieces;
        self.units += other.units;
    }
}

/// How an utterance is read.
const FORMS: [Form; 3] = [Form::Written, Form::Spoken, Form::Interleaved];

/// Measures every file of `config.unit_files`, a domain each.
///
/// # Errors
///
/// [`Error::OtherUnits`] for units of another quantizer than the model's; when a file is damaged, or an utterance cannot be put
/// into tokens.
pub fn evaluate_unit_files(
    model: &SpeechTextModel,
    workshop: &Workshop,
    config: &EvalConfig,
    results: &mut Results,
    progress: &dyn Fn(&str, usize, usize),
) -> Result<(), Error> {
    let paths: Vec<_> = config.unit_files.iter().map(|path| workshop.resolve(path)).collect();
    if let Some((first, second)) = same_name(&paths) {
        return Err(Error::SameName { first: first.clone(), second: second.clone() });
    }
    for path in paths {
        let corpus = UnitCorpus::open(std::slice::from_ref(&path))?;
        if *corpus.header() != model.units {
            return Err(Error::OtherUnits {
                place: "eval.unit_files".to_owned(),
                file: path,
                found: Box::new(corpus.header().clone()),
                expected: Box::new(model.units.clone()),
            });
        }
        let domain = domain(&path);
        let forms = forms(model, &corpus, &|done| progress(&domain, done, corpus.len()))?;
        // Files may have no text, or no words to interleave.
        let numbers = numbers(&forms, model.units.rate_hz).into_iter();
        for number in numbers.filter(Number::is_of_something) {
            results.set(HELD_OUT, &domain, number.name(), number.metric());
        }
    }
    Ok(())
}

/// Two files that are called the same in results.
pub(crate) fn same_name(paths: &[PathBuf]) -> Option<(&PathBuf, &PathBuf)> {
    let earlier = |(i, path): (usize, &PathBuf)| {
        paths[..i].iter().find(|other| domain(other) == domain(path))
    };
    paths.iter().enumerate().find_map(|(i, path)| Some((earlier((i, path))?, path)))
}

/// What a file is called in results.
fn domain(path: &Path) -> String {
    path.file_stem().map_or_else(|| "units".to_owned(), |s| s.to_string_lossy().into_owned())
}

/// Costs of every utterance written, spoken and interleaved.
fn forms(
    model: &SpeechTextModel,
    corpus: &UnitCorpus,
    progress: &dyn Fn(usize),
) -> Result<[Vec<Cost>; 3], Error> {
    let mut forms = [const { Vec::new() }; 3];
    let indices: Vec<usize> = (0..corpus.len()).collect();
    for chunk in indices.chunks(AT_ONCE) {
        let mut utterances = Vec::with_capacity(chunk.len());
        for &i in chunk {
            utterances.push(model.in_tokens(corpus.get(i)?)?);
        }
        for (form, costs) in FORMS.into_iter().zip(&mut forms) {
            let mut readings: Vec<Reading> = Vec::new();
            let mut of = Vec::new();
            for (i, utterance) in utterances.iter().enumerate() {
                // Without words there is nothing to interleave.
                if form == Form::Interleaved && utterance.words.is_empty() {
                    continue;
                }
                for reading in read(model, utterance, form)? {
                    readings.push(reading);
                    of.push(i);
                }
            }
            let mut found = vec![Cost::default(); utterances.len()];
            let log_probs = model.log_probs(&readings).map_err(Box::new)?;
            for ((reading, log_probs), i) in readings.iter().zip(log_probs).zip(of) {
                found[i] += cost(model, reading, &log_probs);
            }
            costs.extend(found);
        }
        progress(forms[0].len());
    }
    Ok(forms)
}

/// The documents of an utterance in one of its forms, none longer than the context.
fn read(
    model: &SpeechTextModel,
    utterance: &UnitUtterance,
    form: Form,
) -> Result<Vec<Reading>, Error> {
    let vocabulary = &model.vocabulary;
    let mut stream = interleave::reading_stream(0, 0, &utterance.id);
    let document = document_of(form, utterance, vocabulary, &mut stream)?;
    Ok(cut(document, Arc::from(utterance.words.as_slice()), vocabulary, model.context)?)
}

/// What the tokens of a document cost, each given those before it.
fn cost(model: &SpeechTextModel, (document, _): &Reading, log_probs: &[f64]) -> Cost {
    let mut cost = Cost::default();
    for (&id, log_prob) in document.ids[1..].iter().zip(log_probs) {
        match model.vocabulary.symbol(id) {
            Some(Symbol::Text) => {
                cost.words += Ratio(-log_prob, 0.0);
                cost.pieces += Ratio(-log_prob, 1.0);
            }
            Some(Symbol::Unit(unit)) => {
                let n = model.merges.as_ref().map_or(1, |merges| merges.length(unit));
                cost.units += Ratio(-log_prob, f64::from(n));
            }
            Some(Symbol::Begin | Symbol::End | Symbol::Marker(_)) | None => {}
        }
    }
    let is_text = |start: &&u32| {
        let first = document.ids.get(**start as usize);
        matches!(first.and_then(|&id| model.vocabulary.symbol(id)), Some(Symbol::Text))
    };
    cost.words.1 = document.words.iter().filter(is_text).count() as f64;
    cost
}

fn numbers([written, spoken, both]: &[Vec<Cost>; 3], rate_hz: f64) -> Vec<Number> {
    let ratios =
        |costs: &[Cost], of: fn(&Cost) -> Ratio| -> Vec<Ratio> { costs.iter().map(of).collect() };
    let seconds = |ratios: Vec<Ratio>| -> Vec<Ratio> {
        ratios.into_iter().map(|Ratio(nats, units)| Ratio(nats, units / rate_hz)).collect()
    };
    let per_word = |cost: &Cost| cost.words;
    let per_unit = |cost: &Cost| cost.units;
    let per_piece = |cost: &Cost| cost.pieces;
    vec![
        Number::share("loss_per_word", ratios(written, per_word)),
        Number::ratio("perplexity_pieces", ratios(written, per_piece), f64::exp),
        Number::share("loss_per_second", seconds(ratios(spoken, per_unit))),
        Number::ratio("perplexity_units", ratios(spoken, per_unit), f64::exp),
        Number::share("loss_per_word_interleaved", ratios(both, per_word)),
        Number::share("loss_per_second_interleaved", seconds(ratios(both, per_unit))),
    ]
}
