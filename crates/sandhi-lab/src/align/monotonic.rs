//! Placing a known text in sound by a text-and-unit aligner: every frame belongs to one character.
//!
//! ```text
//! text       ␣ t h e ␣ b a l l ␣          a space before, between and behind words has the pauses
//! frames     ␣ ␣ t h h e ␣ b b b a a l l l ␣ ␣
//! word          |-----|   |-----------|
//! ```
//!
//! The path is that of [`monotonic::search`] in the log-probabilities of [`AlignerModel::log_probs`]. A space takes at
//! least one frame, also between words without a pause. Of a word that cannot be spelled
//! every frame is as good as its best character, less a cost. A character's confidence is the share of all paths, by their
//! likelihoods, in which its frames are its own ([`monotonic::posteriors`]); a word's is the geometric mean.

use std::ops::Range;

use rayon::prelude::*;
use sandhi_align::monotonic;
use sandhi_data::{
    alignment::{Alignment, Source},
    text::Characters,
};

use super::{Aligned, AlignedWord, Failure, Spelled, Widening, spell};
use crate::{
    model::{AlignerModel, fingerprint},
    sources::Error,
};

/// Places texts in sound by an aligner model.
#[derive(Debug)]
pub struct MonotonicAligner<'a> {
    model: &'a AlignerModel,
    source: Source,
    widening: Widening,
}

/// Entries of the largest matrix, of frames and characters: over three minutes of speech, and 1.6 GB.
const MOST_CELLS: usize = 1 << 26;

/// Entries of a matrix that is not made beside others: about a minute of speech, and 200 MB.
const MANY_CELLS: usize = 1 << 23;

/// What a frame loses against its best character where it belongs to a word that cannot be spelled.
const UNSPELLED_COST: f32 = 0.5;

/// What a column of the matrix stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Column {
    /// A symbol.
    Symbol(u32),
    /// A word that cannot be spelled.
    Unspelled,
}

impl<'a> MonotonicAligner<'a> {
    /// By this model; words are as on the path, which is neither late nor early by more than a few milliseconds.
    pub fn new(model: &'a AlignerModel) -> Self {
        let source = Source::Model(fingerprint(&model.net));
        Self { model, source, widening: Widening::NONE }
    }

    /// With words widened by something else.
    #[must_use]
    pub fn widening(self, widening: Widening) -> Self {
        Self { widening, ..self }
    }

    /// How much wider than on its path words are.
    pub fn widened(&self) -> Widening {
        self.widening
    }

    /// What the model can spell with.
    pub fn symbols(&self) -> &Characters {
        &self.model.symbols
    }

