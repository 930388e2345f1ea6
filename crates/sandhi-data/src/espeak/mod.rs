//! Speech from espeak-ng, loaded as a library at run time, with exact word and phoneme times.
//!
//! ```text
//! text ── libespeak-ng ─┬─ samples, 22,050 Hz
//!                       └─ events: word, phoneme, silence, end ── words and phonemes with times
//! ```
//!
//! Nothing of espeak-ng is linked; it is looked up by name when it is first needed. Its state is global and
//! survives from one text to the next (the phase of the voice, its flutter, the noise of breath),
//! so that the same text sounds different the second time. Here every text gets a library that
//! was just loaded, one text at a time in a process: the result depends on the arguments alone.

mod library;
mod words;

use crate::{alignment::Alignment, audio::Waveform};

/// The slowest speed that espeak-ng knows, in its words a minute.
pub const MIN_WORDS_PER_MINUTE: u32 = 80;
/// The fastest speed that espeak-ng speaks without skipping samples, in its words a minute.
pub const MAX_WORDS_PER_MINUTE: u32 = 450;

/// What can go wrong between us and espeak-ng.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No library of a known name could be loaded.
    #[error(
        "espeak-ng is not installed: `{name}` was not found; install it with \
         `apt-get install espeak-ng` (Debian, Ubuntu) or `brew install espeak-ng` (macOS)"
    )]
    Missing {
        /// The name that was tried first.
        name: String,
    },
    /// A library was found that lacks a function.
    #[error("{library}: found no function `{function}`, expected espeak-ng 1.49 or later")]
    Function {
        /// The library's name.
        library: String,
        /// The function.
        function: &'static str,
    },
    /// The library could not find or read its own data.
    #[error(
        "espeak-ng did not start (code {code}); its data files (package espeak-ng-data) may be missing"
    )]
    Start {
        /// What `espeak_Initialize` returned.
        code: i32,
    },
    /// There is no such voice or variant.
    #[error(
        "espeak-ng has no voice `{voice}`; `espeak-ng --voices` and `espeak-ng --voices=variant` list what it has"
    )]
    UnknownVoice {
        /// The voice as asked for.
        voice: String,
    },
    /// A speed out of range.
    #[error(
        "found a speed of {found} words a minute, expected {MIN_WORDS_PER_MINUTE} to {MAX_WORDS_PER_MINUTE}"
    )]
    Speed {
        /// The speed as asked for.
        found: u32,
    },
    /// The library refused the text.
    #[error("espeak-ng failed with code {code} on the text `{text}`")]
    Synthesis {
        /// What `espeak_Synth` returned.
        code: i32,
        /// The text.
        text: String,
    },
    /// Nothing in the text can be spoken.
    #[error("found nothing to speak in the text `{text}`")]
    NothingToSay {
        /// The text.
        text: String,
    },
}

/// How a text is spoken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settings {
    /// A language, optionally with a variant: `en-us`, `de+m2`.
    pub voice: String,
    /// espeak-ng's speed. It counts its own words: 115 gives about 2.7 words a second of running
    /// English, pauses not counted.
    pub words_per_minute: u32,
    /// Base pitch, 0 to 99; 50 is the voice's own.
    pub pitch: u32,
    /// Range of the pitch, 0 (monotone) to 99; 50 is the voice's own.
    pub pitch_range: u32,
}

impl Settings {
    /// A voice at a speed, with its own pitch.
    pub fn new(voice: impl Into<String>, words_per_minute: u32) -> Self {
        Self { voice: voice.into(), words_per_minute, pitch: 50, pitch_range: 50 }
    }
}

/// A spoken text.
#[derive(Debug, Clone, PartialEq)]
pub struct Synthesis {
    /// The sound, at espeak-ng's rate of 22,050 Hz.
    pub waveform: Waveform,
    /// One entry for each word of the text, in order: each run of characters without white space that
    /// has a letter or a digit. The label is the word as written, without the punctuation around it. Pauses
    /// belong to no word. The source is exact; espeak-ng speaks some pairs of words as one (`in den`),
    /// such words share its time by characters, cut between phonemes, with a confidence of 0.5.
    pub words: Vec<Alignment>,
    /// Phonemes as IPA, in order, without silences. espeak-ng gives some a length of zero.
    pub phonemes: Vec<Alignment>,
}

/// espeak-ng, known to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Espeak {
    version: String,
}

impl Espeak {
    /// Looks for the library and starts it once.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], with the command that installs it; [`Error::Function`], [`Error::Start`].
    pub fn open() -> Result<Self, Error> {
        let version = library::with(|instance| Ok(instance.version()))?;
        Ok(Self { version })
    }

    /// What the library calls its version, e.g. `1.51`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether the library has the voice, e.g. `en-us+f3`.
    ///
    /// # Errors
    ///
    /// As [`Espeak::open`].
    pub fn has_voice(&self, voice: &str) -> Result<bool, Error> {
        library::with(|instance| Ok(instance.catalog().find(voice).is_some()))
    }

    /// Speaks a text. The result depends on the arguments and the library's version alone.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownVoice`], [`Error::Speed`], [`Error::Synthesis`], [`Error::NothingToSay`]; those of
    /// [`Espeak::open`] when the library went away.
    pub fn synthesize(&self, text: &str, settings: &Settings) -> Result<Synthesis, Error> {
        let found = settings.words_per_minute;
        if !(MIN_WORDS_PER_MINUTE..=MAX_WORDS_PER_MINUTE).contains(&found) {
            return Err(Error::Speed { found });
        }
        let spoken = words::separated(text);
        let recording = library::with(|instance| instance.synthesize(&spoken, settings))?;
        let rate = recording.sample_rate_hz;
        let (words, phonemes) =
            words::align(text, &recording.events, recording.samples.len(), f64::from(rate));
        if phonemes.is_empty() {
            return Err(Error::NothingToSay { text: text.to_owned() });
        }
        let samples = recording.samples.iter().map(|&s| f32::from(s) / 32_768.0).collect();
        Ok(Synthesis { waveform: Waveform { samples, sample_rate_hz: rate }, words, phonemes })
    }
}

#[cfg(test)]
mod tests;
