//! Placing a known text in sound: words, characters and pieces with their times, by the CTC head of a speech model, or
//! by an aligner model ([`MonotonicAligner`]).
//!
//! ```text
//! text      the           ball            the best path that spells the characters, by Viterbi
//! symbols   t h e ␣ ␣ ␣ b _ a l _ l _ _
//! word     |-----|     |-----------|      from its first character's start to its last one's end
//! pieces                |--ba--|-ll--|    of any tokenizer, by the characters that they cover
//! ```
//!
//! Sound of any length: it is cut where it is quiet for the encoder, the path runs through all of it. CTC says a
//! character somewhere within it, often as a short spike, so that the path's words begin late and end early: they are
//! [widened](Widening).

mod monotonic;

use std::ops::Range;

use rayon::prelude::*;
use sandhi_align::ctc::{self, Limits, Unit};
use sandhi_data::{
    alignment::{Alignment, Source},
    audio::SILENT_PEAK,
    text::{Characters, Unknown, normalize},
};

use crate::{
    model::{AnyModel, HostRagged, Recognizer, SpeechModel, fingerprint},
    sources::Error,
    transcribe::{Chunking, chunks, frames, no_recognizer},
};

pub use self::monotonic::MonotonicAligner;

/// Why a text has no place in a sound.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Failure {
    /// Nothing is to be placed.
    #[error("the text is empty")]
    Empty,
    /// The model cannot spell any of it.
    #[error("found no character that the model knows in {text:?}; it knows {known:?}")]
    Unknown {
        /// The text.
        text: String,
        /// The model's characters.
        known: String,
    },
    /// The sound is too short.
    #[error(
        "the text takes {n_needed} CTC steps at least, the sound has {n_steps} ({duration_s:.2} s)"
    )]
    TooLong {
        /// Steps of the shortest spelling.
        n_needed: usize,
        /// Steps of the sound.
        n_steps: usize,
        /// Seconds of sound.
        duration_s: f64,
    },
    /// The sound is too short for an aligner model.
    #[error(
        "the text takes {n_needed} frames at least, spaces around its words included, the sound has {n_frames} \
         ({duration_s:.2} s)"
    )]
    TooFewFrames {
        /// Characters, and the spaces around words.
        n_needed: usize,
        /// Frames of the sound.
        n_frames: usize,
        /// Seconds of sound.
        duration_s: f64,
    },
    /// Sound and text are too long for an aligner model, which looks at all of both.
    #[error(
        "{n_frames} frames of {n_characters} characters are more than {most} entries; cut the sound, or align it with a \
         CTC model"
    )]
    TooLarge {
        /// Frames of the sound.
        n_frames: usize,
        /// Characters of the text, spaces around words included.
        n_characters: usize,
        /// Entries that are possible.
        most: usize,
    },
    /// What is heard is something else.
    #[error("found a confidence of {found:.4}, expected at least {least}: is this what is said?")]
    Unsure {
        /// [`Aligned::confidence`].
        found: f64,
        /// What was asked for.
        least: f64,
    },
    /// Nothing is heard.
    #[error("found silence (peak {peak:e}), expected speech")]
    Silence {
        /// Largest amplitude.
        peak: f32,
    },
    /// What is heard is no speech.
    #[error(
        "found a level that stays within {range_db:.1} dB, where speech changes by {LEAST_RANGE_DB} dB at least: noise or a \
         tone?"
    )]
    Steady {
        /// Between the 5th percentile and the loudest of 20 ms frames.
        range_db: f64,
    },
    /// The path could not be found.
    #[error(transparent)]
    Path(#[from] ctc::Error),
    /// The same of an aligner model.
    #[error(transparent)]
    Monotonic(#[from] sandhi_align::monotonic::Error),
}

/// A text in its place.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Aligned {
    /// Its words, in order; what is not said (a dash of its own) is none.
    pub words: Vec<AlignedWord>,
}

