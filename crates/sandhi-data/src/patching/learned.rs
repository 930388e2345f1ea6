//! What merges and entropies share: both are learned from units, and kept in files.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// The version of the formats of merges and of entropies.
pub(super) const VERSION: u32 = 1;

/// What is wrong with what was learned from units, or with what it is applied to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LearnedError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file that does not hold what it should.
    #[error("{path}: found {found}, expected {expected}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What stands there.
        found: String,
        /// What should.
        expected: String,
    },
    /// A number that is no unit, or no symbol.
    #[error("found {found} at {position}, expected numbers below {below}")]
    Outside {
        /// The number.
        found: u32,
        /// Its place, from 0.
        position: usize,
        /// How many there are.
        below: u32,
    },
}

/// What a file lacks, by what was found and what was expected.
pub(super) fn malformed(path: &Path, found: String, expected: String) -> LearnedError {
    LearnedError::Malformed { path: path.to_owned(), found, expected }
}

/// The content of a file of version 1 of its format, which it names by a number of its own.
pub(super) fn decoded<T: DeserializeOwned>(
    json: &[u8],
    path: &Path,
    what: &str,
    version: impl Fn(&T) -> u32,
) -> Result<T, LearnedError> {
    let written = serde_json::from_slice(json)
        .map_err(|error| malformed(path, error.to_string(), what.to_owned()))?;
    match version(&written) {
        VERSION => Ok(written),
        other => {
            let found = format!("version {other} of the format");
            Err(malformed(path, found, VERSION.to_string()))
        }
    }
}

/// Refuses numbers that are not below the given one.
pub(super) fn check(numbers: &[u32], below: u32) -> Result<(), LearnedError> {
    match numbers.iter().position(|&number| number >= below) {
        None => Ok(()),
        Some(position) => Err(LearnedError::Outside { found: numbers[position], position, below }),
    }
}