    /// The model.
    pub fn model(&self) -> &'a AlignerModel {
        self.model
    }

    /// Places texts in 16 kHz sounds.
    ///
    /// # Errors
    ///
    /// When a sound has no features; why a text has no place is in the list.
    pub fn align(&self, sounds: &[(&[f32], &str)]) -> Result<Vec<Result<Aligned, Failure>>, Error> {
        // Large matrices one after another, the others side by side.
        let is_large = |(samples, text): &(&[f32], &str)| {
            let spectra = self.model.spectra();
            // Sounds without features are told of when they are placed.
            let n_spectra = spectra.extractor().n_frames(samples.len()).unwrap_or(0);
            let n_frames = spectra.window().n_frames(n_spectra);
            n_frames.saturating_mul(text.chars().count()) > MANY_CELLS
        };
        let mut found: Vec<Option<_>> = sounds
            .par_iter()
            .map(|sound| (!is_large(sound)).then(|| self.place(sound.0, sound.1)))
            .collect();
        for (found, (samples, text)) in found.iter_mut().zip(sounds) {
            found.get_or_insert_with(|| self.place(samples, text));
        }
        found.into_iter().flatten().collect()
    }

    fn place(&self, samples: &[f32], text: &str) -> Result<Result<Aligned, Failure>, Error> {
        let (columns, words) = match columns(self.symbols(), text) {
            Ok(found) => found,
            Err(failure) => return Ok(Err(failure)),
        };
        let duration_s = samples.len() as f64 / 16_000.0;
        let spectra = self.model.spectra();
        let bad = |error| Error::Features { id: format!("{text:?}"), error };
        let n_spectra = spectra.extractor().n_frames(samples.len()).map_err(bad)?;
        let (n_frames, n_columns) = (spectra.window().n_frames(n_spectra), columns.len());
        if n_frames < n_columns {
            return Ok(Err(Failure::TooFewFrames { n_needed: n_columns, n_frames, duration_s }));
        }
        if n_frames.saturating_mul(n_columns) > MOST_CELLS {
            let most = MOST_CELLS;
            return Ok(Err(Failure::TooLarge { n_frames, n_characters: n_columns, most }));
        }
        let ids: Vec<u32> = columns
            .iter()
            .filter_map(|column| match column {
                Column::Symbol(id) => Some(*id),
                Column::Unspelled => None,
            })
            .collect();
        let log_probs = self.model.log_probs(samples, &ids).map_err(bad)?;
        let log_probs = with_unspelled(log_probs, ids.len(), &columns);
        let path = match monotonic::search(&log_probs, n_columns) {
            Ok(path) => path,
            Err(error) => return Ok(Err(error.into())),
        };
        let posteriors = match monotonic::posteriors(&log_probs, n_columns) {
            Ok(posteriors) => posteriors,
            Err(error) => return Ok(Err(error.into())),
        };
        let ends: Vec<usize> = path
            .durations
            .iter()
            .scan(0, |end, n| {
                *end += n;
                Some(*end)
            })
            .collect();
        let frames = |column: usize| column.checked_sub(1).map_or(0, |i| ends[i])..ends[column];
        let time = |frame: usize| match frame {
            0 => 0.0,
            frame if frame == n_frames => duration_s,
            frame => spectra.start_s(frame).min(duration_s),
        };
        let timed = |label: String, frames: Range<usize>, confidence| Alignment {
            label,
            start_s: time(frames.start),
            end_s: time(frames.end),
            confidence,
            source: self.source.clone(),
        };
        // How probable it is that its frames are its own.
        let sureness = |column: usize| {
            let frames = frames(column);
            let n = frames.len() as f32;
            frames.map(|frame| posteriors[frame * n_columns + column]).sum::<f32>() / n
        };
        let word = |(spelled, of): (Spelled<'_>, Range<usize>)| {
            let character = |column: usize| match columns[column] {
                Column::Symbol(id) => {
                    let label = self.symbols().symbol(id).map(String::from).unwrap_or_default();
                    Some(timed(label, frames(column), Some(sureness(column))))
                }
                Column::Unspelled => None,
            };
            let characters: Vec<Alignment> = of.clone().filter_map(character).collect();
            let log_mean = of.clone().map(|i| sureness(i).ln()).sum::<f32>() / of.len() as f32;
            let confidence = (!characters.is_empty()).then(|| log_mean.exp());
            let span = frames(of.start).start..frames(of.end - 1).end;
            let word = timed(spelled.word.to_owned(), span, confidence);
            AlignedWord { range: spelled.range, word, characters }
        };
        let mut aligned = Aligned { words: words.into_iter().map(word).collect() };
        self.widening.apply(&mut aligned.words, duration_s);
        Ok(Ok(aligned))
    }
}

/// Words, and the columns of each.
type Places<'t> = Vec<(Spelled<'t>, Range<usize>)>;

/// A space, then every word and a space.
fn columns<'t>(symbols: &Characters, text: &'t str) -> Result<(Vec<Column>, Places<'t>), Failure> {
    let space = symbols.id(' ').map(Column::Symbol);
    let mut columns: Vec<Column> = space.into_iter().collect();
    let mut words = Vec::new();
    for spelled in spell(symbols, text)? {
        let first = columns.len();
        if spelled.ids.is_empty() {
            columns.push(Column::Unspelled);
        }
        columns.extend(spelled.ids.iter().copied().map(Column::Symbol));
        words.push((spelled, first..columns.len()));
        columns.extend(space);
    }
    Ok((columns, words))
}

/// With a column for every word that cannot be spelled.
fn with_unspelled(log_probs: Vec<f32>, n_ids: usize, columns: &[Column]) -> Vec<f32> {
    if n_ids == columns.len() {
        return log_probs;
    }
    let row = |row: &[f32]| {
        let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut row = row.iter().copied();
        let value = |column: &Column| match column {
            Column::Symbol(_) => row.next().expect("one a symbol"),
            Column::Unspelled => best - UNSPELLED_COST,
        };
        columns.iter().map(value).collect::<Vec<f32>>()
    };
    log_probs.chunks_exact(n_ids).flat_map(row).collect()
}