/// A word in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct AlignedWord {
    /// The bytes of the text that it covers.
    pub range: Range<usize>,
    /// When it is said.
    pub word: Alignment,
    /// When its characters are said, those that the model knows. A word without any lies where something is said between
    /// its neighbors, without a confidence.
    pub characters: Vec<Alignment>,
}

/// A piece in its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlacedPiece {
    /// When it begins, in seconds.
    pub start_s: f64,
    /// When it ends.
    pub end_s: f64,
    /// Geometric mean of what its characters have; none where it covers none that was placed.
    pub confidence: Option<f32>,
}

impl Aligned {
    /// The words alone.
    pub fn words(&self) -> Vec<Alignment> {
        self.words.iter().map(|aligned| aligned.word.clone()).collect()
    }

    /// The words that the model cannot spell.
    pub fn unspelled(&self) -> impl Iterator<Item = &str> {
        let bare = self.words.iter().filter(|aligned| aligned.characters.is_empty());
        bare.map(|aligned| aligned.word.label.as_str())
    }

    /// The characters alone.
    pub fn characters(&self) -> Vec<Alignment> {
        self.words.iter().flat_map(|aligned| aligned.characters.iter().cloned()).collect()
    }

    /// Geometric mean of the probabilities of the characters; 0 where there is none.
    pub fn confidence(&self) -> f64 {
        let logs = self.words.iter().flat_map(|aligned| &aligned.characters);
        let logs: Vec<f64> = logs.filter_map(|c| c.confidence).map(|p| f64::from(p).ln()).collect();
        if logs.is_empty() { 0.0 } else { (logs.iter().sum::<f64>() / logs.len() as f64).exp() }
    }

    /// When pieces of `text` are said, that cover these bytes in order: from the first to the last of the characters that
    /// they cover. A piece without a character that was placed (a full stop) takes no time where the one before it ends.
    pub fn pieces(
        &self,
        text: &str,
        symbols: &Characters,
        pieces: &[Range<usize>],
    ) -> Vec<PlacedPiece> {
        let mut at_s = self.words.first().map_or(0.0, |aligned| aligned.word.start_s);
        let mut placed = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let mut span: Option<[f64; 2]> = None;
            let mut logs: Vec<f32> = Vec::new();
            for aligned in &self.words {
                let from = piece.start.max(aligned.range.start);
                let to = piece.end.min(aligned.range.end);
                if from >= to {
                    continue;
                }
                if aligned.characters.is_empty() {
                    // Its pieces share it by their bytes.
                    let at = |byte: usize| {
                        let (before, n) = (byte - aligned.range.start, aligned.range.len());
                        aligned.word.start_s + aligned.word.duration_s() * before as f64 / n as f64
                    };
                    let start_s = span.map_or(at(from), |[start_s, _]| start_s);
                    span = Some([start_s, at(to)]);
                }
                // Characters are counted from the word's start, in the context that they are normalized in.
                let count = |end: usize| n_known(symbols, &text[aligned.range.start..end]);
                let n = aligned.characters.len();
                let covered = count(from).min(n)..count(to).min(n);
                for character in &aligned.characters[covered] {
                    let start_s = span.map_or(character.start_s, |[start_s, _]| start_s);
                    span = Some([start_s, character.end_s]);
                    logs.extend(character.confidence.map(f32::ln));
                }
            }
            // Two pieces of one character do not both have it.
            let [start_s, end_s] = span.unwrap_or([at_s, at_s]).map(|time| time.max(at_s));
            at_s = end_s;
            let mean = (!logs.is_empty()).then(|| logs.iter().sum::<f32>() / logs.len() as f32);
            placed.push(PlacedPiece { start_s, end_s, confidence: mean.map(f32::exp) });
        }
        placed
    }
}

/// Characters of the beginning of a word that the model knows.
fn n_known(symbols: &Characters, text: &str) -> usize {
    normalize(text).chars().filter(|&c| symbols.id(c).is_some()).count()
}

