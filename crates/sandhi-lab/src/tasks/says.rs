//! What a model over text and units writes of speech, and says of text, by going on.
//!
//! ```text
//! asr     <|begin|> <|speech|> units <|text|> …                                        pieces, against the transcript
//! asr_3   <|begin|> (<|speech|> units <|text|> pieces) x 3 <|speech|> units <|text|> …   the same, behind solved ones
//! tts     <|begin|> <|text|> pieces <|speech|> …                                       units, against those of speech
//! tts_3   <|begin|> (<|text|> pieces <|speech|> units) x 3 <|text|> pieces <|speech|> …  the same, behind ones that are said
//! ```
//!
//! Both end at a marker. What is said is scored by its units alone, see [`score::unit_errors`], and by what a recognizer reads
//! of its sound where a [`Voice`] is at hand.

use sandhi_data::{
    interleave::{self, Solved},
    microworld::Item,
    text::normalize,
    units::UnitUtterance,
};

use super::{
    Cell, Error, Outcome, Outcomes,
    files::suffix,
    score::{self, Number, add_side},
    speech_text::Heard,
    vocoder::Voice,
};
use crate::{
    generate::Decoding,
    model::{SpeechTextModel, Steps},
    protocol::Sides,
    results::{ORIGINAL, Prediction, Results, TRUE_UNITS},
    sources::{Spoken, Workshop},
};

/// A second for everything, and this much for every character: three times what speech takes.
const LONGEST_S: f64 = 1.0;
const LONGEST_S_PER_CHARACTER: f64 = 0.2;

/// What is written of every utterance of a cell.
pub(super) fn transcripts(
    model: &SpeechTextModel,
    cell: &Cell,
    heard: &Heard,
    results: &mut Results,
) -> Result<Vec<Prediction>, Error> {
    let shots: Vec<Solved<'_>> =
        cell.shots.iter().map(|shot| (utterance(heard, shot), shot.answer.as_str())).collect();
    let longest = vec![cell.max_tokens; cell.items.len()];
    let (n_shots, beginnings) = begun(cell, model.context, &longest, |item, n| {
        interleave::to_transcribe(&shots[..n], utterance(heard, item), &model.vocabulary)
    })?;
    let mut outcomes: Outcomes = Vec::with_capacity(cell.items.len());
    let mut steps: Vec<Steps> = Vec::with_capacity(cell.items.len());
    let decoding = Decoding { max_tokens: cell.max_tokens, ..Decoding::default() };
    for (text, taken) in model.transcribe(&beginnings, &decoding).map_err(Box::new)? {
        outcomes.push(Outcome { text, endings: Vec::new() });
        steps.push(taken);
    }
    let mut numbers = score::of_content(cell, &outcomes);
    numbers.push(score::steps_saved(&steps));
    if !shots.is_empty() {
        numbers.push(score::shots(&n_shots));
    }
    add(results, cell, Sides::S2T, &numbers);
    let ways = [("", numbers)];
    let prediction = |(i, item): (usize, &Item)| Prediction {
        hypothesis: outcomes[i].text.clone(),
        edits: Some(score::edits(item, &outcomes[i])),
        counts: score::counts(&ways, i),
        ..prediction(cell, item)
    };
    Ok(cell.items.iter().enumerate().map(prediction).collect())
}

/// What is said of every text of a cell, in units.
pub(super) fn units(
    model: &SpeechTextModel,
    cell: &Cell,
    heard: &Heard,
    voice: Option<(&Voice, &Workshop)>,
    results: &mut Results,
) -> Result<Vec<Prediction>, Error> {
    let most = |item: &Item| most_units(&item.spoken, model.units.rate_hz);
    let longest: Vec<usize> = cell.items.iter().map(most).collect();
    let shots: Vec<Solved<'_>> =
        cell.shots.iter().map(|shot| (utterance(heard, shot), shot.spoken.as_str())).collect();
    let (n_shots, beginnings) = begun(cell, model.context, &longest, |item, n| {
        interleave::to_voice(&shots[..n], &item.spoken, &model.vocabulary)
    })?;
    let answers = model.speak(&beginnings, &longest, &Decoding::default()).map_err(Box::new)?;
    let (said, steps): (Vec<Vec<u32>>, Vec<Steps>) = answers.into_iter().unzip();
    let truths: Vec<Vec<u32>> = cell
        .items
        .iter()
        .map(|item| model.units_of(utterance(heard, item).units.clone()))
        .collect();
    let mut numbers = vec![
        score::unit_errors(said.iter().cloned().zip(truths.iter().cloned())),
        score::steps_saved(&steps),
    ];
    if !shots.is_empty() {
        numbers.push(score::shots(&n_shots));
    }
    if let Some((voice, workshop)) = voice {
        numbers.extend(read_aloud(voice, workshop, cell, [&said, &truths])?);
    }
    add(results, cell, Sides::T2S, &numbers);
    let ways = [(suffix(Sides::T2S), numbers)];
    let written = |units: &[u32]| units.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let prediction = |(i, item): (usize, &Item)| Prediction {
        reference: written(&truths[i]),
        hypothesis: written(&said[i]),
        counts: score::counts(&ways, i),
        ..prediction(cell, item)
    };
    Ok(cell.items.iter().enumerate().map(prediction).collect())
}

