//! Lhotse's supervisions with their alignments, as JSON lines, plain or in gzip.
//!
//! ```text
//! {"id": "a-1", "recording_id": "a", "start": 0.0, "duration": 2.1, "channel": 0, "text": "yes",
//!  "alignment": {"word": [["yes", 0.31, 0.4, 0.98]]}}           symbol, start, duration, score
//! ```
//!
//! All times count from the start of the recording, not of the supervision.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{
    Alignment, Error, Source,
    error::{self, Text},
    jsonl,
};

/// A span of a recording with labels of several kinds.
#[derive(Debug, Clone, PartialEq)]
pub struct Supervision {
    /// Its name.
    pub id: String,
    /// The recording that it is a part of.
    pub recording_id: String,
    /// Where it starts in the recording, in seconds.
    pub start_s: f64,
    /// How long it lasts, in seconds.
    pub duration_s: f64,
    /// Labels by kind (`word`, `phone`, `subword`), timed from the start of the recording.
    pub tiers: Vec<(String, Vec<Alignment>)>,
    /// All other fields (`text`, `channel`, `language`, `speaker`, `custom`, …), as they are.
    pub other: Map<String, Value>,
}

impl Supervision {
    /// The labels of a kind, if there are any.
    pub fn tier(&self, kind: &str) -> Option<&[Alignment]> {
        self.tiers.iter().find(|(name, _)| name == kind).map(|(_, labels)| labels.as_slice())
    }
}

/// Reads a file.
///
/// # Errors
///
/// [`Error::Io`], [`Error::Encoding`], [`Error::Malformed`] with the line.
pub fn read(path: &Path, source: &Source) -> Result<Vec<Supervision>, Error> {
    parse(&Text::read(path)?, source)
}

/// Reads the bytes of a file; `name` stands for it in messages.
///
/// # Errors
///
/// As [`read`].
pub fn decode(bytes: Vec<u8>, name: &str, source: &Source) -> Result<Vec<Supervision>, Error> {
    parse(&Text::decode(bytes, name)?, source)
}

fn parse(text: &Text, source: &Source) -> Result<Vec<Supervision>, Error> {
    let objects = jsonl::objects(text)?;
    objects.into_iter().map(|(line, object)| supervision(text, line, object, source)).collect()
}

fn supervision(
    text: &Text,
    line: usize,
    mut object: Map<String, Value>,
    source: &Source,
) -> Result<Supervision, Error> {
    let wrong = |found: String, expected: &str| text.malformed(line, found, expected);
    let mut name = |key: &str| match object.remove(key) {
        Some(Value::String(name)) => Ok(name),
        found => Err(wrong(jsonl::field(key, found.as_ref()), "a text")),
    };
    let (id, recording_id) = (name("id")?, name("recording_id")?);
    let mut seconds = |key: &str| {
        let value = object.remove(key);
        match value.as_ref().and_then(Value::as_f64) {
            Some(seconds) if seconds >= 0.0 => Ok(seconds),
            _ => Err(wrong(jsonl::field(key, value.as_ref()), "seconds, at least 0")),
        }
    };
    let (start_s, duration_s) = (seconds("start")?, seconds("duration")?);
    let mut tiers = Vec::new();
    match object.remove("alignment") {
        None | Some(Value::Null) => {}
        Some(Value::Object(kinds)) => {
            for (kind, items) in kinds {
                let Value::Array(items) = items else {
                    return Err(wrong(jsonl::field(&kind, Some(&items)), "a list of labels"));
                };
                let mut labels = Vec::with_capacity(items.len());
                for item in &items {
                    let expected = "[symbol, start, duration] or [symbol, start, duration, score] \
                                    with times of at least 0";
                    let label = label(item, source)
                        .ok_or_else(|| wrong(format!("the {kind} {item}"), expected))?;
                    labels.push(label);
                }
                tiers.push((kind, labels));
            }
        }
        found => return Err(wrong(jsonl::field("alignment", found.as_ref()), "an object")),
    }
    Ok(Supervision { id, recording_id, start_s, duration_s, tiers, other: object })
}

fn label(item: &Value, source: &Source) -> Option<Alignment> {
    let item = item.as_array().filter(|item| (3..=4).contains(&item.len()))?;
    let start_s = item[1].as_f64()?;
    let (start_s, end_s) = error::span(start_s, start_s + item[2].as_f64()?)?;
    let confidence = jsonl::confidence(item.get(3))?;
    Some(Alignment {
        label: item[0].as_str()?.to_owned(),
        start_s,
        end_s,
        confidence,
        source: source.clone(),
    })
}

/// Writes a file; times of labels are rounded to nanoseconds.
///
/// # Errors
///
/// [`Error::Io`].
pub fn write(path: &Path, supervisions: &[Supervision]) -> Result<(), Error> {
    error::write(path, &to_text(supervisions))
}