/// How much earlier than its first character's steps a word begins, and how much later than its last one's it ends, unless
/// another word is there: two that want more than lies between them share it.
///
/// ```text
/// path     |the|        |ball|  |is|
/// widened |=the==|     |=ball=||is==|
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Widening {
    /// Seconds before.
    pub before_s: f64,
    /// Seconds after.
    pub after_s: f64,
}

impl Default for Widening {
    /// What the path of our encoder lacks on average against exact times, on Microworld's dev half: steps of 20 ms over
    /// frames of 40 ms.
    fn default() -> Self {
        Self { before_s: 0.04, after_s: 0.03 }
    }
}

impl Widening {
    /// Words as the path has them.
    pub const NONE: Self = Self { before_s: 0.0, after_s: 0.0 };

    fn apply(self, words: &mut [AlignedWord], duration_s: f64) {
        let wanted_s = self.before_s + self.after_s;
        if wanted_s <= 0.0 {
            return;
        }
        // What lies before the first word and behind the last one is theirs alone.
        if let Some(first) = words.first_mut() {
            first.word.start_s = (first.word.start_s - self.before_s).max(0.0);
        }
        for i in 1..words.len() {
            let gap_s = (words[i].word.start_s - words[i - 1].word.end_s).max(0.0);
            let share = (gap_s / wanted_s).min(1.0);
            words[i - 1].word.end_s += share * self.after_s;
            words[i].word.start_s -= share * self.before_s;
        }
        if let Some(last) = words.last_mut() {
            last.word.end_s = (last.word.end_s + self.after_s).min(duration_s).max(last.word.end_s);
        }
    }
}

/// What the level of speech changes by at least, in decibels between the 5th percentile and the loudest of 20 ms frames: a
/// word in an hour is speech. White noise has about 2 in an hour.
const LEAST_RANGE_DB: f64 = 3.0;

/// Whether there can be speech in 16 kHz samples: they are not silent, and, where they last half a second at least, their
/// level does not stay where it is.
///
/// # Errors
///
/// [`Failure::Silence`], [`Failure::Steady`].
fn check_speech(samples: &[f32]) -> Result<(), Failure> {
    let peak = samples.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
    if peak < SILENT_PEAK {
        return Err(Failure::Silence { peak });
    }
    if samples.len() < 8_000 {
        return Ok(());
    }
    let level = |frame: &[f32]| {
        let power: f64 = frame.iter().map(|&sample| f64::from(sample).powi(2)).sum();
        10.0 * (power / frame.len() as f64).max(1e-12).log10()
    };
    let mut levels: Vec<f64> = samples.chunks_exact(320).map(level).collect();
    levels.sort_by(f64::total_cmp);
    let range_db = levels[levels.len() - 1] - levels[levels.len() / 20];
    if range_db < LEAST_RANGE_DB { Err(Failure::Steady { range_db }) } else { Ok(()) }
}

/// Places texts in sound.
#[derive(Debug)]
pub struct Aligner<'a> {
    model: &'a SpeechModel,
    recognizer: &'a Recognizer,
    /// Seconds of a CTC step.
    step_s: f64,
    source: Source,
    widening: Widening,
}

/// Pieces of sound that are encoded at once.
const AT_ONCE: usize = 16;

/// CTC steps of a sound, and when each of them is.
struct Steps {
    /// `[n_steps, n_symbols]`.
    log_probs: Vec<f32>,
    /// Of each chunk: its first step, its start and its end in seconds.
    chunks: Vec<(usize, Range<f64>)>,
    duration_s: f64,
}

impl<'a> Aligner<'a> {
    /// By the head of this model, where it has one.
    pub fn new(model: &'a SpeechModel) -> Option<Self> {
        Self::by(model, Source::Model(fingerprint(&model.ctc_net()?)))
    }

    /// As [`Aligner::new`], with another name for where times come from; no weights are hashed for it.
    pub fn by(model: &'a SpeechModel, source: Source) -> Option<Self> {
        let recognizer = model.recognizer.as_ref()?;
        let steps = recognizer.config.steps_per_frame as f64;
        let step_s = 1.0 / (model.frame_rate_hz() * steps);
        Some(Self { model, recognizer, step_s, source, widening: Widening::default() })
    }

