//! Manifests: lists of utterances, as people have them and as the project writes them.
//!
//! ```text
//! NeMo, SLAM-LLM, Qwen, wenet, chat, Lhotse ─┐
//! Kaldi, LibriSpeech, Sphinx, Common Voice ──┼─ import ─ utterances + what was rejected and why
//! digits of FSDD, our JSONL ─────────────────┘              └─ write_jsonl, validate
//! ```
//!
//! Reading is strict about each line and lenient about the file: a line that is wrong in any way
//! is rejected with its place, what was found and what was expected, and the rest goes on. A
//! caller that tolerates nothing uses [`Import::strict`].

mod collect;
mod error;
mod format;
mod json;
mod language;
mod lines;
mod read;
mod validate;
mod write;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use collect::Import;
pub use error::{Error, Kind, Rejected};
pub use format::Format;
pub(crate) use read::{fsdd_recording, import_kaldi_tables, sphinx_transcript};
pub use read::{import, import_bytes, import_split};
pub use validate::{Bad, Bin, Durations, TextStats, Validation, validate};
pub use write::{to_jsonl, write_jsonl};

use crate::alignment::Alignment;

/// One stretch of speech with what is known about it: a line of our JSONL.
///
/// `id`, `audio` and `text` are required; the rest is left out where it is empty. Keys that are
/// not listed here are refused; what else a user keeps per utterance goes under `extra`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Utterance {
    /// Distinct within a manifest.
    pub id: String,
    /// Where the sound is.
    pub audio: AudioRef,
    /// What is said; empty when nobody wrote it down.
    pub text: String,
    /// ISO 639-1 code where there is one (`en`), else the source's own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Who speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
    /// The part of the data set that it belongs to, as its makers say: `train`, `test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// What is to be done with the sound: `asr`, `translate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The words in which that is asked, `<audio>` standing for the sound if it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// What should be answered, where that is not the transcript.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Times of words, in seconds from the start of the utterance (not of the file).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Alignment>,
    /// Whatever else the source said.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

impl Utterance {
    /// An utterance that is a whole file, with nothing known but its text.
    pub fn new(id: impl Into<String>, path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            audio: AudioRef::whole(path),
            text: text.into(),
            language: None,
            speaker: None,
            split: None,
            task: None,
            instruction: None,
            answer: None,
            words: Vec::new(),
            extra: Map::new(),
        }
    }
}

/// A stretch of a sound file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioRef {
    /// The file. In a manifest, a relative path starts at the manifest's folder.
    pub path: PathBuf,
    /// Where the utterance starts, in seconds from the start of the file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_s: f64,
    /// How long it is, in seconds; to the end of the file when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<f64>,
    /// The channel that holds it, from 0; all channels mixed when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<usize>,
}

impl AudioRef {
    /// A whole file, all channels.
    pub fn whole(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), start_s: 0.0, duration_s: None, channel: None }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

#[cfg(test)]
mod tests;
