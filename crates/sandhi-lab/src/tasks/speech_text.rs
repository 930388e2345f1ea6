//! Choices of a model over text and units, in all four directions.
//!
//! ```text
//! S→S   <|begin|> <|speech|> units of the context · units of the ending
//! S→T   <|begin|> <|speech|> units of the context  <|text|> · pieces of the ending
//! T→S   <|begin|> <|text|> pieces of the context  <|speech|> · units of the ending
//! T→T   <|begin|> <|text|> pieces of both, tokenized together        what counts begins at the dot
//! pair  <|begin|> <|speech|> · units of the whole    or    <|begin|> <|text|> · pieces of the whole
//! ```
//!
//! Context and endings are spoken apart, in one voice, so that all endings follow the same units. Where endings are
//! written the model also goes on by itself, and what it writes is held against the story's state.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use sandhi_data::{
    interleave::{self, Document, SpeechSpan},
    language::Language,
    microworld::Item,
    text::{JointVocabulary, Mode},
    units::{UnitUtterance, UnitWord},
};

use super::{
    Cell, Error, Outcome, Outcomes,
    cells::{Kind, cells},
    choice::{Likelihood, shared},
    files::{add_unsupported, suffix},
    says,
    score::{self, Number, add_side, scorers},
    vocoder::Voice,
};
use crate::{
    frames::FrameCache,
    generate::Decoding,
    model::{self, SpeechTextModel, Steps},
    protocol::{PromptForm, Side, Sides, Unsupported},
    recipe::{EvalConfig, Form},
    results::{Metric, Prediction, Results, UNIT_ERROR_RATE},
    sources::{Spoken, Workshop, in_domain},
};

/// Tasks that such a model has, which was taught no instructions: endings of documents, whole utterances, what is said in
/// writing and what is written in speech.
const ABLE: [&str; 9] = [
    "story_cloze",
    "hella_swag",
    "continuation",
    "swuggy",
    "sblimp",
    "asr",
    "asr_3",
    "tts",
    "tts_3",
];

/// Tokens scored at once, about.
const AT_ONCE: usize = 4_096;