    /// With words widened by something else.
    #[must_use]
    pub fn widening(self, widening: Widening) -> Self {
        Self { widening, ..self }
    }

    /// What the head's symbols mean.
    pub fn symbols(&self) -> &Characters {
        &self.recognizer.symbols
    }

    /// Places texts in 16 kHz sounds of any length.
    ///
    /// # Errors
    ///
    /// When a sound has no features; why a text has no place is in the list.
    pub fn align(
        &self,
        sounds: &[(&[f32], &str)],
        chunking: Chunking,
    ) -> Result<Vec<Result<Aligned, Failure>>, Error> {
        let steps = self.steps(sounds, chunking)?;
        let (symbols, step_s, source) = (self.symbols(), self.step_s, &self.source);
        let widening = self.widening;
        let place = |(steps, (_, text)): (&Steps, &(&[f32], &str))| {
            let time = |step: usize, ends: bool| steps.time(step, ends, step_s);
            let duration_s = steps.duration_s;
            let mut placed = place(symbols, source, &steps.log_probs, text, duration_s, &time)?;
            widening.apply(&mut placed.words, duration_s);
            Ok(placed)
        };
        Ok(steps.par_iter().zip(sounds).map(place).collect())
    }

    /// Places a text in the steps of one piece of sound; times count from its start.
    ///
    /// # Shapes
    ///
    /// - `log_probs`: `[n_steps, n_symbols]`, of [`Recognizer::log_probs`]
    ///
    /// # Errors
    ///
    /// Why the text has no place.
    pub fn of(&self, log_probs: &[f32], text: &str) -> Result<Aligned, Failure> {
        let n_steps = log_probs.len() / self.symbols().n_symbols();
        let time = |step: usize, _: bool| step as f64 * self.step_s;
        let duration_s = n_steps as f64 * self.step_s;
        let mut placed = place(self.symbols(), &self.source, log_probs, text, duration_s, &time)?;
        self.widening.apply(&mut placed.words, duration_s);
        Ok(placed)
    }

    fn steps(&self, sounds: &[(&[f32], &str)], chunking: Chunking) -> Result<Vec<Steps>, Error> {
        const RATE_HZ: f64 = 16_000.0;
        let mut pieces: Vec<&[f32]> = Vec::new();
        let mut ranges = Vec::new();
        for (samples, _) in sounds {
            let cut = chunks(samples, 16_000, chunking);
            pieces.extend(cut.iter().map(|range| &samples[range.clone()]));
            ranges.push(cut);
        }
        let groups: Vec<(SpeechModel, &[&[f32]])> =
            pieces.chunks(AT_ONCE).map(|group| (self.model.clone(), group)).collect();
        let heard: Vec<HostRagged> = groups
            .into_par_iter()
            .map(|(model, group)| {
                let recognizer = model.recognizer.as_ref().ok_or_else(no_recognizer)?;
                Ok(recognizer.log_probs(&frames(&model, group)?))
            })
            .collect::<Result<_, Error>>()?;
        let width = self.symbols().n_symbols();
        let mut rows = heard.iter().flat_map(HostRagged::sequences);
        let steps = ranges.iter().zip(sounds).map(|(cut, (samples, _))| {
            let mut steps = Steps {
                log_probs: Vec::new(),
                chunks: Vec::with_capacity(cut.len()),
                duration_s: samples.len() as f64 / RATE_HZ,
            };
            for range in cut {
                let span = range.start as f64 / RATE_HZ..range.end as f64 / RATE_HZ;
                steps.chunks.push((steps.log_probs.len() / width, span));
                steps.log_probs.extend_from_slice(rows.next().expect("rows of every piece"));
            }
            steps
        });
        Ok(steps.collect())
    }
}

