//! MMLU: a question, four choices, and the letter of the right one.
//!
//! ```text
//! test/abstract_algebra_test.csv     Find the degree …,0,4,2,6,B
//!
//! written and spoken                 Find the degree …        then, always in writing      Answer: B
//!                                    A. 0 B. 4 C. 2 D. 6
//! ```
//!
//! The words before the ending are the paper's (appendix of Hendrycks et al., 2021), a choice a line. The first five
//! items of `dev` are a subject's shots.

use std::{collections::BTreeMap, path::Path};

use super::{ChoiceItem, ChoiceSet, Error, Part, bytes, error::field, format::files, story_cloze};
use crate::language::Language;

const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

/// Whether a line has six columns, the last of which is a letter. A question that runs over several lines says nothing.
pub(super) fn is_row(line: &[u8]) -> bool {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line);
    let row = reader.records().next().and_then(Result::ok);
    row.is_some_and(|row| row.len() == 6 && LETTERS.contains(&row[5].trim()))
}

/// The test files of a folder.
pub(super) fn tests(folder: &Path) -> Result<Vec<std::path::PathBuf>, Error> {
    let inner = folder.join("test");
    let mut found = files(if inner.is_dir() { &inner } else { folder })?;
    found.retain(|file| file.to_str().is_some_and(|name| name.ends_with("_test.csv")));
    Ok(found)
}

pub(super) fn read(path: &Path) -> Result<ChoiceSet, Error> {
    let list = if path.is_dir() { tests(path)? } else { vec![path.to_owned()] };
    let (mut items, mut shots) = (Vec::new(), BTreeMap::new());
    for file in list {
        let found = parse(&bytes(&file)?, &file.display().to_string())?;
        let subject = subject(&file.display().to_string());
        if let Some(dev) = dev(&file, &subject).filter(|dev| dev.is_file() && *dev != file) {
            let solved = parse(&bytes(&dev)?, &dev.display().to_string())?;
            shots.insert(subject, solved);
        }
        items.extend(found);
    }
    Ok(ChoiceSet { items, shots })
}

/// Where the shots of a test file would be: beside it, or in `dev/` beside its folder.
fn dev(test: &Path, subject: &str) -> Option<std::path::PathBuf> {
    let name = format!("{subject}_dev.csv");
    let folder = test.parent()?;
    let beside = folder.join(&name);
    if beside.is_file() {
        return Some(beside);
    }
    Some(folder.parent()?.join("dev").join(name))
}

/// `high_school_physics` of `data/test/high_school_physics_test.csv`.
fn subject(file: &str) -> String {
    let stem = Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
    let ends = ["_test", "_dev", "_val"];
    ends.iter().find_map(|end| stem.strip_suffix(end)).unwrap_or(&stem).to_owned()
}

pub(super) fn parse(bytes: &[u8], file: &str) -> Result<Vec<ChoiceItem>, Error> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let subject = subject(file);
    let about = subject.replace('_', " ");
    let mut items = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| story_cloze::wrong(file, &error))?;
        let line = record.position().map_or(0, csv::Position::line);
        let wrong = |found: String, expected: &str| Error::malformed(file, line, found, expected);
        if record.len() != 6 {
            let expected = "6: question, four choices, the letter of the right one";
            return Err(wrong(format!("{} columns", record.len()), expected));
        }
        let right = LETTERS.iter().position(|letter| *letter == record[5].trim());
        let right = right.ok_or_else(|| wrong(field("answer", &record[5]), "A, B, C or D"))?;
        let mut context = record[0].trim().to_owned();
        if context.is_empty() {
            return Err(wrong("an empty question".to_owned(), "a text"));
        }
        for (letter, choice) in LETTERS.iter().zip(record.iter().skip(1)) {
            context.push_str(&format!("\n{letter}. {}", choice.trim()));
        }
        items.push(ChoiceItem {
            id: format!("{subject}-{}", items.len() + 1),
            preface: format!(
                "The following are multiple choice questions (with answers) about {about}."
            ),
            context: Part::written(context),
            cue: "Answer:".to_owned(),
            endings: LETTERS.map(Part::written).to_vec(),
            right,
            group: Some(subject.clone()),
            language: Language::English,
        });
    }
    Ok(items)
}