/// Error rates of a recognizer that hears what was said, what the true units sound like, and the true sound.
fn read_aloud(
    voice: &Voice,
    workshop: &Workshop,
    cell: &Cell,
    [said, truths]: [&[Vec<u32>]; 2],
) -> Result<Vec<Number>, Error> {
    let spoken: Vec<Spoken> = cell.items.iter().map(|item| cell.spoken(item)).collect();
    let sounds: Vec<Vec<f32>> =
        workshop.sounds(&spoken)?.into_iter().map(|sound| sound.wave.samples).collect();
    let references: Vec<String> = cell.items.iter().map(|item| normalize(&item.spoken)).collect();
    let mut numbers = Vec::new();
    for (suffix, texts) in [
        ("", voice.read_units(said)?),
        (TRUE_UNITS, voice.read_units(truths)?),
        (ORIGINAL, voice.read(&sounds)?),
    ] {
        let texts: Vec<String> = texts.iter().map(|text| normalize(text)).collect();
        let rates = [
            ("wer", sandhi_data::score::wer(&references, &texts)),
            ("cer", sandhi_data::score::cer(&references, &texts)),
        ];
        for (name, rate) in rates {
            let rate = rate.expect("a reading of every text");
            numbers.push(score::error_rate(&format!("{name}{suffix}"), &rate));
        }
    }
    Ok(numbers)
}

fn utterance<'a>(heard: &'a Heard, item: &Item) -> &'a UnitUtterance {
    let key = (item.spoken.clone(), item.spoken.clone());
    heard.get(&key).expect("what is to be written was heard")
}

fn add(results: &mut Results, cell: &Cell, sides: Sides, numbers: &[Number]) {
    add_side(results, (&cell.task, &cell.domain), suffix(sides), numbers, None, sides);
}

fn prediction(cell: &Cell, item: &Item) -> Prediction {
    Prediction {
        id: item.id.clone(),
        task: cell.task.clone(),
        domain: cell.domain.clone(),
        transcript: Some(item.spoken.clone()),
        reference: item.answer.clone(),
        ..Prediction::default()
    }
}

/// The beginnings of a cell's items behind as many of its solved examples as fit, and how many those are.
fn begun(
    cell: &Cell,
    context: usize,
    longest: &[usize],
    beginning: impl Fn(&Item, usize) -> Result<Vec<u32>, interleave::Error>,
) -> Result<(Vec<usize>, Vec<Vec<u32>>), Error> {
    let of = |(item, &longest): (&Item, &usize)| {
        fitting(cell.shots.len(), context, longest, |n| beginning(item, n))
    };
    let found: Result<Vec<(usize, Vec<u32>)>, _> = cell.items.iter().zip(longest).map(of).collect();
    Ok(found?.into_iter().unzip())
}

/// The beginning behind as many of `n` solved examples as leave room for so many tokens in the context, and how many
/// those are; without any where none fits.
fn fitting<E>(
    n: usize,
    context: usize,
    max_tokens: usize,
    beginning: impl Fn(usize) -> Result<Vec<u32>, E>,
) -> Result<(usize, Vec<u32>), E> {
    for n in (1..=n).rev() {
        let ids = beginning(n)?;
        if ids.len() + max_tokens <= context {
            return Ok((n, ids));
        }
    }
    Ok((0, beginning(0)?))
}

/// As many units as nobody needs to say a text.
fn most_units(text: &str, rate_hz: f64) -> usize {
    let seconds = LONGEST_S + LONGEST_S_PER_CHARACTER * text.chars().count() as f64;
    (seconds * rate_hz).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_examples_as_fit() {
        // Ten tokens and five for each example; three are left for the answer.
        let of = |context: usize| {
            let beginning = |n: usize| Ok::<_, ()>(vec![0; 10 + 5 * n]);
            fitting(3, context, 3, beginning).map(|(n, ids)| (n, ids.len()))
        };
        assert_eq!(of(28), Ok((3, 25)));
        assert_eq!(of(27), Ok((2, 20)));
        assert_eq!(of(17), Ok((0, 10)));
        // Too long even alone: said where it is read.
        assert_eq!(of(4), Ok((0, 10)));
    }

    #[test]
    fn speech_has_a_longest() {
        // 1 s and 10 characters of 0.2 s are 3 s.
        assert_eq!(most_units("0123456789", 25.0), 75);
    }
}
