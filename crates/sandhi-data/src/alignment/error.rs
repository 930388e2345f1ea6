//! What can be wrong with a file of alignments.

use std::{fs, io::Read, path::Path};

/// An error of [`crate::alignment`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read or written.
    #[error("{file}: cannot {action}: {source}")]
    Io {
        /// The path as given.
        file: String,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The bytes are no text.
    #[error("{file}:{line}: found bytes that are not {expected}")]
    Encoding {
        /// The path as given.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The encoding that the file seems to have.
        expected: &'static str,
    },
    /// A place in the file that says something else than the format does.
    #[error("{file}:{line}: found {found}, expected {expected}")]
    Malformed {
        /// The path as given.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What stands there.
        found: String,
        /// What should.
        expected: String,
    },
    /// No file of word times.
    #[error("{file}: found {found}, expected .TextGrid, .ctm, .jsonl, .srt or .vtt")]
    Unknown {
        /// The path as given.
        file: String,
        /// What it is.
        found: &'static str,
    },
    /// Labels that the format cannot express.
    #[error(
        "cannot write `{label}` at {start_s} s as {format}: found {found}, expected {expected}"
    )]
    Unwritable {
        /// The format.
        format: &'static str,
        /// The label.
        label: String,
        /// Its start.
        start_s: f64,
        /// What is the matter.
        found: String,
        /// What the format asks for.
        expected: &'static str,
    },
}

/// Text of a file, with its name for messages.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) file: String,
    pub(super) text: String,
}

impl Text {
    /// Reads UTF-8 with or without its mark, or UTF-16 with its mark, plain or in gzip.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let file = path.display().to_string();
        let failed = |source| Error::Io { file: file.clone(), action: "read", source };
        let mut bytes = fs::read(path).map_err(failed)?;
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&bytes[..])
                .read_to_end(&mut plain)
                .map_err(failed)?;
            bytes = plain;
        }
        Self::decode(bytes, &file)
    }

    pub(super) fn decode(bytes: Vec<u8>, file: &str) -> Result<Self, Error> {
        let file = file.to_owned();
        let from_bytes: Option<fn([u8; 2]) -> u16> = match bytes[..] {
            [0xff, 0xfe, ..] => Some(u16::from_le_bytes),
            [0xfe, 0xff, ..] => Some(u16::from_be_bytes),
            _ => None,
        };
        if let Some(from_bytes) = from_bytes {
            let units = bytes[2..].chunks_exact(2).map(|pair| from_bytes([pair[0], pair[1]]));
            let is_whole = bytes.len().is_multiple_of(2);
            let mut text = String::with_capacity(bytes.len() / 2);
            for unit in char::decode_utf16(units) {
                let Ok(c) = unit else { return Err(Self::not_text(&file, &text, "UTF-16")) };
                text.push(c);
            }
            return if is_whole {
                Ok(Self { file, text })
            } else {
                Err(Self::not_text(&file, &text, "UTF-16"))
            };
        }
        match String::from_utf8(bytes) {
            Ok(text) => {
                let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
                Ok(Self { file, text })
            }
            Err(error) => {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                Err(Self::not_text(&file, &String::from_utf8_lossy(valid), "UTF-8"))
            }
        }
    }

    fn not_text(file: &str, before: &str, expected: &'static str) -> Error {
        let line = 1 + before.bytes().filter(|&b| b == b'\n').count();
        Error::Encoding { file: file.to_owned(), line, expected }
    }

    pub(super) fn malformed(
        &self,
        line: usize,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Error {
        Error::Malformed {
            file: self.file.clone(),
            line,
            found: found.into(),
            expected: expected.into(),
        }
    }
}

/// Writes a file of text.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::Io {
        file: path.display().to_string(),
        action: "write",
        source,
    })
}

/// A start and an end in seconds, with both in order; `None` otherwise.
pub(super) fn span(start_s: f64, end_s: f64) -> Option<(f64, f64)> {
    (start_s.is_finite() && end_s.is_finite() && start_s >= 0.0 && end_s >= start_s)
        .then_some((start_s, end_s))
}
