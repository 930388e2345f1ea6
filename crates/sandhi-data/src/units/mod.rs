//! Discrete units of utterances on disk, and where their words lie.
//!
//! ```text
//! units    17 17 203 998 5 5 5 41 …      from one quantizer, at one rate
//! words   |the |  mill  |     |is …|     spans of units; what no word covers is silence
//!
//! JSON lines   header                                an utterance a line …
//! binary       header │ utterance, utterance, … │ index │ hash                  mapped into memory
//! ```
//!
//! Every file names its quantizer. Numbers of two quantizers mean different things, so that a [`UnitCorpus`] refuses to
//! join their files.

mod binary;
mod corpus;
mod error;
mod jsonl;
mod words;
mod write;

use serde::{Deserialize, Serialize};

pub(crate) use self::words::problem as words_problem;
pub use self::{
    corpus::{UnitCorpus, UnitFile},
    error::Error,
    words::words_in_units,
    write::{UnitWriter, to_bytes},
};

/// What all utterances of a file share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitsHeader {
    /// Hash of the centers and of what they were fitted on, in hexadecimal digits: units of two hashes are never mixed.
    pub quantizer: String,
    /// Units of the quantizer; the largest is one less.
    pub n_units: u32,
    /// Units a second.
    pub rate_hz: f64,
}

/// The units of one utterance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitUtterance {
    /// Distinct within a corpus.
    pub id: String,
    /// One after another, repetitions included.
    pub units: Vec<u32>,
    /// Words in their order, without overlap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<UnitWord>,
    /// What is said, where somebody wrote it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// ISO 639-1 code where there is one (`en`), else the source's own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

/// A word and the units in which it is said, in files `["mill", 4, 10]`. It may have none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(String, u32, u32)", into = "(String, u32, u32)")]
pub struct UnitWord {
    /// The word.
    pub word: String,
    /// Its first unit.
    pub start: u32,
    /// One past its last unit.
    pub end: u32,
}

impl From<(String, u32, u32)> for UnitWord {
    fn from((word, start, end): (String, u32, u32)) -> Self {
        Self { word, start, end }
    }
}

impl From<UnitWord> for (String, u32, u32) {
    fn from(UnitWord { word, start, end }: UnitWord) -> Self {
        (word, start, end)
    }
}

/// How units are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A line for the header, then one an utterance: to look into and to make with other programs.
    Jsonl,
    /// Two or four bytes a unit with an index: for corpora that do not fit into memory.
    Binary,
}

/// The version of both formats.
const VERSION: u32 = 1;

impl UnitsHeader {
    /// Why this cannot be a header: what was found, and what was expected.
    fn problem(&self) -> Option<(String, &'static str)> {
        if self.quantizer.trim().is_empty() {
            Some(("an empty `quantizer`".to_owned(), "a hash that names the quantizer"))
        } else if self.n_units == 0 {
            Some(("`n_units` = 0".to_owned(), "one unit at least"))
        } else if !(self.rate_hz.is_finite() && self.rate_hz > 0.0) {
            Some((format!("`rate_hz` = {}", self.rate_hz), "a number of units a second above 0"))
        } else {
            None
        }
    }
}

impl UnitUtterance {
    /// Whether this can be an utterance of a file with that header; `at` says where it stands.
    fn check(&self, header: &UnitsHeader, at: impl Fn() -> String) -> Result<(), Error> {
        if self.id.is_empty() {
            return Err(Error::Nameless { at: at() });
        }
        if self.units.is_empty() {
            return Err(Error::Silent { at: at(), id: self.id.clone() });
        }
        let n_units = header.n_units;
        if let Some(position) = self.units.iter().position(|&unit| unit >= n_units) {
            let (id, unit) = (self.id.clone(), self.units[position]);
            return Err(Error::Unit { at: at(), id, unit, position, n_units });
        }
        match words::problem(&self.words, self.units.len()) {
            None => Ok(()),
            Some((word, found, expected)) => {
                let (id, word) = (self.id.clone(), word.to_owned());
                Err(Error::Word { at: at(), id, word, found, expected })
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
