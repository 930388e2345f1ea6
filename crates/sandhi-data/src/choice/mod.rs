//! Choice items: a context, endings, and which of them is right.
//!
//! ```text
//! HellaSwag JSONL, StoryCloze CSV, MMLU CSV ─┐
//! spoken StoryCloze folders ─────────────────┼─ read ─ ChoiceSet ─┬─ items: context ─┬─ ending, right
//! our JSONL, of recordings or texts ─────────┘                    │                  └─ ending
//!                                                                 └─ shots: solved items, by group
//! ```
//!
//! Context and endings are each written, recorded or both ([`Part`]); what a side of an item can be made of follows from
//! that. Public sets are read as they are published; [`Format`] says what each looks like.

mod error;
mod format;
mod json;
mod mmlu;
mod spoken;
mod story_cloze;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

pub use self::{error::Error, format::Format};
use crate::language::Language;

/// A piece of an item: written, recorded, or both. A context that is neither is heard in the recordings of the endings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// What it says.
    pub text: Option<String>,
    /// A recording of it.
    pub audio: Option<PathBuf>,
}

impl Part {
    /// A part that is written.
    pub fn written(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), audio: None }
    }
}

/// A context with endings, one of which is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceItem {
    /// Distinct within a set.
    pub id: String,
    /// Written before everything else, shots included: `The following are …`. Empty for most.
    pub preface: String,
    /// What goes before the endings.
    pub context: Part,
    /// Written between context and ending of a document, whatever side they are on: `Answer:`. Empty for most. In a chat
    /// the turns part them, and only solved items before the question have it.
    pub cue: String,
    /// What is chosen from: two at least.
    pub endings: Vec<Part>,
    /// Index of the right ending.
    pub right: usize,
    /// What the item is counted under besides the whole: a subject, a level.
    pub group: Option<String>,
    /// The language of all of it.
    pub language: Language,
}

/// What a file or folder holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChoiceSet {
    /// What is measured; at least one.
    pub items: Vec<ChoiceItem>,
    /// Solved items of another split that may be shown before one of their group; empty where the set has none.
    pub shots: BTreeMap<String, Vec<ChoiceItem>>,
}

/// What a set is called: `hellaswag_val` of `data/hellaswag_val.jsonl`, a folder by its whole name.
pub fn name(path: &Path) -> String {
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// Refuses sets of one name, by which their numbers are kept.
///
/// # Errors
///
/// [`Error::SameName`].
pub fn check_names(paths: &[PathBuf]) -> Result<(), Error> {
    let mut named: HashMap<String, &PathBuf> = HashMap::new();
    for path in paths {
        let name = name(path);
        if let Some(first) = named.insert(name.clone(), path) {
            return Err(Error::SameName { path: path.clone(), first: first.clone(), name });
        }
    }
    Ok(())
}

/// Reads a file or folder in the given format, or in the one that it has.
///
/// # Errors
///
/// [`Error`], with the file, the line and the field.
pub fn read(path: &Path, format: Option<Format>) -> Result<ChoiceSet, Error> {
    let format = format.map_or_else(|| Format::detect(path), Ok)?;
    let set = match format {
        Format::Mmlu => mmlu::read(path)?,
        Format::SpokenStoryCloze => spoken::cross_modal(path)?,
        Format::SpokenPairs => spoken::pairs(path)?,
        Format::Sandhi | Format::HellaSwag | Format::StoryCloze => {
            let file = format::index(path)?;
            let mut set = decode(&bytes(&file)?, &file.display().to_string(), format)?;
            // Recordings lie where the file that names them does.
            let folder = file.parent().unwrap_or(Path::new(""));
            for item in &mut set.items {
                for part in std::iter::once(&mut item.context).chain(&mut item.endings) {
                    if let Some(audio) = &mut part.audio {
                        *audio = folder.join(&*audio);
                    }
                }
            }
            set
        }
    };
    if set.items.is_empty() {
        return Err(Error::Empty { path: path.to_owned() });
    }
    let mut ids = std::collections::HashSet::new();
    match set.items.iter().find(|item| !ids.insert(item.id.as_str())) {
        Some(item) => Err(Error::Repeated { path: path.to_owned(), id: item.id.clone() }),
        None => Ok(set),
    }
}

/// Reads the bytes of a file of items; `name` stands for it in messages. Paths of recordings stay as they are written.
///
/// # Errors
///
/// As [`read`]; [`Error::Unknown`] for a format of folders.
pub fn decode(bytes: &[u8], name: &str, format: Format) -> Result<ChoiceSet, Error> {
    let items = match format {
        Format::Sandhi => json::sandhi(bytes, name)?,
        Format::HellaSwag => json::hella_swag(bytes, name)?,
        Format::StoryCloze => story_cloze::parse(bytes, name)?,
        Format::Mmlu => mmlu::parse(bytes, name)?,
        Format::SpokenStoryCloze | Format::SpokenPairs => {
            let found = format!("a file, and {format} is a folder");
            return Err(Error::Unknown { path: name.into(), found });
        }
    };
    Ok(ChoiceSet { items, shots: BTreeMap::new() })
}

/// The bytes of a file, without UTF-8's mark.
fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let mut bytes = fs::read(path).map_err(failed)?;
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