#[cfg(test)]
mod tests {
    use burn::prelude::Device;
    use sandhi_nn::init::Init;
    use serde_json::{from_value, json};

    use super::*;

    fn model() -> AlignerModel {
        AlignerModel::init(
            from_value(json!({ "kind": "whisper", "n_mels": 20 })).unwrap(),
            crate::units::FrameWindow { context: 0, stride: 2 },
            from_value(json!({ "d_model": 8 })).unwrap(),
            Characters::new(" abc".chars()).unwrap(),
            None,
            &Init::new(1, &Device::flex()),
        )
        .unwrap()
    }

    fn sound(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * i as f32 * 1e-5).sin() * 0.1).collect()
    }

    #[test]
    fn every_character_has_frames_of_its_own() {
        let model = model();
        let aligner = MonotonicAligner::new(&model).widening(Widening::NONE);
        let samples = sound(16_000);
        let text = " Ab, – ca";
        let found = aligner.align(&[(&samples, text), (&samples, "a")]).unwrap();
        let aligned = found[0].as_ref().unwrap();
        let labels: Vec<String> = aligned.words().into_iter().map(|word| word.label).collect();
        assert_eq!(labels, ["Ab,", "ca"]);
        let ranges: Vec<&str> = aligned.words.iter().map(|w| &text[w.range.clone()]).collect();
        assert_eq!(ranges, ["Ab,", "ca"]);
        // Frames of 20 ms, whose borders lie 5 ms before multiples of it.
        let mut at_s = 0.0;
        for character in aligned.characters() {
            assert!(character.start_s >= at_s && character.duration_s() > 0.014, "{character:?}");
            let place = (character.start_s + 0.005) / 0.02;
            assert!((place - place.round()).abs() < 1e-6, "{character:?}");
            at_s = character.end_s;
        }
        let characters: Vec<String> = aligned.characters().into_iter().map(|c| c.label).collect();
        assert_eq!(characters, ["a", "b", "c", "a"]);
        assert!(at_s < 1.0, "the last space has a frame");
        assert!((0.0..=1.0).contains(&aligned.confidence()) && aligned.confidence() > 0.0);
        // What else is aligned does not matter.
        assert_eq!(aligner.align(&[(&samples, "a")]).unwrap()[0], found[1]);
    }

    #[test]
    fn columns_by_hand() {
        let symbols = Characters::new(" ab".chars()).unwrap();
        let (columns, words) = columns(&symbols, "b 77 a").unwrap();
        let [space, a, b] = [1, 2, 3].map(Column::Symbol);
        assert_eq!(columns, [space, b, space, Column::Unspelled, space, a, space]);
        let spans: Vec<Range<usize>> = words.into_iter().map(|(_, span)| span).collect();
        assert_eq!(spans, [1..2, 3..4, 5..6]);
        let columns = [space, Column::Unspelled, a];
        let rows = with_unspelled(vec![-1.0, -2.0, -4.0, -3.0], 2, &columns);
        assert_eq!(rows, [-1.0, -1.5, -2.0, -4.0, -3.5, -3.0]);
    }

    #[test]
    fn what_cannot_be_placed_is_said() {
        let model = model();
        let aligner = MonotonicAligner::new(&model);
        let of = |n: usize, text: &str| aligner.align(&[(&sound(n), text)]).unwrap().remove(0);
        assert_eq!(of(8_000, " \n"), Err(Failure::Empty));
        let error = of(8_000, "… 7?").unwrap_err().to_string();
        assert!(error.contains("\"… 7?\"") && error.contains("\" abc\""), "{error}");
        // 1,600 samples are 5 frames of 20 ms, "abca" has a space at both ends.
        let error = of(1_600, "abca").unwrap_err().to_string();
        assert!(error.contains("takes 6 frames") && error.contains("has 5 (0.10 s)"), "{error}");
        assert_eq!(of(1_920, "abca").unwrap().words.len(), 1);
        let error = of(16_000 * 500, &"abc ".repeat(2_000)).unwrap_err().to_string();
        assert!(error.contains("25000 frames of 8001 characters"), "{error}");
        let found = of(16_000, "ab 77 ba").unwrap();
        assert_eq!(found.unspelled().collect::<Vec<_>>(), ["77"]);
        assert_eq!(found.words[1].word.confidence, None);
        assert!(aligner.align(&[(&[], "a")]).unwrap_err().to_string().contains("no samples"));
    }
}
