//! Which manifest is it: told by the files of a folder or the keys of the first objects.

use std::{fmt, fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    error::Error,
    json,
    lines::{Lines, read_error},
    read::{is_common_voice_header, is_fsdd_folder},
};

/// The manifests that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Our own JSONL, a [`super::Utterance`] a line.
    Sandhi,
    /// NVIDIA NeMo: `{"audio_filepath", "duration", "text", "offset"?, "_skipme"?}`.
    Nemo,
    /// SLAM-LLM: `{"key", "source", "target"}` or `{"key", "task", "path", "target", "hotword"?}`.
    SlamLlm,
    /// Qwen3-ASR: `{"audio", "text": "language English<asr_text>…"}`.
    Qwen,
    /// WeNet and WeST: `{"key", "wav", "txt"}`.
    Wenet,
    /// Chat with sound, as ms-swift has it: `{"messages": […"<audio>"…], "audios": […]}`.
    Chat,
    /// Lhotse: cuts, or recordings and supervisions, JSONL with or without gzip.
    Lhotse,
    /// A Kaldi data folder: `wav.scp`, `text`, and `segments`, `utt2spk` where present.
    Kaldi,
    /// A tree with `*.trans.txt` beside the sound files.
    LibriSpeech,
    /// A CMU Sphinx training folder: `etc/*.fileids`, `etc/*.transcription`, `wav/`.
    Sphinx,
    /// A table of Common Voice or CoVoST 2, with `clips/` beside it.
    CommonVoice,
    /// The Free Spoken Digit Dataset: `7_jackson_32.wav`, in one folder or several.
    Fsdd,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 12] = [
        Self::Sandhi,
        Self::Nemo,
        Self::SlamLlm,
        Self::Qwen,
        Self::Wenet,
        Self::Chat,
        Self::Lhotse,
        Self::Kaldi,
        Self::LibriSpeech,
        Self::Sphinx,
        Self::CommonVoice,
        Self::Fsdd,
    ];

    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sandhi => "sandhi",
            Self::Nemo => "nemo",
            Self::SlamLlm => "slam-llm",
            Self::Qwen => "qwen",
            Self::Wenet => "wenet",
            Self::Chat => "chat",
            Self::Lhotse => "lhotse",
            Self::Kaldi => "kaldi",
            Self::LibriSpeech => "libri-speech",
            Self::Sphinx => "sphinx",
            Self::CommonVoice => "common-voice",
            Self::Fsdd => "fsdd",
        }
    }

    /// All names, for messages.
    pub(super) fn list() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// Tells the format of a file or folder.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Empty`] for a file without a line, [`Error::UnknownFormat`].
    pub fn detect(path: &Path) -> Result<Self, Error> {
        if path.is_dir() { Self::of_folder(path) } else { Self::of_file(path) }
    }

    fn of_folder(path: &Path) -> Result<Self, Error> {
        let names = file_names(path)?;
        let etc = path.join("etc");
        let fileids = |folder: &Path| -> Result<bool, Error> {
            Ok(folder.is_dir() && file_names(folder)?.iter().any(|name| name.ends_with(".fileids")))
        };
        if names.iter().any(|name| name == "wav.scp") {
            Ok(Self::Kaldi)
        } else if fileids(&etc)? || fileids(path)? {
            Ok(Self::Sphinx)
        } else if names.iter().any(|name| is_lhotse_name(name)) {
            Ok(Self::Lhotse)
        } else if names.iter().any(|name| name == "clips")
            && names.iter().any(|name| name.ends_with(".tsv"))
        {
            Ok(Self::CommonVoice)
        } else if has_transcripts(path, 5)? {
            Ok(Self::LibriSpeech)
        } else if is_fsdd_folder(path)? {
            Ok(Self::Fsdd)
        } else {
            let found = format!("a folder of {} files and none of a known layout", names.len());
            Err(Error::UnknownFormat { path: path.to_owned(), found })
        }
    }

    fn of_file(path: &Path) -> Result<Self, Error> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == "wav.scp" {
            return Ok(Self::Kaldi);
        }
        if name.ends_with(".fileids") || name.ends_with(".transcription") {
            return Ok(Self::Sphinx);
        }
        if name.ends_with(".trans.txt") {
            return Ok(Self::LibriSpeech);
        }
        let mut lines = Lines::open(path)?;
        Self::of_lines(&mut lines, path)
    }

    /// Looks at the first objects; lines that are wrong in themselves say nothing.
    pub(super) fn of_lines(lines: &mut Lines<'_>, path: &Path) -> Result<Self, Error> {
        let mut found = None;
        for _ in 0..100 {
            let Some((_, line)) = lines.next().map_err(|error| read_error(path, &error))? else {
                break;
            };
            if line.as_ref().is_ok_and(|line| is_common_voice_header(line)) {
                return Ok(Self::CommonVoice);
            }
            let Ok(fields) = line.and_then(json::object) else {
                found.get_or_insert_with(|| "lines that are not JSON objects".to_owned());
                continue;
            };
            if let Some(format) = Self::of_object(&fields) {
                return Ok(format);
            }
            let keys: Vec<&str> = fields.keys().take(8).map(String::as_str).collect();
            found = Some(format!("objects with the keys {}", keys.join(", ")));
        }
        let path = path.to_owned();
        Err(match found {
            Some(found) => Error::UnknownFormat { path, found },
            None => Error::Empty { path },
        })
    }

    fn of_object(fields: &Map<String, Value>) -> Option<Self> {
        let has = |key: &str| fields.contains_key(key);
        if has("audio_filepath") {
            Some(Self::Nemo)
        } else if has("messages") {
            Some(Self::Chat)
        } else if has("recording_id") || has("recording") || has("sources") || has("supervisions") {
            Some(Self::Lhotse)
        } else if matches!(fields.get("audio"), Some(Value::Object(_))) {
            Some(Self::Sandhi)
        } else if has("audio") {
            Some(Self::Qwen)
        } else if has("wav") && has("txt") {
            Some(Self::Wenet)
        } else if has("target") && (has("source") || has("path")) {
            Some(Self::SlamLlm)
        } else {
            None
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| format!("found {name:?}, expected one of {}", Self::list()))
    }
}

/// Names of the entries of a folder, sorted.
pub(super) fn file_names(folder: &Path) -> Result<Vec<String>, Error> {
    let failed = |error: std::io::Error| read_error(folder, &error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        // A name that is not UTF-8 is no name that a manifest could hold.
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

pub(super) fn is_lhotse_name(name: &str) -> bool {
    let is_jsonl = name.ends_with(".jsonl") || name.ends_with(".jsonl.gz");
    is_jsonl && ["cuts", "supervisions", "recordings"].iter().any(|part| name.contains(part))
}

fn has_transcripts(folder: &Path, depth: usize) -> Result<bool, Error> {
    let names = file_names(folder)?;
    if names.iter().any(|name| name.ends_with(".trans.txt")) {
        return Ok(true);
    }
    for name in names.iter().filter(|_| depth > 0) {
        let inner = folder.join(name);
        if inner.is_dir() && has_transcripts(&inner, depth - 1)? {
            return Ok(true);
        }
    }
    Ok(false)
}
