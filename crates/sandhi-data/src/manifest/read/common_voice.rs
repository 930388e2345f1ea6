//! Common Voice's tables (Ardila et al., 2020, <https://arxiv.org/abs/1912.06670>), and those that CoVoST 2 (Wang et
//! al., 2020, <https://arxiv.org/abs/2007.10310>) made of them.
//!
//! ```text
//! train.tsv                   client_id  path  sentence  …  locale      -> clips/PATH, "sentence"
//! covost_v2.en_de.train.tsv   path  sentence  translation  client_id    -> the same, answer "translation"
//! ```
//!
//! The clips lie in `clips/` beside the table. Fields are never quoted.

use std::path::{Path, PathBuf};

use super::each_line;
use crate::manifest::{
    Error, Format, Utterance,
    collect::{Collector, Entry},
    error::{Kind, Problem, quoted},
    lines::Lines,
};

/// Where the columns are.
struct Columns {
    n: usize,
    path: usize,
    sentence: usize,
    translation: Option<usize>,
    speaker: Option<usize>,
    locale: Option<usize>,
}

impl Columns {
    /// Reads the header, `None` when the line is none.
    fn read(header: &str) -> Option<Self> {
        let names: Vec<&str> = header.split('\t').collect();
        let column = |name: &str| names.iter().position(|found| *found == name);
        Some(Self {
            n: names.len(),
            path: column("path")?,
            sentence: column("sentence")?,
            translation: column("translation"),
            speaker: column("client_id"),
            locale: column("locale"),
        })
    }
}

/// Whether a line is the header of such a table.
pub(in crate::manifest) fn is_header(line: &str) -> bool {
    line.contains('\t') && Columns::read(line).is_some()
}

/// What a table's name says: its split, and for CoVoST the language that is spoken.
fn named(path: &Path) -> (Option<String>, Option<String>) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut parts = stem.rsplit('.');
    let split = parts.next().filter(|split| !split.is_empty()).map(str::to_owned);
    let pair = parts.next().and_then(|pair| pair.split_once('_'));
    let spoken = pair.filter(|_| stem.starts_with("covost")).map(|(from, _)| from.to_owned());
    (split, spoken)
}

/// Reads one table.
pub(super) fn table(
    path: &Path,
    lines: &mut Lines<'_>,
    collector: &mut Collector,
) -> Result<(), Error> {
    let (split, spoken) = named(path);
    let mut columns = None;
    each_line(path, lines, |number, line| {
        let line = match line {
            Ok(line) => line,
            Err(problem) => return collector.add(path, number, Err(problem)),
        };
        let Some(columns) = &columns else {
            columns = Columns::read(line);
            if columns.is_none() {
                let expected = "a header with the columns path and sentence, between tabs";
                let problem = Problem::new(Kind::Mismatch, "header", quoted(line), expected);
                collector.add(path, number, Err(problem));
            }
            return;
        };
        let entry = row(line, columns).map(|mut utterance| {
            utterance.split.clone_from(&split);
            utterance.language = utterance.language.or_else(|| spoken.clone());
            Entry::from(utterance)
        });
        collector.add(path, number, entry);
    })
}

fn row(line: &str, columns: &Columns) -> Result<Utterance, Problem> {
    let fields: Vec<&str> = line.split('\t').collect();
    if fields.len() != columns.n {
        let found = format!("{} fields", fields.len());
        return Err(Problem::new(
            Kind::Mismatch,
            "",
            found,
            format!("{} as in the header", columns.n),
        ));
    }
    let given = |column: Option<usize>| column.map(|i| fields[i]).filter(|text| !text.is_empty());
    let clip = given(Some(columns.path))
        .ok_or_else(|| Problem::missing("path".to_owned(), "the name of a clip".to_owned()))?;
    // Old releases leave the ending out.
    let file =
        if Path::new(clip).extension().is_some() { clip.to_owned() } else { format!("{clip}.mp3") };
    let mut utterance =
        Utterance::new(clip, PathBuf::from("clips").join(file), fields[columns.sentence]);
    utterance.speaker = given(columns.speaker).map(str::to_owned);
    utterance.language = given(columns.locale).map(str::to_owned);
    if let Some(translation) = given(columns.translation) {
        utterance.task = Some("translate".to_owned());
        utterance.answer = Some(translation.to_owned());
    }
    Ok(utterance)
}

/// Why a folder is not read: its tables overlap.
pub(super) fn folder(path: &Path) -> Error {
    Error::MissingFile {
        path: path.to_owned(),
        format: Format::CommonVoice,
        missing: "one of its .tsv tables, which share clips".to_owned(),
    }
}
