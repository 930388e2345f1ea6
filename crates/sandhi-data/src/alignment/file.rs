//! Word times of many utterances, whatever the format of the file.
//!
//! ```text
//! a.TextGrid, b.TextGrid, … ┐
//! words.ctm, cuts.jsonl     ├─ read ─ utterance, its words from its own start on
//! subtitles.srt             ┘
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Alignment, Error, Source, ctm, error::Text, jsonl, lhotse, subtitles, textgrid};

/// What word times can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Praat's TextGrid, a file an utterance.
    TextGrid,
    /// NIST's CTM, a file for all.
    Ctm,
    /// Lhotse's supervisions, a file for all.
    Lhotse,
    /// Words as JSON lines, a file for all.
    Jsonl,
    /// SubRip, a file an utterance.
    Srt,
    /// WebVTT, a file an utterance.
    Vtt,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::TextGrid, Self::Ctm, Self::Lhotse, Self::Jsonl, Self::Srt, Self::Vtt];

    /// Its name in options.
    pub fn name(self) -> &'static str {
        match self {
            Self::TextGrid => "textgrid",
            Self::Ctm => "ctm",
            Self::Lhotse => "lhotse",
            Self::Jsonl => "jsonl",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
        }
    }

    /// How names of its files end, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::TextGrid => "TextGrid",
            Self::Ctm => "ctm",
            Self::Lhotse | Self::Jsonl => "jsonl",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
        }
    }

    /// Whether every utterance has a file of its own.
    pub fn is_one_file_an_utterance(self) -> bool {
        matches!(self, Self::TextGrid | Self::Srt | Self::Vtt)
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("found `{name}`, expected one of {names}")
        })
    }
}

/// The words of an utterance, from its start on.
pub type Words = (String, Vec<Alignment>);

/// Reads the words of a file, or of the files of a folder, in order. A file of one utterance names it; the cues of
/// subtitles count as words. Of a TextGrid the tier `words` or `word` is read, or else the first of intervals.
///
/// # Errors
///
/// [`Error::Io`], [`Error::Encoding`], [`Error::Malformed`] with the line, [`Error::Unknown`] for a file of another
/// kind, or a folder without one that is known.
pub fn read(path: &Path, source: &Source) -> Result<Vec<Words>, Error> {
    if !path.is_dir() {
        return read_file(path, source);
    }
    let failed = |source| Error::Io { file: path.display().to_string(), action: "read", source };
    let entries = fs::read_dir(path).map_err(failed)?;
    let files: Result<Vec<PathBuf>, _> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut files = files.map_err(failed)?;
    files.retain(|file| file.is_file() && ending(file).is_some());
    files.sort();
    if files.is_empty() {
        return Err(Error::Unknown {
            file: path.display().to_string(),
            found: "a folder without any",
        });
    }
    let mut all = Vec::new();
    for file in files {
        all.extend(read_file(&file, source)?);
    }
    Ok(all)
}

/// How a known file ends; a packed one by what is packed.
fn ending(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?.to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let known = ["textgrid", "ctm", "jsonl", "srt", "vtt"];
    known.into_iter().find(|known| name.strip_suffix(known).is_some_and(|rest| rest.ends_with('.')))
}

