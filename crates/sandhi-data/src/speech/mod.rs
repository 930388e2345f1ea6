//! Texts spoken by espeak-ng in several acoustic domains, with exact word times, cached by content.
//!
//! ```text
//! text, language, domain, seed ─ plan ─ espeak-ng ─ 16 kHz ─ pauses ─ room, noise, band, μ-law, level ─ 16 bit
//!                                   └──────────── key ── cache/speech/ab/ab12….wav ──────────────────────┘
//! ```
//!
//! | domain    | voices          | speed       | else                                                      |
//! |-----------|-----------------|-------------|-----------------------------------------------------------|
//! | `wild`    | 20 of its own   | 0.7 to 1.5  | pitch; pauses; noises, rooms and bands of its own; part clean |
//! | `base`    | 8               | 1           |                                                           |
//! | `voices`  | 8 others        | 1           |                                                           |
//! | `tempo`   | those of `base` | 0.7 to 1.4  | pauses between words                                      |
//! | `channel` | those of `base` | 1           | noise 5 to 20 dB, reverberation, band limits, μ-law         |
//!
//! Foundation encoders learn from `wild` only, connectors from `base` only; the others are for evaluation.

mod cache;
mod channel;
mod plan;
mod render;
mod voices;

use std::{
    io,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::cache::Cache;
pub use self::voices::voices;
use crate::{
    alignment::Alignment,
    audio::{self, Waveform},
    espeak::{self, Espeak},
    language::Language,
};

/// Sample rate of all speech made here, in Hz.
pub const SAMPLE_RATE_HZ: u32 = 16_000;

/// Speed of the base domain in espeak-ng's words a minute.
///
/// Its words are not ours: measured on running text, pauses not counted, this is 2.7 words a second in English
/// and 2.6 in German and Spanish (2.4 and 2.2 with the pauses between clauses), near audiobooks.
pub const BASE_WORDS_PER_MINUTE: u32 = 115;

/// Acoustic conditions; see the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// For the pre-training of encoders: voices, noises and rooms that no other domain has.
    Wild,
    /// Eight clean voices at one speed: what connectors learn from.
    Base,
    /// Eight other clean voices at the same speed.
    Voices,
    /// The voices of `base`, slower and faster, with pauses.
    Tempo,
    /// The voices of `base` through rooms, noise and telephones.
    Channel,
}

impl Domain {
    /// All domains, in a fixed order.
    pub const ALL: [Self; 5] = [Self::Wild, Self::Base, Self::Voices, Self::Tempo, Self::Channel];

    /// The name in recipes and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wild => "wild",
            Self::Base => "base",
            Self::Voices => "voices",
            Self::Tempo => "tempo",
            Self::Channel => "channel",
        }
    }
}

impl std::fmt::Display for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What is to be spoken. The speech depends on these and the version of espeak-ng alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The words.
    pub text: String,
    /// Their language.
    pub language: Language,
    /// The acoustic conditions.
    pub domain: Domain,
    /// Another seed gives another voice, room and noise. With the same text and seed, `base`, `tempo` and
    /// `channel` have the same voice.
    pub seed: u64,
    /// What the voice is drawn by where several texts are to have one, instead of text and seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voice: Option<u64>,
}

/// A spoken text.
#[derive(Debug, Clone, PartialEq)]
pub struct Speech {
    /// The sound at [`SAMPLE_RATE_HZ`], in steps of 16 bit.
    pub waveform: Waveform,
    /// Words with exact times, without the pauses between them; see [`espeak::Synthesis::words`].
    pub words: Vec<Alignment>,
    /// Phonemes (IPA) with exact times.
    pub phonemes: Vec<Alignment>,
    /// espeak-ng's voice, e.g. `en-us+f3`.
    pub voice: String,
    /// espeak-ng's speed; [`BASE_WORDS_PER_MINUTE`] says what it means.
    pub words_per_minute: u32,
}

/// What can go wrong when speech is made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// espeak-ng is missing or failed.
    #[error(transparent)]
    Espeak(#[from] espeak::Error),
    /// The sound could not be converted.
    #[error(transparent)]
    Audio(#[from] audio::Error),
    /// The cache cannot be written or read.
    #[error("{}: cannot {action}: {source}", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// A place where texts are spoken. Can be used from many threads at once.
#[derive(Debug)]
pub struct Studio {
    espeak: Espeak,
    cache: Option<Cache>,
}

impl Studio {
    /// A studio that keeps what it made below `cache_dir/speech`, or nowhere.
    ///
    /// # Errors
    ///
    /// [`Error::Espeak`] where espeak-ng is not installed; [`Error::Cache`] where the folder cannot be made.
    pub fn open(cache_dir: Option<&Path>) -> Result<Self, Error> {
        let espeak = Espeak::open()?;
        let cache = cache_dir.map(|dir| Cache::open(&dir.join("speech"), espeak.version()));
        Ok(Self { espeak, cache: cache.transpose()? })
    }

    /// The version of espeak-ng.
    pub fn espeak_version(&self) -> &str {
        self.espeak.version()
    }

    /// Speaks one text, or finds it in the cache. A damaged cache file is made again.
    ///
    /// # Errors
    ///
    /// [`Error::Espeak`] for a text without anything to say or a voice that is not installed, [`Error::Cache`] when
    /// the cache cannot be read or written.
    pub fn speak(&self, request: &Request) -> Result<Speech, Error> {
        let Some(cache) = &self.cache else { return render::render(&self.espeak, request) };
        let key = cache.key(request);
        if let Some(speech) = cache.get(&key)? {
            return Ok(speech);
        }
        let speech = render::render(&self.espeak, request)?;
        cache.put(&key, &speech)?;
        Ok(speech)
    }

    /// Speaks several texts, in order. One is synthesized at a time, while the other threads of the pool change the
    /// rate, add rooms and noise, and read and write the cache.
    ///
    /// # Errors
    ///
    /// As [`Studio::speak`]: that of one of the texts that failed.
    pub fn speak_many(&self, requests: &[Request]) -> Result<Vec<Speech>, Error> {
        requests.par_iter().with_max_len(8).map(|request| self.speak(request)).collect()
    }
}

#[cfg(test)]
mod tests;