/// A context or an ending.
#[derive(Clone, Copy)]
enum Part<'a> {
    Spoken(&'a UnitUtterance),
    Written(&'a str),
}

/// Tokens of which those from `from` on count.
struct Scored {
    document: Document,
    words: Arc<[UnitWord]>,
    from: usize,
}

/// Measures what such a model has of Microworld, on every side that is asked for, all where none is: endings of stories,
/// pairs, what it writes of speech and what it says of text, which a voice makes heard where there is one.
///
/// # Errors
///
/// When speech cannot be made or frames cannot be cached, or the voice is of other units.
pub fn evaluate_speech_text(
    model: &SpeechTextModel,
    voice: Option<&Voice>,
    workshop: &Workshop,
    config: &EvalConfig,
    cache: &Path,
    results: &mut Results,
    progress: &dyn Fn(&str, usize, usize),
) -> Result<Vec<Vec<Prediction>>, Error> {
    if let Some(voice) = voice {
        results.meta.notes.push(voice.note(&model.units, config)?);
    }
    let mut all = cells(workshop.world(), config.half.split(), config);
    all.retain(|cell| {
        let able = ABLE.contains(&cell.task.as_str());
        if !able && !config.tasks.is_empty() {
            let Cell { task, domain, .. } = cell;
            tracing::warn!(
                "{task}.{domain} is left out: a speech_text model was taught no instructions"
            );
        }
        able
    });
    // Text does not sound: of the acoustic domains one is left.
    all.retain(|cell| cell.kind != Kind::Units || ["base", "texts"].contains(&&*cell.domain));
    let asked: &[Sides] = if config.sides.is_empty() { &Sides::ALL } else { &config.sides };
    let mut predictions = Vec::with_capacity(all.len());
    for (i, cell) in all.iter().enumerate() {
        progress(&format!("{} {}", cell.task, cell.domain), i, all.len());
        let mut sides: Vec<Sides> =
            asked.iter().copied().filter(|&sides| is_measured(cell.kind, sides)).collect();
        sides.retain(|&sides| match lack(model, cell.kind, sides) {
            None => true,
            Some(why) => {
                add_lack(results, cell, sides, why);
                false
            }
        });
        if sides.is_empty() {
            continue;
        }
        let heard = heard(model, workshop, cell, cache, &sides)?;
        let found = match cell.kind {
            Kind::Transcript => says::transcripts(model, cell, &heard, results),
            Kind::Units => says::units(model, cell, &heard, voice.zip(Some(workshop)), results),
            _ => choices(model, cell, &sides, &heard, results),
        };
        predictions.extend(unless_too_long(found, cell, sides[0], results)?);
    }
    for cell in &all {
        let is_trained = match cell.kind {
            Kind::Transcript => workshop.has_learned(Form::Transcribed),
            Kind::Units => workshop.has_learned(Form::Voiced),
            _ => false,
        };
        if is_trained && !results.meta.trained_tasks.contains(&cell.task) {
            results.meta.trained_tasks.push(cell.task.clone());
        }
    }
    results.meta.scorer.extend(scorers());
    progress("done", all.len(), all.len());
    Ok(predictions)
}

/// Whether a cell of this kind has numbers of these sides.
fn is_measured(kind: Kind, sides: Sides) -> bool {
    match kind {
        Kind::Pair => sides.context == sides.ending,
        Kind::Transcript => sides == Sides::S2T,
        Kind::Units => sides == Sides::T2S,
        _ => true,
    }
}

/// What was found, and "not available" where an item is longer than the model's context: what other tasks found stays.
fn unless_too_long<T>(
    found: Result<T, Error>,
    cell: &Cell,
    sides: Sides,
    results: &mut Results,
) -> Result<Option<T>, Error> {
    match found {
        Err(Error::Model(error)) if matches!(*error, model::Error::TooLong { .. }) => {
            let Cell { task, domain, .. } = cell;
            tracing::warn!("{task}.{domain}{} is left out: {error}", suffix(sides));
            add_lack(results, cell, sides, Unsupported::TooLong);
            Ok(None)
        }
        found => found.map(Some),
    }
}

/// Why there are no such numbers, if so.
fn lack(model: &SpeechTextModel, kind: Kind, sides: Sides) -> Option<Unsupported> {
    if model.hearing.is_none() && sides != Sides::T2T {
        // What is not heard cannot be spoken to it, nor said in its units.
        return Some(match sides.context {
            Side::Spoken => Unsupported::CannotHear,
            Side::Written => Unsupported::CannotSpeak,
        });
    }
    let is_said = matches!(kind, Kind::Transcript | Kind::Units);
    (is_said && !model.can_go_on()).then_some(Unsupported::CannotGoOn)
}

/// Puts "not available" with its reason in the place of the numbers of a side.
fn add_lack(results: &mut Results, cell: &Cell, sides: Sides, why: Unsupported) {
    let (task, domain) = (&cell.task, &cell.domain);
    let mut set = |name: &str| {
        let name = format!("{name}{}", suffix(sides));
        results.set(task, domain, &name, Metric::unsupported(why));
    };
    match cell.kind {
        Kind::Transcript => ["wer", "cer"].into_iter().for_each(set),
        Kind::Units => set(UNIT_ERROR_RATE),
        _ => add_unsupported(results, (task, domain), sides, why),
    }
}

/// Chooses on every side, and goes on where that is written.
fn choices(
    model: &SpeechTextModel,
    cell: &Cell,
    sides: &[Sides],
    heard: &Heard,
    results: &mut Results,
) -> Result<Vec<Prediction>, Error> {
    let mut found = Vec::new();
    for &sides in sides {
        let chosen = chosen(model, cell, sides, heard);
        let Some((outcomes, numbers)) = unless_too_long(chosen, cell, sides, results)? else {
            continue;
        };
        let place = (cell.task.as_str(), cell.domain.as_str());
        add_side(results, place, suffix(sides), &numbers, Some((PromptForm::Plain, 0)), sides);
        found.push(Chosen { sides, outcomes, numbers });
    }
    let items = cell.items.iter().enumerate();
    Ok(items.map(|(i, item)| prediction(cell, item, i, &found)).collect())
}

/// Chooses on one side.
fn chosen(
    model: &SpeechTextModel,
    cell: &Cell,
    sides: Sides,
    heard: &Heard,
) -> Result<(Outcomes, Vec<Number>), Error> {
    let mut outcomes = outcomes(model, cell, sides, heard)?;
    let writes = cell.kind.generates() && sides.ending == Side::Written;
    let numbers = if writes && model.can_go_on() {
        let steps = go_on(model, cell, sides, heard, &mut outcomes)?;
        let mut numbers = score::numbers(cell, &outcomes);
        numbers.push(score::steps_saved(&steps));
        numbers
    } else {
        score::accuracies(cell, &outcomes)
    };
    Ok((outcomes, numbers))
}

/// What was chosen, and written, on one side.
struct Chosen {
    sides: Sides,
    outcomes: Outcomes,
    numbers: Vec<Number>,
}

/// What is said of a cell's items, by text and by the text whose voice says it.
pub(super) type Heard = BTreeMap<(String, String), UnitUtterance>;

/// Contexts and endings as they are heard, where some side wants them spoken.
fn heard(
    model: &SpeechTextModel,
    workshop: &Workshop,
    cell: &Cell,
    cache: &Path,
    sides: &[Sides],
) -> Result<Heard, Error> {
    let Some(hearing) = &model.hearing else { return Ok(Heard::new()) };
    let contexts = sides.iter().any(|sides| sides.context == Side::Spoken);
    let endings = sides.iter().any(|sides| sides.ending == Side::Spoken);
    let mut keys = Vec::new();
    for item in cell.items.iter().chain(&cell.shots) {
        let whole = match cell.kind {
            Kind::Transcript | Kind::Units => true,
            Kind::Pair => false,
            _ => contexts,
        };
        keys.extend(whole.then(|| (item.spoken.clone(), item.spoken.clone())));
        let endings = cell.options(item).into_iter().filter(|_| endings);
        keys.extend(endings.map(|ending| (ending, item.spoken.clone())));
    }
    // Utterances alone are those that other models hear.
    let said = |(text, like): &(String, String)| match cell.kind {
        Kind::Transcript | Kind::Units => {
            Spoken::made(text.clone(), Language::English, cell.acoustic)
        }
        _ => in_domain(text, like, cell.acoustic),
    };
    let spoken: Vec<Spoken> = keys.iter().map(said).collect();
    let cache = FrameCache::new(cache, &hearing.speech.frames_fingerprint());
    let units = workshop.units(&spoken, hearing, &cache, &|_, _| {})?;
    let units: Vec<UnitUtterance> =
        units.into_iter().map(|utterance| model.in_tokens(utterance)).collect::<Result<_, _>>()?;
    Ok(keys.into_iter().zip(units).collect())
}

/// How likely every ending of every item is.
fn outcomes(
    model: &SpeechTextModel,
    cell: &Cell,
    sides: Sides,
    heard: &Heard,
) -> Result<Outcomes, Error> {
    let mut scored = Vec::new();
    for item in &cell.items {
        let options = cell.options(item);
        scored.extend(match cell.kind {
            Kind::Pair => wholes(&model.vocabulary, item, &options, sides.ending, heard)?,
            _ => questions(&model.vocabulary, item, &options, sides, heard)?,
        });
    }
    let mut likely = Vec::with_capacity(scored.len());
    let mut rest = scored.as_slice();
    while !rest.is_empty() {
        let mut n_tokens = 0;
        let fits = |scored: &&Scored| {
            n_tokens += scored.document.ids.len();
            n_tokens <= AT_ONCE
        };
        let n = rest.iter().take_while(fits).count().max(1);
        let (now, later) = rest.split_at(n);
        let documents: Vec<_> =
            now.iter().map(|scored| (scored.document.clone(), scored.words.clone())).collect();
        let found = model.log_probs(&documents).map_err(Box::new)?;
        for (scored, log_probs) in now.iter().zip(found) {
            likely.push(log_probs[scored.from - 1..].to_vec());
        }
        rest = later;
    }
    let mut likely = likely.into_iter();
    let outcome = |item: &Item| {
        let endings = cell.options(item);
        let endings = endings
            .iter()
            .map(|ending| Likelihood::new(&likely.next().expect("one an ending"), ending));
        Outcome { text: String::new(), endings: endings.collect() }
    };
    Ok(cell.items.iter().map(outcome).collect())
}

/// What the model writes behind every context, and what that took.
fn go_on(
    model: &SpeechTextModel,
    cell: &Cell,
    sides: Sides,
    heard: &Heard,
    outcomes: &mut Outcomes,
) -> Result<Vec<Steps>, Error> {
    let vocabulary = &model.vocabulary;
    let mut beginnings = Vec::with_capacity(cell.items.len());
    for item in &cell.items {
        let mut composer = Composer::new(vocabulary);
        composer.part(part(sides.context, &item.spoken, &item.spoken, heard))?;
        if sides.context == Side::Spoken {
            composer.marker(Mode::Text);
        }
        beginnings.push(composer.document.ids);
    }
    let decoding = Decoding { max_tokens: cell.max_tokens, ..Decoding::default() };
    let answers = model.transcribe(&beginnings, &decoding).map_err(Box::new)?;
    let mut steps = Vec::with_capacity(answers.len());
    for (outcome, (text, taken)) in outcomes.iter_mut().zip(answers) {
        outcome.text = text;
        steps.push(taken);
    }
    Ok(steps)
}

/// The utterances of a pair, each alone: everything behind the marker counts.
fn wholes(
    vocabulary: &JointVocabulary,
    item: &Item,
    options: &[String],
    side: Side,
    heard: &Heard,
) -> Result<Vec<Scored>, Error> {
    let scored = |option: &String| {
        let part = part(side, option, &item.spoken, heard);
        let mut composer = Composer::new(vocabulary);
        composer.mark(part);
        let from = composer.document.ids.len();
        composer.body(part)?;
        Ok(composer.scored(from))
    };
    options.iter().map(scored).collect()
}

/// An item with each of its endings.
fn questions(
    vocabulary: &JointVocabulary,
    item: &Item,
    endings: &[String],
    sides: Sides,
    heard: &Heard,
) -> Result<Vec<Scored>, Error> {
    let context = &item.spoken;
    let before = part(sides.context, context, context, heard);
    if let (Part::Written(context), Side::Written) = (before, sides.ending) {
        let tokenizer = vocabulary.tokenizer();
        let wholes: Vec<Vec<u32>> = endings
            .iter()
            .map(|ending| tokenizer.encode(&format!("{context} {ending}")))
            .collect::<Result<_, _>>()?;
        let border = shared(&tokenizer.encode(context)?, &wholes);
        let scored = |whole: Vec<u32>| {
            let mut composer = Composer::new(vocabulary);
            composer.marker(Mode::Text);
            let from = composer.document.ids.len() + border;
            composer.document.ids.extend(whole);
            composer.scored(from)
        };
        return Ok(wholes.into_iter().map(scored).collect());
    }
    endings
        .iter()
        .map(|ending| {
            let after = part(sides.ending, ending, context, heard);
            let mut composer = Composer::new(vocabulary);
            composer.part(before)?;
            // What goes on in the same way needs no marker.
            if !matches!((before, after), (Part::Spoken(_), Part::Spoken(_))) {
                composer.mark(after);
            }
            let from = composer.document.ids.len();
            composer.body(after)?;
            Ok(composer.scored(from))
        })
        .collect()
}

/// A context, or the ending of one, on its side.
fn part<'a>(side: Side, text: &'a str, context: &str, heard: &'a Heard) -> Part<'a> {
    match side {
        Side::Written => Part::Written(text),
        Side::Spoken => {
            let units = heard.get(&(text.to_owned(), context.to_owned()));
            Part::Spoken(units.expect("what a side wants spoken was heard"))
        }
    }
}

/// Puts parts behind one another.
struct Composer<'a> {
    vocabulary: &'a JointVocabulary,
    document: Document,
    words: Vec<UnitWord>,
}

