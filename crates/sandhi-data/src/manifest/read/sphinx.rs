//! CMU Sphinx training folders, such as AN4. <https://cmusphinx.github.io/wiki/tutorialam>
//!
//! ```text
//! etc/an4_train.fileids         an4_clstk/fash/an251-fash-b      -> wav/an4_clstk/fash/….flac
//! etc/an4_train.transcription   <s> YES </s> (an251-fash-b)      -> "YES", split "train"
//! ```

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::each_line;
use crate::manifest::{
    Error, Format, Utterance,
    collect::{Collector, Entry},
    error::{Kind, Problem, quoted},
    format::file_names,
    lines::Lines,
};

const ENDINGS: [&str; 5] = ["flac", "wav", "WAV", "mp3", "ogg"];

/// Reads a training folder, its `etc`, or one `.fileids` (or `.transcription`) of it.
pub(super) fn folder(path: &Path, collector: &mut Collector) -> Result<(), Error> {
    let mut lists = Vec::new();
    if path.is_dir() {
        let etc = Some(path.join("etc")).filter(|etc| etc.is_dir()).unwrap_or(path.to_owned());
        let names = file_names(&etc)?;
        lists.extend(names.iter().filter(|n| n.ends_with(".fileids")).map(|name| etc.join(name)));
    } else {
        lists.push(path.with_extension("fileids"));
    }
    let missing = |missing: String| Error::MissingFile {
        path: path.to_owned(),
        format: Format::Sphinx,
        missing,
    };
    if lists.is_empty() {
        return Err(missing("files named etc/*.fileids".to_owned()));
    }
    for list in lists {
        let transcription = list.with_extension("transcription");
        for file in [&list, &transcription] {
            if !file.is_file() {
                return Err(missing(format!("the file {}", file.display())));
            }
        }
        part(&list, &transcription, collector)?;
    }
    Ok(())
}

/// One list of files with its transcripts.
fn part(list: &Path, transcription: &Path, collector: &mut Collector) -> Result<(), Error> {
    let root = root(list);
    let stem = list.file_stem().unwrap_or_default().to_string_lossy();
    let split = stem.rsplit_once('_').map(|(_, split)| split.to_owned());

    // By id: the line and the words, and whether a file claimed them.
    let mut texts: HashMap<String, (usize, String, bool)> = HashMap::new();
    each_line(transcription, &mut Lines::open(transcription)?, |number, line| {
        let read = line.and_then(transcript).and_then(|(id, text)| match texts.get(&id) {
            Some((other, ..)) => {
                let expected = format!("an id other than that of line {other}");
                Err(Problem::new(Kind::DuplicateId, "id", quoted(&id), expected))
            }
            None => Ok((id, text)),
        });
        match read {
            Ok((id, text)) => drop(texts.insert(id, (number, text, false))),
            Err(problem) => collector.add(transcription, number, Err(problem)),
        }
    })?;

    each_line(list, &mut Lines::open(list)?, |number, line| {
        let entry = line.and_then(|line| {
            let file_id = line.trim();
            let known = suffixes(file_id).find(|id| texts.contains_key(*id));
            let Some((_, text, used)) = known.and_then(|id| texts.get_mut(id)) else {
                let field = format!("transcript of {}", quoted(file_id));
                let name = transcription.file_name().unwrap_or_default().to_string_lossy();
                return Err(Problem::missing(field, format!("a line in {name}")));
            };
            *used = true;
            let bare = root.join("wav").join(file_id);
            let sound =
                ENDINGS.iter().map(|ending| PathBuf::from(format!("{}.{ending}", bare.display())));
            let sound = sound.into_iter().find(|path| path.is_file()).ok_or_else(|| {
                let found = quoted(&format!("{}.wav", bare.display()));
                Problem::new(
                    Kind::NoFile,
                    "path",
                    found,
                    "an existing file (.wav, .flac, .mp3 or .ogg)",
                )
            })?;
            let mut utterance = Utterance::new(file_id, sound, text.clone());
            utterance.split = split.clone();
            utterance.speaker =
                file_id.rsplit('/').nth(1).filter(|name| !name.is_empty()).map(str::to_owned);
            Ok(Entry::from(utterance))
        });
        collector.add(list, number, entry);
    })?;

    let unused = texts.into_iter().filter(|(_, (_, _, used))| !used);
    let mut unused: Vec<_> = unused.map(|(id, (number, ..))| (number, id)).collect();
    unused.sort();
    for (number, id) in unused {
        let name = list.file_name().unwrap_or_default().to_string_lossy();
        let problem = Problem::new(Kind::Mismatch, "id", quoted(&id), format!("an id of {name}"));
        collector.add(transcription, number, Err(problem));
    }
    Ok(())
}

/// The training folder: the one that holds `etc`, or the list's own.
fn root(list: &Path) -> PathBuf {
    let folder = list.parent().unwrap_or(Path::new(""));
    // Without a parent in the path as given, the folder is reached from the inside.
    match folder.file_name() {
        Some(name) if name == "etc" => folder.parent().unwrap_or(Path::new("")).to_owned(),
        Some(_) => folder.to_owned(),
        None => folder.join(if folder.join("wav").is_dir() { "." } else { ".." }),
    }
}

/// `a/b/c`, `b/c`, `c`: transcripts may name a file by any of these.
fn suffixes(file_id: &str) -> impl Iterator<Item = &str> {
    let starts = file_id.match_indices('/').map(|(at, _)| at + 1);
    std::iter::once(0).chain(starts).map(|start| &file_id[start..])
}

/// `<s> WORDS </s> (id)`: fillers in angle brackets or `++` and marks of pronunciation variants
/// (`READ(2)`) are not words.
pub(super) fn transcript(line: &str) -> Result<(String, String), Problem> {
    let malformed = || {
        Problem::new(Kind::BadValue, "transcript", quoted(line), "words and then an id in brackets")
    };
    let (words, id) = line.trim().rsplit_once('(').ok_or_else(malformed)?;
    let id =
        id.strip_suffix(')').map(str::trim).filter(|id| !id.is_empty()).ok_or_else(malformed)?;
    let is_filler = |word: &&str| {
        let enclosed = |mark: (&str, &str)| {
            word.len() >= 2 && word.starts_with(mark.0) && word.ends_with(mark.1)
        };
        enclosed(("<", ">")) || enclosed(("++", "++")) || enclosed(("[", "]"))
    };
    let words = words.split_whitespace().filter(|word| !is_filler(word)).map(without_variant);
    Ok((id.to_owned(), words.collect::<Vec<_>>().join(" ")))
}

fn without_variant(word: &str) -> &str {
    let variant = word.strip_suffix(')').and_then(|word| word.rsplit_once('('));
    match variant {
        Some((word, number)) if !word.is_empty() && number.parse::<u32>().is_ok() => word,
        _ => word,
    }
}