/// Places texts in sound by what a model has for it.
#[derive(Debug)]
pub enum AnyAligner<'a> {
    /// The CTC head of a speech model.
    Ctc(Aligner<'a>),
    /// An aligner model.
    Monotonic(MonotonicAligner<'a>),
}

impl<'a> AnyAligner<'a> {
    /// By this model, where it hears and can spell.
    pub fn new(model: &'a AnyModel) -> Option<Self> {
        match model {
            AnyModel::Connector(model) => Aligner::new(&model.speech).map(Self::Ctc),
            AnyModel::Ctc(model) => Aligner::new(model).map(Self::Ctc),
            AnyModel::Aligner(model) => Some(Self::Monotonic(MonotonicAligner::new(model))),
            AnyModel::SpeechText(model) => {
                model.hearing.as_ref().and_then(|h| Aligner::new(&h.speech)).map(Self::Ctc)
            }
            AnyModel::Vocoder(model) => Aligner::new(&model.hearing.speech).map(Self::Ctc),
            AnyModel::Text(_) => None,
        }
    }

    /// How much wider than on its path words are.
    pub fn widened(&self) -> Widening {
        match self {
            Self::Ctc(aligner) => aligner.widening,
            Self::Monotonic(aligner) => aligner.widened(),
        }
    }

    /// With words widened by something else.
    #[must_use]
    pub fn widening(self, widening: Widening) -> Self {
        match self {
            Self::Ctc(aligner) => Self::Ctc(aligner.widening(widening)),
            Self::Monotonic(aligner) => Self::Monotonic(aligner.widening(widening)),
        }
    }

    /// What the model can spell with.
    pub fn symbols(&self) -> &Characters {
        match self {
            Self::Ctc(aligner) => aligner.symbols(),
            Self::Monotonic(aligner) => aligner.symbols(),
        }
    }

    /// Refuses 16 kHz samples that the front end would refuse.
    ///
    /// # Errors
    ///
    /// Why it would.
    pub fn check(&self, samples: &[f32]) -> Result<(), sandhi_data::features::Error> {
        match self {
            Self::Ctc(aligner) => aligner.model.extract(samples).map(|_| ()),
            Self::Monotonic(aligner) => aligner.model().spectra().spectra(samples).map(|_| ()),
        }
    }

    /// Places texts in 16 kHz sounds; aligner models look at all of a sound and cut nothing. Whatever path may be found,
    /// a text has no place where nobody speaks.
    ///
    /// # Errors
    ///
    /// When a sound has no features; why a text has no place is in the list.
    pub fn align(
        &self,
        sounds: &[(&[f32], &str)],
        chunking: Chunking,
    ) -> Result<Vec<Result<Aligned, Failure>>, Error> {
        let found = match self {
            Self::Ctc(aligner) => aligner.align(sounds, chunking),
            Self::Monotonic(aligner) => aligner.align(sounds),
        }?;
        let heard = |(found, (samples, _)): (Result<Aligned, Failure>, &(&[f32], &str))| {
            found.and_then(|aligned| check_speech(samples).map(|()| aligned))
        };
        Ok(found.into_iter().zip(sounds).map(heard).collect())
    }
}

impl Steps {
    /// When a step begins, or, if it is one past a last one, when that one `ends`.
    fn time(&self, step: usize, ends: bool, step_s: f64) -> f64 {
        let of = step - usize::from(ends && step > 0);
        let chunk = self.chunks.partition_point(|(first, _)| *first <= of);
        let Some((first, span)) = chunk.checked_sub(1).and_then(|i| self.chunks.get(i)) else {
            return 0.0;
        };
        // The last step may reach beyond the chunk.
        (span.start + (step - first) as f64 * step_s).min(span.end)
    }
}

/// A word that is said.
struct Spelled<'t> {
    word: &'t str,
    /// Its bytes in the text.
    range: Range<usize>,
    /// Its characters; none where the model cannot spell it.
    ids: Vec<u32>,
}