impl<'a> Composer<'a> {
    fn new(vocabulary: &'a JointVocabulary) -> Self {
        let ids = vec![vocabulary.begin()];
        let document = Document { ids, spans: Vec::new(), words: Vec::new(), n_units: 0 };
        Self { vocabulary, document, words: Vec::new() }
    }

    fn marker(&mut self, mode: Mode) {
        self.document.ids.push(self.vocabulary.marker(mode));
    }

    fn mark(&mut self, part: Part<'_>) {
        self.marker(match part {
            Part::Spoken(_) => Mode::Speech,
            Part::Written(_) => Mode::Text,
        });
    }

    fn part(&mut self, part: Part<'_>) -> Result<(), Error> {
        self.mark(part);
        self.body(part)
    }

    fn body(&mut self, part: Part<'_>) -> Result<(), Error> {
        match part {
            Part::Written(text) => {
                self.document.ids.extend(self.vocabulary.tokenizer().encode(text)?);
            }
            Part::Spoken(utterance) => {
                let (first, n_words) = (self.document.ids.len(), self.words.len());
                for span in interleave::pieces(utterance)? {
                    let tokens = first + span.units.start..first + span.units.end;
                    let word = span.word.map(|word| (n_words + word) as u32);
                    if !tokens.is_empty() {
                        self.document.spans.push(SpeechSpan { tokens, word });
                    }
                }
                let unit = |&unit: &u32| {
                    self.vocabulary.unit(unit).expect("units are those of the vocabulary")
                };
                self.document.ids.extend(utterance.units.iter().map(unit));
                self.document.n_units += utterance.units.len();
                self.words.extend(utterance.words.iter().cloned());
            }
        }
        Ok(())
    }

