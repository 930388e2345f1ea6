//! What can be wrong with a file of units.

use std::path::PathBuf;

/// An error of [`crate::units`]. `at` is the file with a line of it, or with the number of an utterance from 0 where it
/// has no lines.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// Nothing in it.
    #[error("{path}: found an empty file, expected units of speech")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A corpus of no files.
    #[error("found no files of units, expected at least one")]
    NoFiles,
    /// A file of another version of the format.
    #[error("{path}: found version {found} of the format, expected {expected}")]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What can be read.
        expected: u32,
    },
    /// A header that is none, or says what cannot be.
    #[error("{at}: found {found}, expected {expected}")]
    Header {
        /// The file, and its line.
        at: String,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// A line that is no utterance.
    #[error("{at}: found {found}, expected {expected}")]
    Malformed {
        /// The file and the line.
        at: String,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// A file that was cut short or changed after it was written.
    #[error("{path}: found {found}, expected {expected}; the file is damaged, write it again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What stands there.
        found: String,
        /// What should.
        expected: String,
    },
    /// A unit that the quantizer does not have.
    #[error(
        "{at}: utterance {id:?}: found unit {unit} at {position}, expected units below {n_units}"
    )]
    Unit {
        /// Where the utterance stands.
        at: String,
        /// The utterance.
        id: String,
        /// The unit.
        unit: u32,
        /// Its place in the utterance, from 0.
        position: usize,
        /// Units of the quantizer.
        n_units: u32,
    },
    /// An utterance of no units.
    #[error("{at}: utterance {id:?}: found no units, expected one at least")]
    Silent {
        /// Where the utterance stands.
        at: String,
        /// The utterance.
        id: String,
    },
    /// A word that cannot lie where it is said to.
    #[error("{at}: utterance {id:?}: word {word:?}: found {found}, expected {expected}")]
    Word {
        /// Where the utterance stands.
        at: String,
        /// The utterance.
        id: String,
        /// The word.
        word: String,
        /// Its span.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// Two utterances of one name.
    #[error(
        "{at}: found the utterance {id:?}, which {first} has as well, expected names to be distinct"
    )]
    Duplicate {
        /// Where the second stands.
        at: String,
        /// The name of both.
        id: String,
        /// Where the first stands.
        first: String,
    },
    /// An utterance without a name.
    #[error("{at}: found an utterance without a name, expected an `id`")]
    Nameless {
        /// Where it stands.
        at: String,
    },
    /// Files whose units mean different things.
    #[error(
        "{second}: found {field} = {found}, expected {expected} as in {first}; units of two quantizers are never mixed"
    )]
    Mixed {
        /// The first file.
        first: PathBuf,
        /// The one that differs.
        second: PathBuf,
        /// What differs.
        field: &'static str,
        /// Its value in the first file.
        expected: String,
        /// Its value in the second.
        found: String,
    },
    /// A number behind the last utterance.
    #[error("found the number {index}, expected one below {len}, the utterances that there are")]
    Outside {
        /// The number.
        index: usize,
        /// Utterances that there are.
        len: usize,
    },
}