/// The words of a text, of which some can be spelled.
fn spell<'t>(symbols: &Characters, text: &'t str) -> Result<Vec<Spelled<'t>>, Failure> {
    if text.trim().is_empty() {
        return Err(Failure::Empty);
    }
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let at = word.as_ptr() as usize - text.as_ptr() as usize;
        let ids = symbols.encode(word, Unknown::Skip).expect("what is unknown is skipped");
        // A dash or a full stop of its own is not said.
        if !ids.is_empty() || !normalize(word).is_empty() {
            words.push(Spelled { word, range: at..at + word.len(), ids });
        }
    }
    let space = symbols.id(' ');
    if words.iter().flat_map(|word| &word.ids).all(|id| Some(*id) == space) {
        let known = String::from(symbols.clone());
        return Err(Failure::Unknown { text: text.to_owned(), known });
    }
    Ok(words)
}

/// A word that the model cannot spell: anything may be said there, but a blank is cheaper where nothing is.
const UNSPELLED: Unit = Unit::Star { cost: 0.5 };

/// Finds the best path of a text; `time` says when a step begins, or when the step before it ends.
fn place(
    symbols: &Characters,
    source: &Source,
    log_probs: &[f32],
    text: &str,
    duration_s: f64,
    time: &dyn Fn(usize, bool) -> f64,
) -> Result<Aligned, Failure> {
    let mut target: Vec<Unit> = Vec::new();
    let mut words = Vec::new();
    for Spelled { word, range, ids } in spell(symbols, text)? {
        if !target.is_empty() {
            target.extend(symbols.id(' ').map(Unit::Token));
        }
        let first = target.len();
        if ids.is_empty() {
            target.push(UNSPELLED);
        } else {
            target.extend(ids.into_iter().map(Unit::Token));
        }
        words.push((word, range, first..target.len()));
    }
    let n_symbols = symbols.n_symbols();
    let found = ctc::align(log_probs, n_symbols, &target, Characters::BLANK, Limits::default());
    let found = found.map_err(|error| match error {
        ctc::Error::TooFewFrames { n_frames, n_needed } => {
            Failure::TooLong { n_needed, n_steps: n_frames, duration_s }
        }
        error => Failure::Path(error),
    })?;
    let spans: Vec<ctc::Span> = found.spans.into_iter().flatten().collect();
    let timed = |label: String, spans: &[ctc::Span], confidence: Option<f32>| Alignment {
        label,
        start_s: time(spans[0].start, false),
        end_s: time(spans[spans.len() - 1].end, true),
        confidence,
        source: source.clone(),
    };
    let aligned = |(word, range, of): (&str, Range<usize>, Range<usize>)| {
        let (units, spans) = (&target[of.clone()], &spans[of]);
        let character = |(unit, span): (&Unit, &ctc::Span)| match unit {
            Unit::Token(id) => {
                let label = symbols.symbol(*id).map(String::from).unwrap_or_default();
                Some(timed(label, std::slice::from_ref(span), Some(span.confidence)))
            }
            Unit::Optional { .. } | Unit::Star { .. } => None,
        };
        let characters: Vec<Alignment> = units.iter().zip(spans).filter_map(character).collect();
        let log_mean = spans.iter().map(|s| s.log_prob).sum::<f32>() / spans.len() as f32;
        let confidence = (!characters.is_empty()).then(|| log_mean.exp());
        AlignedWord { range, word: timed(word.to_owned(), spans, confidence), characters }
    };
    Ok(Aligned { words: words.into_iter().map(aligned).collect() })
}

#[cfg(test)]
mod tests {
    use burn::prelude::Device;
    use sandhi_nn::init::Init;
    use serde_json::{from_value, json};

    use super::*;

    fn model() -> SpeechModel {
        SpeechModel::init(
            from_value(json!({ "kind": "whisper", "n_mels": 80 })).unwrap(),
            from_value(json!({
                "kind": "conformer", "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 16,
                "kernel": 3,
            }))
            .unwrap(),
            from_value(json!({ "steps_per_frame": 2 })).unwrap(),
            Characters::new(" abc".chars()).unwrap(),
            &Init::new(1, &Device::flex()),
        )
        .unwrap()
    }

