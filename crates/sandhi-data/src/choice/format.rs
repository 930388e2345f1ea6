//! Which set is it: told by the files of a folder, the header of a table or the keys of the first object.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Error, bytes, mmlu, spoken, story_cloze};

/// The sets that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Our JSONL, an item a line: `{"id", "context"?, "audio"?, "endings", "right", "ending_audio"?, "preface"?, "cue"?,
    /// "group"?, "language"?}`; recordings are named relative to the file.
    Sandhi,
    /// HellaSwag (Zellers et al., 2019): JSONL, `{"ctx", "endings", "label", "activity_label"?, "split_type"?}`; `context`
    /// stands for `ctx` in some copies. Marks such as `[step]` are left out, and so is the activity: harnesses that put it
    /// before the context score another text.
    HellaSwag,
    /// StoryCloze (Mostafazadeh et al., 2016): CSV with a header, `InputSentence1` to `4`, two endings
    /// `RandomFifthSentenceQuiz1` and `2`, and `AnswerRightEnding`, 1 or 2.
    StoryCloze,
    /// MMLU (Hendrycks et al., 2021): CSV without a header, question, four choices and the letter of the right one;
    /// a file, or a folder of `*_test.csv` with the shots in `*_dev.csv`, beside each other or in `test/` and `dev/`.
    Mmlu,
    /// Spoken StoryCloze for every side, a folder: `7_mutual.wav`, `7_correct.wav`, `7_incorrect.wav`, and the same in
    /// `.txt`. Either kind may be absent for all.
    SpokenStoryCloze,
    /// Spoken StoryCloze as Hassid et al. (2023) publish it, a folder: `0_….wav` the whole story with its right ending,
    /// `1_….wav` with the wrong one, and so on in pairs.
    SpokenPairs,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 6] = [
        Self::Sandhi,
        Self::HellaSwag,
        Self::StoryCloze,
        Self::Mmlu,
        Self::SpokenStoryCloze,
        Self::SpokenPairs,
    ];

    /// The name on the command line and in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sandhi => "sandhi",
            Self::HellaSwag => "hella-swag",
            Self::StoryCloze => "story-cloze",
            Self::Mmlu => "mmlu",
            Self::SpokenStoryCloze => "spoken-story-cloze",
            Self::SpokenPairs => "spoken-pairs",
        }
    }

    /// Tells the format of a file or folder.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Unknown`].
    pub fn detect(path: &Path) -> Result<Self, Error> {
        let unknown = |found: String| Error::Unknown { path: path.to_owned(), found };
        if path.is_dir() {
            if !mmlu::tests(path)?.is_empty() {
                return Ok(Self::Mmlu);
            }
            let sounds = spoken::sounds(path)?;
            let has = |is: fn(&str) -> bool| {
                sounds.iter().filter_map(|file| file.file_stem()?.to_str()).any(is)
            };
            if has(|stem| stem.ends_with("_correct")) || !spoken::stems(path)?.is_empty() {
                return Ok(Self::SpokenStoryCloze);
            }
            return match index(path) {
                Ok(file) => Self::detect(&file),
                Err(_) if has(|stem| spoken::number(stem).is_some()) => Ok(Self::SpokenPairs),
                Err(error) => Err(error),
            };
        }
        let bytes = bytes(path)?;
        let line = bytes.split(|&b| b == b'\n').find(|line| !line.trim_ascii().is_empty());
        let Some(line) = line else { return Err(Error::Empty { path: path.to_owned() }) };
        if path.extension().is_some_and(|e| e == "csv") {
            return if story_cloze::is_header(line) {
                Ok(Self::StoryCloze)
            } else if mmlu::is_row(line) {
                Ok(Self::Mmlu)
            } else {
                Err(unknown("a table without a known header or six columns".to_owned()))
            };
        }
        match serde_json::from_slice(line) {
            Ok(serde_json::Value::Object(fields)) => {
                let has = |key: &str| fields.contains_key(key);
                if has("endings") && has("right") {
                    Ok(Self::Sandhi)
                } else if has("endings") && has("label") {
                    Ok(Self::HellaSwag)
                } else {
                    let keys: Vec<&str> = fields.keys().take(8).map(String::as_str).collect();
                    Err(unknown(format!("objects with the keys {}", keys.join(", "))))
                }
            }
            _ => Err(unknown("lines that are not JSON objects".to_owned())),
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
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            format!("found {name:?}, expected one of {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

/// The files of a folder in order.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Io { path: folder.to_owned(), source };
    let entries = fs::read_dir(folder).map_err(failed)?;
    let files: Result<Vec<PathBuf>, _> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut files = files.map_err(failed)?;
    files.sort();
    Ok(files)
}

/// The file itself, or the only `.jsonl` or `.csv` of a folder.
pub(super) fn index(path: &Path) -> Result<PathBuf, Error> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let mut found = files(path)?;
    found.retain(|file| file.extension().is_some_and(|e| e == "jsonl" || e == "csv"));
    match found.len() {
        1 => Ok(found.remove(0)),
        n => Err(Error::Unknown {
            path: path.to_owned(),
            found: format!("a folder with {n} files of items and no known layout"),
        }),
    }
}
