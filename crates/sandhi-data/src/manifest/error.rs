//! What can be wrong with a manifest, always with its place, what was found and what was expected.

use std::{fmt, path::PathBuf};

use serde::Serialize;

use super::Format;

/// A manifest that cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or folder could not be read.
    #[error("{path}: {reason}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The manifest could not be written.
    #[error("{path}: {reason}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// No line in it.
    #[error("{path}: found no entries, expected at least one")]
    Empty {
        /// The file or folder.
        path: PathBuf,
    },
    /// No utterance of the split that was asked for.
    #[error("{path}: found splits: {found}; expected utterances of split {split:?}")]
    NoSplit {
        /// The file or folder.
        path: PathBuf,
        /// What was asked for.
        split: String,
        /// The splits that there are.
        found: String,
    },
    /// The format could not be told from the content.
    #[error("{path}: found {found}, expected one of {expected}; name the format if it is one of these", expected = Format::list())]
    UnknownFormat {
        /// The file or folder.
        path: PathBuf,
        /// What it looks like.
        found: String,
    },
    /// A format of several files lacks one.
    #[error("{path}: a {format} data set needs {missing}")]
    MissingFile {
        /// The file or folder that was named.
        path: PathBuf,
        /// The format.
        format: Format,
        /// What was looked for.
        missing: String,
    },
    /// A line is wrong and nothing wrong is tolerated.
    #[error(transparent)]
    Rejected(#[from] Rejected),
}

/// A line that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Rejected {
    /// The file that holds the line.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What sort of mistake it is.
    pub kind: Kind,
    /// The field that is wrong (`audio.path`), empty when it is the line as a whole.
    pub field: String,
    /// What was found there.
    pub found: String,
    /// What should have been there.
    pub expected: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file.display(), self.line)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "found {}, expected {}", self.found, self.expected)
    }
}

/// Sorts of mistakes, for counting them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Bytes that are not UTF-8.
    NotUtf8,
    /// Not JSON, or not a JSON object.
    NotJson,
    /// A line of more bytes than any sensible one has.
    TooLong,
    /// A key that occurs twice in one object.
    DuplicateKey,
    /// A field that must be there and is not.
    MissingField,
    /// A field that our format does not have.
    UnknownField,
    /// A field of the wrong type.
    WrongType,
    /// A value that cannot be, such as a negative duration.
    BadValue,
    /// A construct that is understood and not supported, such as a pipe in `wav.scp`.
    Unsupported,
    /// Two parts of a data set that do not fit together.
    Mismatch,
    /// An id that an earlier line has.
    DuplicateId,
    /// A sound file that does not exist.
    NoFile,
}

/// A mistake before it has a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) kind: Kind,
    pub(super) field: String,
    pub(super) found: String,
    pub(super) expected: String,
}

impl Problem {
    pub(super) fn new(
        kind: Kind,
        field: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self { kind, field: field.into(), found: found.into(), expected: expected.into() }
    }

    pub(super) fn missing(field: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::new(Kind::MissingField, field, "nothing", expected)
    }

    pub(super) fn at(self, file: PathBuf, line: usize) -> Rejected {
        let Self { kind, field, found, expected } = self;
        Rejected { file, line, kind, field, found, expected }
    }
}

/// Quotes text for a message, cut at 80 characters.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