/// The text that [`write()`] writes.
pub fn to_text(supervisions: &[Supervision]) -> String {
    let line = |supervision: &Supervision| {
        let rounded = |seconds: f64| (seconds * 1e9).round() / 1e9;
        let item = |label: &Alignment| {
            let (start_s, duration_s) = (rounded(label.start_s), rounded(label.duration_s()));
            json!([label.label, start_s, duration_s, label.confidence])
        };
        let tiers = supervision
            .tiers
            .iter()
            .map(|(kind, labels)| (kind.clone(), Value::Array(labels.iter().map(item).collect())));
        let mut object = Map::new();
        object.insert("id".to_owned(), json!(supervision.id));
        object.insert("recording_id".to_owned(), json!(supervision.recording_id));
        object.insert("start".to_owned(), json!(supervision.start_s));
        object.insert("duration".to_owned(), json!(supervision.duration_s));
        object.extend(supervision.other.clone());
        if !supervision.tiers.is_empty() {
            object.insert("alignment".to_owned(), Value::Object(tiers.collect()));
        }
        format!("{}\n", Value::Object(object))
    };
    supervisions.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::alignment::tests::label;

    const LINE: &str = r#"{"id": "a-1", "recording_id": "a", "start": 0.5, "duration": 2.0, "channel": 0,
        "text": "yes sir", "alignment": {"word": [["yes", 0.5, 0.25, 0.5], ["sir", 0.75, 0.5, null]], "phone": [["j", 0.5, 0.125]]}}"#;

    fn decode(text: &str) -> Result<Vec<Supervision>, Error> {
        super::decode(text.as_bytes().to_vec(), "a.jsonl", &Source::Exact)
    }

    #[test]
    fn a_supervision_is_read_and_keeps_its_other_fields() {
        let read = decode(&LINE.replace('\n', "")).unwrap();
        let yes = Alignment { confidence: Some(0.5), ..label("yes", 0.5, 0.75) };
        assert_eq!(read[0].tier("word").unwrap(), [yes, label("sir", 0.75, 1.25)]);
        assert_eq!(read[0].tier("phone").unwrap(), [label("j", 0.5, 0.625)]);
        assert_eq!(read[0].tier("subword"), None);
        assert_eq!(read[0].other["text"], "yes sir");
        assert_eq!(decode(&to_text(&read)).unwrap(), read);
    }

    #[test]
    fn gzip_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("supervisions.jsonl.gz");
        let file = std::fs::File::create(&path).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::default());
        encoder.write_all(LINE.replace('\n', "").as_bytes()).unwrap();
        encoder.finish().unwrap();
        assert_eq!(read(&path, &Source::Silver).unwrap()[0].id, "a-1");
    }

    #[test]
    fn errors_name_line_found_and_expected() {
        let line = |rest: &str| format!("\n{{\"id\": \"a\", \"recording_id\": \"r\", {rest}}}");
        for (text, expected) in [
            ("{}".to_owned(), "a.jsonl:1: found no field `id`, expected a text"),
            (
                line("\"start\": -1, \"duration\": 1"),
                "a.jsonl:2: found `start` = -1, expected seconds, at least 0",
            ),
            (
                line("\"start\": 0, \"duration\": 1, \"alignment\": [1]"),
                "a.jsonl:2: found `alignment` = [1], expected an object",
            ),
            (
                line("\"start\": 0, \"duration\": 1, \"alignment\": {\"word\": [[\"a\", 0]]}"),
                "a.jsonl:2: found the word [\"a\",0], expected [symbol, start, duration] or \
                 [symbol, start, duration, score] with times of at least 0",
            ),
        ] {
            assert_eq!(decode(&text).unwrap_err().to_string(), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_read(
            id in ".{0,6}", start_s in 0.0..1e4_f64, duration_s in 0.0..1e3_f64,
            labels in proptest::collection::vec(
                (".{0,6}", 0.0..1e4_f64, 0.0..9.0_f64, proptest::option::of(0.0..1.0_f32)), 0..6,
            )
        ) {
            let labels: Vec<Alignment> = labels.into_iter().map(|(text, start, length, confidence)| {
                Alignment { confidence, ..label(&text, start, start + length) }
            }).collect();
            let written = Supervision {
                id, recording_id: "r".to_owned(), start_s, duration_s,
                tiers: vec![("word".to_owned(), labels)], other: Map::new(),
            };
            let mut read = decode(&to_text(std::slice::from_ref(&written))).unwrap().remove(0);
            for (read, written) in read.tiers[0].1.iter_mut().zip(&written.tiers[0].1) {
                prop_assert!((read.start_s - written.start_s).abs() < 1e-8);
                prop_assert!((read.end_s - written.end_s).abs() < 1e-8);
                (read.start_s, read.end_s) = (written.start_s, written.end_s);
            }
            prop_assert_eq!(read, written);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = super::decode(bytes, "a", &Source::Silver);
        }
    }
}
