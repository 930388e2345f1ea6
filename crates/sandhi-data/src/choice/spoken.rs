//! Folders of spoken stories.
//!
//! ```text
//! every side    12_mutual.wav  12_correct.wav  12_incorrect.wav      12_mutual.txt  12_correct.txt  12_incorrect.txt
//! pairs         24_story_right.wav  25_story_wrong.wav               whole stories, even right and odd wrong
//! ```
//!
//! The files lie in the folder, or all in folders of it. The right ending of the first layout is chosen from two, by
//! turns the first and the second, so that neither place is the likely one. In pairs the context is heard in both
//! recordings, and never alone: they have a spoken side only, of the endings.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{ChoiceItem, ChoiceSet, Error, Part, bytes, format::files};
use crate::language::Language;

/// The files below a folder that end so: in it, or where it has none, in its folders.
fn below(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, Error> {
    let is = |file: &PathBuf| file.extension().is_some_and(|e| e == ending);
    let all = files(folder)?;
    let mut found: Vec<PathBuf> = all.iter().filter(|file| is(file)).cloned().collect();
    if found.is_empty() {
        for inner in all.iter().filter(|path| path.is_dir()) {
            found.extend(files(inner)?.into_iter().filter(is));
        }
    }
    Ok(found)
}

/// The recordings below a folder.
pub(super) fn sounds(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = below(folder, "wav")?;
    if found.is_empty() {
        found = below(folder, "flac")?;
    }
    Ok(found)
}

/// What the names of the first layout begin with: everything before `_correct.`.
pub(super) fn stems(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = sounds(folder)?;
    found.extend(below(folder, "txt")?);
    let stem = |file: PathBuf| {
        let name = file.file_stem()?.to_str()?.strip_suffix("_correct")?.to_owned();
        Some(file.with_file_name(name))
    };
    let mut stems: Vec<PathBuf> = found.into_iter().filter_map(stem).collect();
    stems.sort();
    stems.dedup();
    Ok(stems)
}

/// The number that a name begins with, before `_` or its end.
pub(super) fn number(stem: &str) -> Option<u64> {
    stem.split('_').next()?.parse().ok()
}

pub(super) fn cross_modal(folder: &Path) -> Result<ChoiceSet, Error> {
    let mut items = Vec::new();
    for (i, stem) in stems(folder)?.into_iter().enumerate() {
        let name = stem.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file =
            |part: &str, ending: &str| stem.with_file_name(format!("{name}_{part}.{ending}"));
        let part = |part: &str| -> Result<Part, Error> {
            let sound = ["wav", "flac"].map(|ending| file(part, ending));
            let audio = sound.into_iter().find(|path| path.is_file());
            let path = file(part, "txt");
            let text = match path.is_file() {
                true => Some(text(&path)?),
                false => None,
            };
            if audio.is_none() && text.is_none() {
                let expected = "the text of a story's part, or its recording in .wav";
                return Err(Error::Missing { path, expected });
            }
            Ok(Part { text, audio })
        };
        let mut endings = vec![part("correct")?, part("incorrect")?];
        let right = i % 2;
        if right == 1 {
            endings.reverse();
        }
        items.push(ChoiceItem { endings, right, ..item(id(folder, &stem), part("mutual")?) });
    }
    Ok(ChoiceSet { items, shots: BTreeMap::new() })
}

pub(super) fn pairs(folder: &Path) -> Result<ChoiceSet, Error> {
    let mut numbered = Vec::new();
    for file in sounds(folder)? {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let Some(number) = number(&stem) else {
            let expected = "a name that begins with a number, as `24_story.wav`";
            return Err(Error::Missing { path: file, expected });
        };
        numbered.push((file.parent().map(Path::to_owned), number, file));
    }
    numbered.sort();
    let mut items = Vec::new();
    for pair in numbered.chunks(2) {
        let [(folder_of, even, right), (_, odd, wrong)] = pair else {
            let expected = "another one that belongs to it: stories come in pairs";
            return Err(Error::Missing { path: pair[0].2.clone(), expected });
        };
        if even % 2 != 0 || *odd != even + 1 || folder_of.as_deref() != wrong.parent() {
            let expected = "pairs of an even number (the right story) and the next one (the wrong)";
            return Err(Error::Missing { path: right.clone(), expected });
        }
        let recorded = |file: &PathBuf| Part { text: None, audio: Some(file.clone()) };
        let mut endings = vec![recorded(right), recorded(wrong)];
        let place = items.len() % 2;
        if place == 1 {
            endings.reverse();
        }
        let item = item(id(folder, right), Part::default());
        items.push(ChoiceItem { endings, right: place, ..item });
    }
    Ok(ChoiceSet { items, shots: BTreeMap::new() })
}

/// An item without endings.
fn item(id: String, context: Part) -> ChoiceItem {
    ChoiceItem {
        id,
        preface: String::new(),
        context,
        cue: String::new(),
        endings: Vec::new(),
        right: 0,
        group: None,
        language: Language::English,
    }
}

/// A name within the folder.
fn id(folder: &Path, path: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).with_extension("").display().to_string()
}

/// The text of a file, in one line.
fn text(path: &Path) -> Result<String, Error> {
    let file = path.display().to_string();
    let wrong = |found: &str| Error::malformed(&file, 1, found, "a text in UTF-8");
    let text = String::from_utf8(bytes(path)?).map_err(|_| wrong("bytes that are not UTF-8"))?;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() { Err(wrong("nothing")) } else { Ok(text) }
}
