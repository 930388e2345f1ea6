//! The readers, one file per format.

mod common_voice;
mod fsdd;
mod jsonl;
mod kaldi;
mod lhotse;
mod librispeech;
mod sphinx;

use std::{collections::BTreeSet, path::Path};

use super::{
    Error, Format, Import,
    collect::{Collector, Entry},
    error::Problem,
    json,
    lines::{Lines, read_error},
};
pub(super) use common_voice::is_header as is_common_voice_header;
pub(super) use fsdd::is_folder as is_fsdd_folder;

/// Reads a manifest or a data folder. `format` is told from the content when it is `None`.
///
/// Relative paths start at the manifest's folder, or else at the current one. Lines that cannot
/// be used are listed in [`Import::rejected`].
///
/// # Errors
///
/// What makes the whole unusable: [`Error::Read`], [`Error::Empty`], [`Error::UnknownFormat`],
/// [`Error::MissingFile`].
pub fn import(path: &Path, format: Option<Format>) -> Result<Import, Error> {
    if !path.exists() {
        let reason = "no such file or folder".to_owned();
        return Err(Error::Read { path: path.to_owned(), reason });
    }
    let format = match format {
        Some(format) => format,
        None => Format::detect(path)?,
    };
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let mut collector = Collector::new(format, folder, true);
    match format {
        Format::Lhotse => lhotse::folder(path, &mut collector)?,
        Format::Kaldi => kaldi::folder(path, &mut collector)?,
        Format::LibriSpeech => librispeech::tree(path, &mut collector)?,
        Format::Sphinx => sphinx::folder(path, &mut collector)?,
        Format::Fsdd => fsdd::folder(path, &mut collector)?,
        Format::CommonVoice if path.is_dir() => return Err(common_voice::folder(path)),
        _ => jsonl(path, &mut Lines::open(path)?, format, &mut collector)?,
    }
    collector.finish(path)
}

/// As [`import`], keeping the utterances of `split` only, all of them when it is `None`.
///
/// # Errors
///
/// As [`import`], and [`Error::NoSplit`] when nothing is left.
pub fn import_split(path: &Path, split: Option<&str>) -> Result<Import, Error> {
    let mut import = import(path, None)?;
    let Some(split) = split else { return Ok(import) };
    let splits: BTreeSet<String> =
        import.utterances.iter().filter_map(|u| u.split.clone()).collect();
    import.utterances.retain(|u| u.split.as_deref() == Some(split));
    if import.utterances.is_empty() {
        let found = splits.into_iter().collect::<Vec<_>>().join(", ");
        let found = if found.is_empty() { "none".to_owned() } else { found };
        return Err(Error::NoSplit { path: path.to_owned(), split: split.to_owned(), found });
    }
    Ok(import)
}

/// Reads a manifest of one file from memory; sound files need not exist.
///
/// Lhotse's must be cuts. Formats of several files are refused.
///
/// # Errors
///
/// As [`import`].
pub fn import_bytes(bytes: &[u8], name: &Path, format: Option<Format>) -> Result<Import, Error> {
    let open = || Lines::of_bytes(bytes).map_err(|error| read_error(name, &error));
    let format = match format {
        Some(format) => format,
        None => Format::of_lines(&mut open()?, name)?,
    };
    let mut collector = Collector::new(format, name.parent().unwrap_or(Path::new("")), false);
    jsonl(name, &mut open()?, format, &mut collector)?;
    collector.finish(name)
}

/// Reads the tables of a Kaldi folder from memory; sound files need not exist.
pub(crate) fn import_kaldi_tables(tables: &[(&str, &[u8])]) -> Result<Import, Error> {
    let folder = Path::new("");
    let mut collector = Collector::new(Format::Kaldi, folder, false);
    let open = |file: &Path| {
        let table = tables.iter().find(|(name, _)| Path::new(name) == file);
        let lines = table.map(|(_, bytes)| Lines::of_bytes(bytes)).transpose();
        lines.map_err(|error| read_error(file, &error))
    };
    kaldi::tables(folder, &open, &mut collector)?;
    collector.finish(folder)
}

/// One line of a Sphinx transcription: id and words.
pub(crate) fn sphinx_transcript(line: &str) -> Option<(String, String)> {
    sphinx::transcript(line).ok()
}

/// Digit, speaker and take of a file of the Free Spoken Digit Dataset.
pub(crate) fn fsdd_recording(stem: &str) -> Option<(&'static str, &str, u32)> {
    fsdd::recording(stem).ok().map(|found| (found.text, found.speaker, found.take))
}

fn jsonl(
    path: &Path,
    lines: &mut Lines<'_>,
    format: Format,
    collector: &mut Collector,
) -> Result<(), Error> {
    let read = match format {
        Format::Sandhi => jsonl::sandhi,
        Format::Nemo => jsonl::nemo,
        Format::SlamLlm => jsonl::slam_llm,
        Format::Qwen => jsonl::qwen,
        Format::Wenet => jsonl::wenet,
        Format::Chat => jsonl::chat,
        Format::Lhotse => return lhotse::cuts(path, lines, collector),
        Format::CommonVoice => return common_voice::table(path, lines, collector),
        Format::Kaldi | Format::LibriSpeech | Format::Sphinx | Format::Fsdd => {
            let missing = "its folder, not one file of it".to_owned();
            return Err(Error::MissingFile { path: path.to_owned(), format, missing });
        }
    };
    each_line(path, lines, |number, line| {
        collector.add(path, number, line.and_then(json::object).and_then(read));
    })
}

fn each_line(
    path: &Path,
    lines: &mut Lines<'_>,
    mut with: impl FnMut(usize, Result<&str, Problem>),
) -> Result<(), Error> {
    while let Some((number, line)) = lines.next().map_err(|error| read_error(path, &error))? {
        with(number, line);
    }
    Ok(())
}

type Read = Result<Entry, Problem>;
