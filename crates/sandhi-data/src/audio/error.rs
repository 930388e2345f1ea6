//! What can be wrong with a sound file; every message names the file.

use std::fmt;

/// What the decoders accept, as error messages say it.
pub(super) const ACCEPTED: &str = "WAV, FLAC, MP3 or Ogg Vorbis";

/// An error of [`crate::audio`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be opened.
    #[error("{file}: cannot open: {source}")]
    Open {
        /// The path as given.
        file: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Reading failed although the file was opened and its end was not reached.
    #[error("{file}: cannot read: {source}")]
    Read {
        /// The path as given.
        file: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file has zero bytes.
    #[error("{file}: found an empty file, expected {ACCEPTED}")]
    EmptyFile {
        /// The path as given.
        file: String,
    },
    /// The content is none of the accepted containers, whatever the name's extension says.
    #[error("{file}: found {found}, expected {ACCEPTED}")]
    NotAudio {
        /// The path as given.
        file: String,
        /// What the first bytes look like.
        found: String,
    },
    /// The container was recognized, but holds something that is not decoded here.
    #[error("{file}: unsupported {found}")]
    Unsupported {
        /// The path as given.
        file: String,
        /// What is not supported.
        found: String,
    },
    /// A well-formed file without a single sample.
    #[error("{file}: found no samples, expected at least one")]
    NoSamples {
        /// The path as given.
        file: String,
    },
    /// The file ends before the number of samples that its header promises.
    #[error("{file}: truncated: found {found} samples per channel, expected {expected}")]
    Truncated {
        /// The path as given.
        file: String,
        /// Samples per channel that could be decoded.
        found: u64,
        /// What the header promises.
        expected: Expected,
    },
    /// The stream is damaged in the middle.
    #[error("{file}: damaged at sample {sample_idx}: {reason}")]
    Corrupt {
        /// The path as given.
        file: String,
        /// Samples per channel that were decoded before the damage.
        sample_idx: u64,
        /// What the decoder says.
        reason: String,
    },
    /// A floating point file holds NaN or an infinity.
    #[error("{file}: sample {sample_idx} is {value}, expected a finite number")]
    NonFinite {
        /// The path as given.
        file: String,
        /// Index per channel of the first such sample, at the file's own rate.
        sample_idx: u64,
        /// The offending value (of the channel mean, when several channels are mixed).
        value: f32,
    },
    /// The sample rate is outside of what the resampler serves.
    #[error(
        "{file}: found a sample rate of {found} Hz, expected {} to {} Hz",
        super::MIN_SAMPLE_RATE_HZ,
        super::MAX_SAMPLE_RATE_HZ
    )]
    SampleRate {
        /// The path as given.
        file: String,
        /// The rate in Hz.
        found: u32,
    },
    /// A span asked for does not lie inside the file.
    #[error(
        "{file}: found {file_duration_s:.3} s of audio, expected the span from {start_s:.3} s to \
         {end_s:.3} s to lie inside"
    )]
    Span {
        /// The path as given.
        file: String,
        /// Start of the span in seconds.
        start_s: f64,
        /// End of the span in seconds; infinite for "to the end".
        end_s: f64,
        /// Length of the file in seconds.
        file_duration_s: f64,
    },
    /// A span that is negative, empty or not a number.
    #[error(
        "{file}: found a span that starts at {start_s} s and lasts {duration_s} s, expected \
         start >= 0 and duration > 0"
    )]
    BadSpan {
        /// The path as given.
        file: String,
        /// Start of the span in seconds.
        start_s: f64,
        /// Length of the span in seconds.
        duration_s: f64,
    },
    /// A WAV file could not be written.
    #[error("{file}: cannot write: {source}")]
    Write {
        /// The path as given.
        file: String,
        /// What the writer says.
        source: hound::Error,
    },
}

/// The length that a container promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// This many samples per channel.
    Samples(u64),
    /// An Ogg stream must finish with a page that is marked as the last one.
    EndOfStreamPage,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Samples(n) => write!(f, "{n}"),
            Self::EndOfStreamPage => f.write_str("an end-of-stream page"),
        }
    }
}

/// Says in a few words what a file starts with, for [`Error::NotAudio`].
pub(super) fn describe(head: &[u8]) -> String {
    let shown = &head[..head.len().min(16)];
    // A letter of several bytes may be cut at the end of what is shown.
    let n_valid = std::str::from_utf8(shown).map_or_else(|e| e.valid_up_to(), str::len);
    let text = String::from_utf8_lossy(&shown[..n_valid]);
    let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    if n_valid > 0 && n_valid + 3 >= shown.len() && text.chars().all(printable) {
        return format!("text that starts with {text:?}");
    }
    let hex: Vec<String> = shown.iter().map(|b| format!("{b:02x}")).collect();
    format!("bytes that start with {}", hex.join(" "))
}
