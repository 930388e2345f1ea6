//! Kaldi data folders. <https://kaldi-asr.org/doc/data_prep.html>
//!
//! ```text
//! wav.scp   rec1 wav/rec1.flac        text      rec1-a THE FIRST WORDS
//! segments  rec1-a rec1 0.00 2.35     utt2spk   rec1-a anna        (and utt2lang, utt2dur)
//! ```
//!
//! Without `segments`, recordings are utterances. Commands in `wav.scp` (`sox … |`) are refused:
//! reading a data set runs no programs.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::each_line;
use crate::manifest::{
    AudioRef, Error, Format, Utterance,
    collect::{Collector, Entry},
    error::{Kind, Problem, quoted},
    json::{check_duration, check_start},
    language,
    lines::Lines,
};

/// Lines of a table by their first column, in order.
#[derive(Default)]
struct Table {
    file: PathBuf,
    exists: bool,
    rows: Vec<(String, usize, String)>,
    index: HashMap<String, usize>,
}

impl Table {
    /// Reads a table; a table that does not exist is empty.
    fn read(name: &str, open: &Open<'_>, collector: &mut Collector) -> Result<Self, Error> {
        let file = collector.folder().join(name);
        let mut table = Self { file: file.clone(), ..Self::default() };
        let Some(mut lines) = open(&file)? else { return Ok(table) };
        table.exists = true;
        each_line(&file, &mut lines, |number, line| {
            let row = line.and_then(|line| table.row(line));
            match row {
                Ok((key, value)) => {
                    table.index.insert(key.clone(), table.rows.len());
                    table.rows.push((key, number, value));
                }
                Err(problem) => collector.add(&file, number, Err(problem)),
            }
        })?;
        Ok(table)
    }

    fn row(&self, line: &str) -> Result<(String, String), Problem> {
        let line = line.trim();
        let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        if let Some(&at) = self.index.get(key) {
            let expected = format!("an id other than that of line {}", self.rows[at].1);
            return Err(Problem::new(Kind::DuplicateId, "id", quoted(key), expected));
        }
        Ok((key.to_owned(), value.trim().to_owned()))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.index.get(key).map(|&at| self.rows[at].2.as_str())
    }
}

/// How a file is opened; `None` when it does not exist.
type Open<'a> = dyn Fn(&Path) -> Result<Option<Lines<'a>>, Error> + 'a;

/// Reads a folder, or the one that holds the `wav.scp` named.
pub(super) fn folder(path: &Path, collector: &mut Collector) -> Result<(), Error> {
    let open = |file: &Path| file.is_file().then(|| Lines::open(file)).transpose();
    tables(path, &open, collector)
}

/// Reads the tables of a folder.
pub(super) fn tables(path: &Path, open: &Open<'_>, collector: &mut Collector) -> Result<(), Error> {
    let wav = Table::read("wav.scp", open, collector)?;
    let text = Table::read("text", open, collector)?;
    for table in [&wav, &text] {
        if !table.exists {
            let name = table.file.file_name().unwrap_or_default().to_string_lossy();
            let missing = format!("the file {name}");
            return Err(Error::MissingFile {
                path: path.to_owned(),
                format: Format::Kaldi,
                missing,
            });
        }
    }
    let segments = Table::read("segments", open, collector)?;
    let speakers = Table::read("utt2spk", open, collector)?;
    let languages = Table::read("utt2lang", open, collector)?;
    let durations = Table::read("utt2dur", open, collector)?;

    let is_segmented = segments.exists;
    let units = if is_segmented { &segments } else { &wav };
    for (id, line, value) in &units.rows {
        let audio = if is_segmented {
            segment(value, &wav)
        } else {
            sound_file(value).map(AudioRef::whole)
        };
        let utterance = audio.and_then(|mut audio| {
            let words = text.get(id).ok_or_else(|| {
                Problem::missing(format!("text of {}", quoted(id)), "a line in the file text")
            })?;
            if let Some(duration) = durations.get(id).filter(|_| audio.duration_s.is_none()) {
                let seconds = duration.parse().unwrap_or(f64::NAN);
                audio.duration_s = Some(check_duration("utt2dur".into(), seconds)?);
            }
            let mut utterance = Utterance::new(id.clone(), "", words);
            utterance.audio = audio;
            utterance.speaker = speakers.get(id).map(str::to_owned);
            utterance.language = languages.get(id).map(language::code);
            Ok(Entry::from(utterance))
        });
        collector.add(&units.file, *line, utterance);
    }
    // A transcript without sound is as much a mistake as a sound without transcript.
    for (id, line, _) in &text.rows {
        if !units.index.contains_key(id) {
            let expected =
                format!("an id of {}", if is_segmented { "segments" } else { "wav.scp" });
            let problem = Problem::new(Kind::Mismatch, "id", quoted(id), expected);
            collector.add(&text.file, *line, Err(problem));
        }
    }
    Ok(())
}

/// `recording start end`, the end `-1` meaning that of the file.
fn segment(value: &str, wav: &Table) -> Result<AudioRef, Problem> {
    let expected = "RECORDING START END";
    let columns: Vec<&str> = value.split_whitespace().collect();
    let [recording, start, end] = columns[..] else {
        return Err(Problem::new(Kind::BadValue, "segment", quoted(value), expected));
    };
    let seconds = |text: &str| {
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        number.ok_or_else(|| Problem::new(Kind::BadValue, "segment", quoted(text), "seconds"))
    };
    let start_s = check_start("start".into(), seconds(start)?)?;
    let end_s = seconds(end)?;
    let duration_s = if end_s == -1.0 {
        None
    } else {
        // Differences of decimal fractions: nothing below a microsecond is meant.
        let duration_s = ((end_s - start_s) * 1e6).round() / 1e6;
        Some(check_duration("end - start".into(), duration_s)?)
    };
    let file = wav.get(recording).ok_or_else(|| {
        Problem::new(Kind::Mismatch, "recording", quoted(recording), "an id of wav.scp")
    })?;
    Ok(AudioRef { path: sound_file(file)?, start_s, duration_s, channel: None })
}

fn sound_file(value: &str) -> Result<PathBuf, Problem> {
    let unsupported = |what: &str| {
        let found = format!("{what} {}", quoted(value));
        let expected = "a sound file (convert it once; reading a data set runs no programs)";
        Err(Problem::new(Kind::Unsupported, "wav.scp", found, expected))
    };
    if value.is_empty() {
        return Err(Problem::missing("wav.scp", "a sound file"));
    }
    if value.ends_with('|') || value.starts_with('|') {
        return unsupported("the command");
    }
    if value == "-" {
        return unsupported("standard input");
    }
    match value.rsplit_once(':') {
        Some((_, offset)) if offset.parse::<u64>().is_ok() => unsupported("the archive position"),
        _ => Ok(PathBuf::from(value)),
    }
}
