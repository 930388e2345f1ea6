//! StoryCloze: four sentences and two fifth ones, as a table.
//!
//! ```text
//! InputStoryid,InputSentence1,…,InputSentence4,RandomFifthSentenceQuiz1,RandomFifthSentenceQuiz2,AnswerRightEnding
//! 138d5bfb,Rick grew up …,…,Rick joined a gang.,He is happy now.,He robbed a bank.,1
//! ```

use super::{ChoiceItem, Error, Part, error::field};
use crate::language::Language;

const COLUMNS: [&str; 8] = [
    "InputStoryid",
    "InputSentence1",
    "InputSentence2",
    "InputSentence3",
    "InputSentence4",
    "RandomFifthSentenceQuiz1",
    "RandomFifthSentenceQuiz2",
    "AnswerRightEnding",
];

/// Whether a line begins a table of StoryCloze.
pub(super) fn is_header(line: &[u8]) -> bool {
    String::from_utf8_lossy(line).contains(COLUMNS[5])
}

pub(super) fn parse(bytes: &[u8], file: &str) -> Result<Vec<ChoiceItem>, Error> {
    let mut reader = csv::ReaderBuilder::new().from_reader(bytes);
    let header = reader.headers().map_err(|error| wrong(file, &error))?.clone();
    let mut places = [0; 8];
    for (place, name) in places.iter_mut().zip(COLUMNS) {
        let found = header.iter().position(|column| column.trim() == name);
        *place = found.ok_or_else(|| {
            let columns = field("header", &header.iter().collect::<Vec<_>>().join(","));
            Error::malformed(file, 1, columns, format!("a column `{name}`"))
        })?;
    }
    let mut items = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| wrong(file, &error))?;
        let line = record.position().map_or(0, csv::Position::line);
        let mut values = [""; 8];
        for ((value, place), name) in values.iter_mut().zip(places).zip(COLUMNS) {
            *value = record.get(place).map_or("", str::trim);
            if value.is_empty() {
                return Err(Error::malformed(file, line, format!("an empty `{name}`"), "a text"));
            }
        }
        let [id, one, two, three, four, first, second, right] = values;
        let right = match right {
            "1" => 0,
            "2" => 1,
            found => return Err(Error::malformed(file, line, field(COLUMNS[7], found), "1 or 2")),
        };
        items.push(ChoiceItem {
            id: id.to_owned(),
            preface: String::new(),
            context: Part::written([one, two, three, four].join(" ")),
            cue: String::new(),
            endings: vec![Part::written(first), Part::written(second)],
            right,
            group: None,
            language: Language::English,
        });
    }
    Ok(items)
}

/// What a reader of tables has to say.
pub(super) fn wrong(file: &str, error: &csv::Error) -> Error {
    let line = error.position().map_or(1, csv::Position::line);
    Error::malformed(file, line, error.to_string(), "a table of comma-separated values")
}
