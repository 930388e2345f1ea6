//! Trees as LibriSpeech has them: transcripts beside the sound. <https://www.openslr.org/12>
//!
//! ```text
//! train-clean-5/1088/134315/1088-134315.trans.txt      1088-134315-0000 AS YOU KNOW
//!                           1088-134315-0000.flac
//! ```

use std::path::{Path, PathBuf};

use super::each_line;
use crate::manifest::{
    Error, Format, Utterance,
    collect::{Collector, Entry},
    error::{Kind, Problem, quoted},
    format::file_names,
    lines::Lines,
};

const ENDINGS: [&str; 4] = ["flac", "wav", "mp3", "ogg"];

pub(super) fn tree(path: &Path, collector: &mut Collector) -> Result<(), Error> {
    let mut files = Vec::new();
    if path.is_dir() {
        transcripts(path, &mut files)?;
    } else {
        files.push(path.to_owned());
    }
    if files.is_empty() {
        let missing = "files named *.trans.txt".to_owned();
        let format = Format::LibriSpeech;
        return Err(Error::MissingFile { path: path.to_owned(), format, missing });
    }
    for file in files {
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        let split = split(&folder);
        each_line(&file, &mut Lines::open(&file)?, |number, line| {
            let entry = line.and_then(|line| {
                let line = line.trim();
                let (id, text) = line.split_once([' ', '\t']).unwrap_or((line, ""));
                let sound = ENDINGS.iter().map(|ending| folder.join(format!("{id}.{ending}")));
                let sound = sound.into_iter().find(|path| path.is_file()).ok_or_else(|| {
                    let found = quoted(&folder.join(format!("{id}.flac")).to_string_lossy());
                    let expected = "an existing file (.flac, .wav, .mp3 or .ogg)";
                    Problem::new(Kind::NoFile, "path", found, expected)
                })?;
                let mut utterance = Utterance::new(id, sound, text.trim());
                utterance.speaker = id.split_once('-').map(|(speaker, _)| speaker.to_owned());
                utterance.split = split.clone();
                Ok(Entry::from(utterance))
            });
            collector.add(&file, number, entry);
        })?;
    }
    Ok(())
}

fn transcripts(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    for name in file_names(folder)? {
        let inner = folder.join(&name);
        if name.ends_with(".trans.txt") && inner.is_file() {
            files.push(inner);
        } else if inner.is_dir() && !inner.is_symlink() {
            transcripts(&inner, files)?;
        }
    }
    Ok(())
}

/// The part of the corpus: the folder above speaker and chapter, by its known names.
fn split(folder: &Path) -> Option<String> {
    let names = folder.ancestors().take(3).filter_map(|folder| folder.file_name()?.to_str());
    let parts = ["train", "dev", "test"];
    let is_part = |name: &&str| parts.iter().any(|part| name.split('-').next() == Some(part));
    names.into_iter().find(is_part).map(str::to_owned)
}