    fn scored(self, from: usize) -> Scored {
        Scored { document: self.document, words: self.words.into(), from }
    }
}

/// What is kept of an item: what was chosen by ear, its ending written or spoken, and by reading; what was written behind
/// the context where that was asked; the counts of all numbers.
fn prediction(cell: &Cell, item: &Item, i: usize, found: &[Chosen]) -> Prediction {
    let options = cell.options(item);
    let right = cell.right(item);
    let of = |sides: Sides| found.iter().find(|found| found.sides == sides);
    let outcome = |sides: Sides| of(sides).map(|found| &found.outcomes[i]);
    let heard = outcome(Sides::S2T).or_else(|| outcome(Sides::S2S));
    let read = outcome(Sides::T2T);
    let text = |outcome: &Outcome| match outcome.text.is_empty() {
        true => score::chosen(outcome, &options).to_owned(),
        false => outcome.text.clone(),
    };
    let is_right = |outcome: &Outcome| score::is_chosen(outcome, right);
    let ways: Vec<_> =
        found.iter().map(|found| (suffix(found.sides), &found.numbers[..])).collect();
    Prediction {
        id: item.id.clone(),
        task: cell.task.clone(),
        domain: cell.domain.clone(),
        transcript: Some(item.spoken.clone()),
        reference: options[right].clone(),
        hypothesis: heard.map(text).unwrap_or_default(),
        correct: heard.map(is_right),
        text_hypothesis: read.map(text),
        text_correct: read.map(is_right),
        counts: score::counts(&ways, i),
        ..Prediction::default()
    }
}