fn read_file(path: &Path, source: &Source) -> Result<Vec<Words>, Error> {
    let stem = || {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned()
    };
    match ending(path) {
        Some("textgrid") => {
            let grid = textgrid::TextGrid::read(path)?;
            let named = grid.tier("words").or_else(|| grid.tier("word"));
            let is_intervals =
                |tier: &&textgrid::Tier| matches!(tier.marks, textgrid::Marks::Intervals(_));
            let tier = named.or_else(|| grid.tiers.iter().find(is_intervals));
            Ok(vec![(stem(), tier.map(|tier| tier.alignments(source)).unwrap_or_default())])
        }
        Some("ctm") => {
            let mut all: Vec<Words> = Vec::new();
            for record in ctm::read(path, source)? {
                match all.iter_mut().rev().find(|(id, _)| *id == record.recording) {
                    Some((_, words)) => words.push(record.word),
                    None => all.push((record.recording, vec![record.word])),
                }
            }
            Ok(all)
        }
        Some("jsonl") => {
            let objects = jsonl::objects(&Text::read(path)?)?;
            if objects.first().is_some_and(|(_, object)| object.contains_key("recording_id")) {
                let own = |supervision: lhotse::Supervision| {
                    let words = supervision.tier("word").unwrap_or_default().iter().cloned();
                    let words = words.map(|word| word.shifted(-supervision.start_s)).collect();
                    (supervision.id, words)
                };
                return Ok(lhotse::read(path, source)?.into_iter().map(own).collect());
            }
            let records = jsonl::read(path, source)?;
            Ok(records.into_iter().map(|record| (record.id, record.words)).collect())
        }
        Some("srt" | "vtt") => {
            let label = |cue: subtitles::Cue| Alignment {
                label: cue.text,
                start_s: cue.start_s,
                end_s: cue.end_s,
                confidence: None,
                source: source.clone(),
            };
            Ok(vec![(stem(), subtitles::read(path)?.into_iter().map(label).collect())])
        }
        _ => Err(Error::Unknown { file: path.display().to_string(), found: "another ending" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alignment::tests::label;

    #[test]
    fn every_format_is_told_by_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let words = vec![label("yes", 0.25, 0.5), label("sir", 0.75, 1.0)];
        let tier = textgrid::Tier::from_alignments("words", &words, 1.5).unwrap();
        let file = |name: &str| dir.path().join(name);
        textgrid::TextGrid::new(vec![tier])
            .write(&file("a.TextGrid"), textgrid::Layout::Short)
            .unwrap();
        let record = |word: &Alignment| ctm::Record {
            recording: "b".into(),
            channel: "1".into(),
            word: word.clone(),
        };
        ctm::write(&file("b.ctm"), &words.iter().map(record).collect::<Vec<_>>()).unwrap();
        jsonl::write(&file("c.jsonl"), &[jsonl::Record { id: "c".into(), words: words.clone() }])
            .unwrap();
        let later: Vec<Alignment> = words.iter().map(|word| word.clone().shifted(8.0)).collect();
        let supervision = lhotse::Supervision {
            id: "d".into(),
            recording_id: "long".into(),
            start_s: 8.0,
            duration_s: 1.5,
            tiers: vec![("word".into(), later)],
            other: serde_json::Map::new(),
        };
        lhotse::write(&file("d.jsonl"), &[supervision]).unwrap();
        let cue = |word: &Alignment| subtitles::Cue {
            start_s: word.start_s,
            end_s: word.end_s,
            text: word.label.clone(),
        };
        let cues: Vec<subtitles::Cue> = words.iter().map(cue).collect();
        fs::write(file("e.srt"), subtitles::to_srt(&cues)).unwrap();
        fs::write(file("f.vtt"), subtitles::to_vtt(&cues)).unwrap();
        fs::write(file("README.md"), "not this").unwrap();

        let all = read(dir.path(), &Source::Exact).unwrap();
        let names: Vec<&str> = all.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d", "e", "f"]);
        for (id, found) in &all {
            assert_eq!(*found, words, "{id}");
        }
        let error = read(&file("README.md"), &Source::Exact).unwrap_err().to_string();
        assert!(error.contains("README.md: found another ending"), "{error}");
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(read(empty.path(), &Source::Exact), Err(Error::Unknown { .. })));
    }

    #[test]
    fn formats_have_names() {
        for format in Format::ALL {
            assert_eq!(format.name().parse::<Format>(), Ok(format));
        }
        assert!("elan".parse::<Format>().unwrap_err().contains("textgrid, ctm"));
    }
}
