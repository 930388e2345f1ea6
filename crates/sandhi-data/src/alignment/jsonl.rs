//! Words as JSON lines: one utterance a line, each word a label, a start and an end.
//!
//! ```text
//! {"id": "an251", "text": "YES", "words": [["yes", 0.31, 0.71], ["sir", 0.8, 1.2, 0.97]]}
//! ```
//!
//! The fourth element, if any, is the confidence. Other fields are ignored when read.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    Alignment, Error, Source,
    error::{self, Text},
};

/// The words of one utterance.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The utterance.
    pub id: String,
    /// Its words.
    pub words: Vec<Alignment>,
}

/// Reads a file.
///
/// # Errors
///
/// [`Error::Io`], [`Error::Encoding`], [`Error::Malformed`] with the line.
pub fn read(path: &Path, source: &Source) -> Result<Vec<Record>, Error> {
    parse(&Text::read(path)?, source)
}

/// Reads the bytes of a file; `name` stands for it in messages.
///
/// # Errors
///
/// As [`read`].
pub fn decode(bytes: Vec<u8>, name: &str, source: &Source) -> Result<Vec<Record>, Error> {
    parse(&Text::decode(bytes, name)?, source)
}

fn parse(text: &Text, source: &Source) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    for (line, object) in objects(text)? {
        let wrong = |found: String, expected: &str| text.malformed(line, found, expected);
        let id = match object.get("id") {
            Some(Value::String(id)) => id.clone(),
            found => return Err(wrong(field("id", found), "a text")),
        };
        let Some(Value::Array(items)) = object.get("words") else {
            return Err(wrong(field("words", object.get("words")), "a list"));
        };
        let word = |item: &Value| {
            let item = item.as_array().filter(|item| (3..=4).contains(&item.len()))?;
            let (start_s, end_s) = error::span(item[1].as_f64()?, item[2].as_f64()?)?;
            let confidence = confidence(item.get(3))?;
            let label = item[0].as_str()?.to_owned();
            Some(Alignment { label, start_s, end_s, confidence, source: source.clone() })
        };
        let mut words = Vec::with_capacity(items.len());
        for item in items {
            let expected =
                "[label, start, end] or [label, start, end, confidence] with 0 <= start <= end";
            words.push(word(item).ok_or_else(|| wrong(format!("the word {item}"), expected))?);
        }
        records.push(Record { id, words });
    }
    Ok(records)
}

/// Writes a file.
///
/// # Errors
///
/// [`Error::Io`].
pub fn write(path: &Path, records: &[Record]) -> Result<(), Error> {
    error::write(path, &to_text(records))
}

/// The text that [`write()`] writes.
pub fn to_text(records: &[Record]) -> String {
    let line = |record: &Record| {
        let words: Vec<Value> = record
            .words
            .iter()
            .map(|word| match word.confidence {
                Some(confidence) => json!([word.label, word.start_s, word.end_s, confidence]),
                None => json!([word.label, word.start_s, word.end_s]),
            })
            .collect();
        format!("{}\n", json!({ "id": record.id, "words": words }))
    };
    records.iter().map(line).collect()
}

/// A line's number and the object that it holds.
type Line = (usize, serde_json::Map<String, Value>);

/// The object of every line that is not empty, with the line's number.
pub(super) fn objects(text: &Text) -> Result<Vec<Line>, Error> {
    let mut objects = Vec::new();
    for (i, line) in text.text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str(line) {
            Ok(Value::Object(object)) => objects.push((i + 1, object)),
            Ok(_) => return Err(text.malformed(i + 1, "JSON of another kind", "an object")),
            Err(error) => {
                let found = format!("no JSON ({error})");
                return Err(text.malformed(i + 1, found, "an object"));
            }
        }
    }
    Ok(objects)
}

/// How a message calls a field's value.
pub(super) fn field(name: &str, value: Option<&Value>) -> String {
    match value {
        None => format!("no field `{name}`"),
        Some(value) => {
            let text = value.to_string();
            let short: String = text.chars().take(40).collect();
            let rest = if short.len() < text.len() { "…" } else { "" };
            format!("`{name}` = {short}{rest}")
        }
    }
}

/// `Some(None)` where there is none, `None` for anything but a number.
pub(super) fn confidence(value: Option<&Value>) -> Option<Option<f32>> {
    match value {
        None | Some(Value::Null) => Some(None),
        Some(value) => value.as_f64().map(|number| Some(number as f32)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::alignment::tests::{data, label};

    fn decode(text: &str) -> Result<Vec<Record>, Error> {
        super::decode(text.as_bytes().to_vec(), "a.jsonl", &Source::Exact)
    }

    #[test]
    fn silver_words_are_read() {
        let mut n_files = 0;
        for file in ["an4/words.jsonl", "fixtures/libri_test_clean/words.jsonl"] {
            let Some(path) = data(file) else { continue };
            let records = read(&path, &Source::Silver).unwrap();
            n_files += 1;
            assert!(!records.is_empty());
            for record in &records {
                assert!(
                    record.words.iter().all(|word| word.end_s >= word.start_s),
                    "{}",
                    record.id
                );
            }
            assert_eq!(decode(&to_text(&records)).unwrap().len(), records.len());
        }
        eprintln!("{n_files} files");
    }

    #[test]
    fn errors_name_line_found_and_expected() {
        for (text, expected) in [
            ("{}", "a.jsonl:1: found no field `id`, expected a text"),
            ("\n{\"id\": \"a\", \"words\": 3}", "a.jsonl:2: found `words` = 3, expected a list"),
            ("[]", "a.jsonl:1: found JSON of another kind, expected an object"),
            (
                "{\"id\": \"a\", \"words\": [[\"b\", 2, 1]]}",
                "a.jsonl:1: found the word [\"b\",2,1], expected [label, start, end] or \
                 [label, start, end, confidence] with 0 <= start <= end",
            ),
        ] {
            assert_eq!(decode(text).unwrap_err().to_string(), expected);
        }
        assert!(decode("{\"id\"").unwrap_err().to_string().starts_with("a.jsonl:1: found no JSON"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_read(
            id in ".{0,6}",
            words in proptest::collection::vec(
                (".{0,6}", 0.0..1e4_f64, 0.0..9.0_f64, proptest::option::of(0.0..1.0_f32)), 0..6,
            )
        ) {
            let words = words.into_iter().map(|(text, start, length, confidence)| {
                Alignment { confidence, ..label(&text, start, start + length) }
            }).collect();
            let records = vec![Record { id, words }];
            prop_assert_eq!(decode(&to_text(&records)).unwrap(), records);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = super::decode(bytes, "a", &Source::Silver);
        }
    }
}
