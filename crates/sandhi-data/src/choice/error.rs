//! What can be wrong with a file of choice items.

use std::path::PathBuf;

use super::Format;

/// An error of [`crate::choice`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// No items in it.
    #[error("{path}: found no items, expected at least one")]
    Empty {
        /// The file or folder.
        path: PathBuf,
    },
    /// Two items of one name.
    #[error("{path}: found two items called {id:?}, expected names to be distinct")]
    Repeated {
        /// The file or folder.
        path: PathBuf,
        /// The name.
        id: String,
    },
    /// Two sets of one name, by which numbers are kept.
    #[error(
        "{path}: found the name {name:?}, which {first} has as well, expected names to be distinct"
    )]
    SameName {
        /// The second file or folder.
        path: PathBuf,
        /// The first one.
        first: PathBuf,
        /// The name of both.
        name: String,
    },
    /// Two groups whose numbers would have one name.
    #[error(
        "{path}: found the groups {first:?} and {second:?}, expected other letters or digits to tell them apart"
    )]
    SameGroup {
        /// The file or folder.
        path: PathBuf,
        /// A group.
        first: String,
        /// The other one.
        second: String,
    },
    /// Contexts do not sound as they are asked for.
    #[error("{path}: found the domain {domain:?}, expected {expected}")]
    Domain {
        /// The file or folder.
        path: PathBuf,
        /// What was asked for.
        domain: String,
        /// What may be.
        expected: String,
    },
    /// The format cannot be told.
    #[error("{path}: found {found}, expected one of {names}", names = Format::ALL.map(Format::name).join(", "))]
    Unknown {
        /// The file or folder.
        path: PathBuf,
        /// What it looks like.
        found: String,
    },
    /// A place in a file that says something else than the format does.
    #[error("{file}:{line}: found {found}, expected {expected}")]
    Malformed {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// What stands there, with its field.
        found: String,
        /// What should.
        expected: String,
    },
    /// A folder lacks a file that belongs to another one.
    #[error("{path}: found no such file, expected {expected}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What it would hold.
        expected: &'static str,
    },
}

impl Error {
    pub(super) fn malformed(
        file: &str,
        line: u64,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        let (found, expected) = (found.into(), expected.into());
        Self::Malformed { file: file.to_owned(), line, found, expected }
    }
}

/// How a message calls a field's value.
pub(super) fn field(name: &str, value: &str) -> String {
    let short: String = value.chars().take(40).collect();
    let rest = if short.len() < value.len() { "…" } else { "" };
    format!("`{name}` = {short}{rest}")
}