    /// Rows in which one symbol has nearly everything.
    fn sure(model: &SpeechModel, path: &str) -> Vec<f32> {
        let symbols = &model.recognizer.as_ref().unwrap().symbols;
        let n = symbols.n_symbols();
        let mut rows = vec![-20.0; path.len() * n];
        for (row, symbol) in rows.chunks_mut(n).zip(path.chars()) {
            row[symbols.id(symbol).unwrap_or(0) as usize] = -1e-3;
        }
        rows
    }

    fn ms(s: f64) -> i64 {
        (1e3 * s).round() as i64
    }

    #[test]
    fn words_lie_where_their_characters_are() {
        let model = model();
        let aligner = Aligner::new(&model).unwrap().widening(Widening::NONE);
        // Steps of 20 ms: 25 Hz, two steps a frame.
        let text = " Ab, – ca";
        let found = aligner.of(&sure(&model, "_ab_ _cc_a_"), text).unwrap();
        let words = found.words();
        let places: Vec<(&str, i64, i64)> =
            words.iter().map(|w| (w.label.as_str(), ms(w.start_s), ms(w.end_s))).collect();
        assert_eq!(places, [("Ab,", 20, 60), ("ca", 120, 200)]);
        assert!(found.confidence() > 0.99 && found.unspelled().count() == 0);
        let ranges: Vec<&str> = found.words.iter().map(|w| &text[w.range.clone()]).collect();
        assert_eq!(ranges, ["Ab,", "ca"]);
        let characters: Vec<(String, i64, i64)> =
            found.characters().into_iter().map(|c| (c.label, ms(c.start_s), ms(c.end_s))).collect();
        let expected = [("a", 20, 40), ("b", 40, 60), ("c", 120, 160), ("a", 180, 200)];
        assert_eq!(characters, expected.map(|(c, s, e)| (c.to_owned(), s, e)));
        // A piece that crosses words, a comma, a piece of one letter.
        let pieces = [0..2, 2..3, 3..4, 4..10, 10..11];
        let times = found.pieces(text, aligner.symbols(), &pieces);
        assert!(times.iter().all(|piece| piece.confidence.is_none_or(|p| p > 0.99)));
        // The comma was not placed.
        let sure: Vec<bool> = times.iter().map(|piece| piece.confidence.is_some()).collect();
        assert_eq!(sure, [true, true, false, true, true]);
        let times: Vec<[i64; 2]> = times.iter().map(|p| [ms(p.start_s), ms(p.end_s)]).collect();
        assert_eq!(times, [[20, 40], [40, 60], [60, 60], [120, 160], [180, 200]]);
    }

    #[test]
    fn words_are_widened_into_what_is_free() {
        let model = model();
        let aligner = Aligner::new(&model).unwrap();
        let places = |path: &str| -> Vec<[i64; 2]> {
            let words = aligner.of(&sure(&model, path), "a b").unwrap().words();
            words.iter().map(|w| [ms(w.start_s), ms(w.end_s)]).collect()
        };
        // 40 ms before and 30 ms behind; the sound has 240 ms.
        assert_eq!(places("___a__ __b__"), [[20, 110], [140, 230]]);
        // Nothing before or behind the sound; 20 ms between them are shared by 3 to 4.
        assert_eq!(places("_a b"), [[0, 49], [49, 80]]);
        let half = aligner.of(&sure(&model, "_a b"), "a b").unwrap();
        assert!((half.words[0].word.end_s - (0.04 + 0.02 * 3.0 / 7.0)).abs() < 1e-9);
    }