#[cfg(test)]
mod tests {
    use sandhi_data::text::Tokenizer;

    use super::*;
    use crate::chat::END;

    const CONTEXT: &str = "Anna took the ball.";
    const ENDINGS: [&str; 2] = ["Anna has it.", "Ben has it."];

    fn said(id: &str, units: &[u32]) -> UnitUtterance {
        UnitUtterance {
            id: id.to_owned(),
            units: units.to_vec(),
            words: vec![(id.to_owned(), 0, 1).into()],
            text: None,
            language: None,
        }
    }

    /// Begin, marker and context; what counts; only a change of sides has a marker, which does not count.
    #[test]
    fn four_directions_by_hand() {
        let texts = [format!("{CONTEXT} {}", ENDINGS[0]), format!("{CONTEXT} {}", ENDINGS[1])];
        let tokenizer = Tokenizer::train_bpe([texts.clone(), texts].concat(), 300, &[END]).unwrap();
        let vocabulary = JointVocabulary::extend(&tokenizer, END, END, 5).unwrap();
        let key = |text: &str| (text.to_owned(), CONTEXT.to_owned());
        let heard: Heard = [(CONTEXT, &[1, 1, 2][..]), (ENDINGS[0], &[3, 4]), (ENDINGS[1], &[0])]
            .map(|(text, units)| (key(text), said(text, units)))
            .into();
        let world = sandhi_data::microworld::Microworld::new(1);
        let (task, language) =
            (sandhi_data::microworld::Task::Transcribe, sandhi_data::language::Language::English);
        let item = world.item_of(task, language, CONTEXT);
        let endings = ENDINGS.map(str::to_owned);
        let of = |context, ending| {
            let sides = Sides { context, ending };
            questions(&vocabulary, &item, &endings, sides, &heard).unwrap()
        };
        let (begin, text) = (vocabulary.begin(), vocabulary.marker(Mode::Text));
        let speech = vocabulary.marker(Mode::Speech);
        let units = |units: &[u32]| -> Vec<u32> {
            units.iter().map(|&unit| vocabulary.unit(unit).unwrap()).collect()
        };
        let pieces = |text: &str| tokenizer.encode(text).unwrap();
        let check = |scored: &Scored, head: Vec<u32>, counted: Vec<u32>| {
            assert_eq!(scored.from, head.len());
            assert_eq!(scored.document.ids, [head, counted].concat());
        };
        let heard_head = [vec![begin, speech], units(&[1, 1, 2])].concat();
        let read_head = [vec![begin, text], pieces(CONTEXT)].concat();
        let both = of(Side::Spoken, Side::Spoken);
        check(&both[0], heard_head.clone(), units(&[3, 4]));
        check(&both[1], heard_head.clone(), units(&[0]));
        // Words of both, for rules that go by them.
        assert_eq!(both[0].words.len(), 2);
        let spans: Vec<_> =
            both[0].document.spans.iter().map(|s| (s.tokens.clone(), s.word)).collect();
        assert_eq!(spans, [(2..3, Some(0)), (3..5, None), (5..6, Some(1)), (6..7, None)]);
        let written = of(Side::Spoken, Side::Written);
        check(&written[1], [heard_head, vec![text]].concat(), pieces(ENDINGS[1]));
        let spoken = of(Side::Written, Side::Spoken);
        check(&spoken[0], [read_head.clone(), vec![speech]].concat(), units(&[3, 4]));
        // Of a pair all counts but what every document begins with.
        let pair = |side| wholes(&vocabulary, &item, &endings, side, &heard).unwrap();
        check(&pair(Side::Spoken)[0], vec![begin, speech], units(&[3, 4]));
        check(&pair(Side::Spoken)[1], vec![begin, speech], units(&[0]));
        check(&pair(Side::Written)[1], vec![begin, text], pieces(ENDINGS[1]));
        // Read together, as a text is.
        let read = of(Side::Written, Side::Written);
        let whole = pieces(&format!("{CONTEXT} {}", ENDINGS[0]));
        assert_eq!(read[0].document.ids, [vec![begin, text], whole].concat());
        assert!(read[0].from <= read_head.len() && read[0].from == read[1].from);
    }
}
