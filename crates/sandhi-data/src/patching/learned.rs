//! What is wrong with merges and entropies, which are learned from units and kept in files.

use std::path::PathBuf;

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

/// Refuses numbers that are not below the given one.
pub(super) fn check(numbers: &[u32], below: u32) -> Result<(), LearnedError> {
    match numbers.iter().position(|&number| number >= below) {
        None => Ok(()),
        Some(position) => Err(LearnedError::Outside { found: numbers[position], position, below }),
    }
}