    #[test]
    fn silence_noise_and_tones_are_no_speech() {
        assert_eq!(check_speech(&[0.0; 16_000]), Err(Failure::Silence { peak: 0.0 }));
        let mut stream = sandhi_data::rng::Stream::new(3);
        let noise: Vec<f32> = (0..32_000).map(|_| 0.2 * stream.normal() as f32).collect();
        let tone: Vec<f32> = (0..32_000).map(|i| (f64::from(i) * 0.17).sin() as f32).collect();
        for steady in [&noise, &tone] {
            let found = check_speech(steady);
            assert!(
                matches!(found, Err(Failure::Steady { range_db }) if range_db < 2.0),
                "{found:?}"
            );
            // Four syllables a second, 6 dB above the rest.
            let louder = |(i, x): (usize, &f32)| if i / 2_000 % 2 == 0 { 2.0 * x } else { *x };
            let spoken: Vec<f32> = steady.iter().enumerate().map(louder).collect();
            assert_eq!(check_speech(&spoken), Ok(()));
            assert_eq!(check_speech(&steady[..7_999]), Ok(()));
        }
        // One short word in a long pause.
        let mut pause = vec![0.0; 160_000];
        pause[80_000..83_200].copy_from_slice(&noise[..3_200]);
        assert_eq!(check_speech(&pause), Ok(()));
    }

    #[test]
    fn what_cannot_be_placed_is_said() {
        let model = model();
        let aligner = Aligner::new(&model).unwrap();
        let of = |path: &str, text: &str| aligner.of(&sure(&model, path), text);
        assert_eq!(of("ab", " \n"), Err(Failure::Empty));
        let error = of("ab", "… 7?").unwrap_err().to_string();
        assert!(error.contains("\"… 7?\"") && error.contains("\" abc\""), "{error}");
        let error = of("ab", "abb").unwrap_err().to_string();
        assert!(error.contains("takes 4 CTC steps") && error.contains("has 2 (0.04 s)"), "{error}");
        // What the model cannot spell lies where something is said that is not the rest.
        let found =
            aligner.widening(Widening::NONE).of(&sure(&model, "_ab_ _cc_ ba"), "ab 77 ba").unwrap();
        assert_eq!(found.unspelled().collect::<Vec<_>>(), ["77"]);
        let places: Vec<[i64; 2]> =
            found.words().iter().map(|w| [ms(w.start_s), ms(w.end_s)]).collect();
        assert_eq!(places, [[20, 60], [120, 160], [200, 240]]);
        assert_eq!(found.words[1].word.confidence, None);
        // Pieces of such a word share it, and one piece begins where the one before ends.
        let times = found.pieces(
            "ab 77 ba",
            model.recognizer.as_ref().map(|r| &r.symbols).unwrap(),
            &[0..2, 2..4, 4..5, 5..8, 7..8],
        );
        let times: Vec<[i64; 2]> = times.iter().map(|p| [ms(p.start_s), ms(p.end_s)]).collect();
        assert_eq!(times, [[20, 60], [120, 140], [140, 160], [200, 240], [240, 240]]);
    }

    /// A path through two chunks gives times of the whole; a chunk's last step ends with it.
    #[test]
    fn steps_of_chunks_have_times_of_the_whole() {
        let chunks = vec![(0, 0.0..0.05), (3, 0.05..0.11)];
        let steps = Steps { log_probs: Vec::new(), chunks, duration_s: 0.11 };
        let times = [(0, false), (2, false), (3, true), (3, false), (4, false), (6, true)];
        let found = times.map(|(step, ends)| ms(steps.time(step, ends, 0.02)));
        assert_eq!(found, [0, 40, 50, 50, 70, 110]);
    }

    #[test]
    fn long_sound_is_one_path() {
        let model = model();
        let aligner = Aligner::new(&model).unwrap();
        let samples: Vec<f32> = (0..48_000).map(|i| (i as f32 * 0.05).sin() * 0.1).collect();
        let chunking = Chunking { max_s: 1.0, min_s: 0.5 };
        let sounds = [(samples.as_slice(), "abc abc abc"), (&samples[..8_000], "a")];
        let found = aligner.align(&sounds, chunking).unwrap();
        let long = found[0].as_ref().unwrap();
        let ends: Vec<f64> = long.words.iter().map(|w| w.word.end_s).collect();
        assert!(long.words.len() == 3 && ends.is_sorted() && ends[2] <= 3.0, "{ends:?}");
        // What else is aligned at the same time does not matter.
        let alone = aligner.align(&sounds[1..], chunking).unwrap();
        assert_eq!(found[1], alone[0]);
    }
}
