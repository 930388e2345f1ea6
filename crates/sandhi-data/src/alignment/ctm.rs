//! NIST's CTM: one word a line, sorted by recording, channel and time.
//!
//! ```text
//! ;; recording channel start duration word confidence
//! call17       A       11.34 0.200    YES  0.763291
//! ```

use std::{fmt::Write as _, path::Path};

use super::{
    Alignment, Error, Source,
    error::{self, Text},
};

/// A line of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The name of the recording.
    pub recording: String,
    /// The channel, `1` or `A` for the first.
    pub channel: String,
    /// The word with its time within the recording.
    pub word: Alignment,
}

/// Reads a file. Fields behind the confidence (type, speaker) are not kept.
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
    for (i, line) in text.text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with(";;") {
            continue;
        }
        let wrong = |found: String, expected: &str| text.malformed(i + 1, found, expected);
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [recording, channel, start, duration, word, rest @ ..] = &fields[..] else {
            let found = format!("{} fields", fields.len());
            return Err(wrong(found, "recording, channel, start, duration and word"));
        };
        let seconds = |field: &str, name: &str| match field.parse::<f64>() {
            Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => Ok(seconds),
            _ => Err(wrong(format!("the {name} `{field}`"), "seconds, at least 0")),
        };
        let (start_s, duration_s) = (seconds(start, "start")?, seconds(duration, "duration")?);
        let confidence = match rest.first() {
            None | Some(&"NA") => None,
            Some(field) => match field.parse::<f32>() {
                Ok(confidence) if confidence.is_finite() => Some(confidence),
                _ => return Err(wrong(format!("the confidence `{field}`"), "a number or NA")),
            },
        };
        records.push(Record {
            recording: (*recording).to_owned(),
            channel: (*channel).to_owned(),
            word: Alignment {
                label: (*word).to_owned(),
                start_s,
                end_s: start_s + duration_s,
                confidence,
                source: source.clone(),
            },
        });
    }
    Ok(records)
}

/// Writes a file; times are rounded to microseconds.
///
/// # Errors
///
/// [`Error::Io`], and those of [`to_text`].
pub fn write(path: &Path, records: &[Record]) -> Result<(), Error> {
    error::write(path, &to_text(records)?)
}

/// The text that [`write()`] writes, in the order given.
///
/// # Errors
///
/// [`Error::Unwritable`] for a name or word that is empty or has white space, a recording that looks like a
/// comment, or times that are negative, not finite or not in order.
pub fn to_text(records: &[Record]) -> Result<String, Error> {
    let mut text = String::new();
    for Record { recording, channel, word } in records {
        let unwritable = |found: String, expected| Error::Unwritable {
            format: "CTM",
            label: word.label.clone(),
            start_s: word.start_s,
            found,
            expected,
        };
        for field in [recording, channel, &word.label] {
            if field.is_empty() || field.contains(char::is_whitespace) {
                return Err(unwritable(format!("the field `{field}`"), "text without white space"));
            }
        }
        if recording.starts_with(";;") {
            return Err(unwritable(format!("the recording `{recording}`"), "a name without `;;`"));
        }
        let Some((start_s, end_s)) = error::span(word.start_s, word.end_s) else {
            let found = format!("times from {} to {} s", word.start_s, word.end_s);
            return Err(unwritable(found, "0 <= start <= end"));
        };
        // Both ends are rounded, so that adjoining words stay so.
        let rounded = |seconds: f64| (seconds * 1e6).round() / 1e6;
        let (start_s, duration_s) = (rounded(start_s), rounded(end_s) - rounded(start_s));
        // Writing to a string cannot fail.
        let _ = write!(text, "{recording} {channel} {start_s:.6} {duration_s:.6} {}", word.label);
        let _ = match word.confidence {
            Some(confidence) => writeln!(text, " {confidence}"),
            None => writeln!(text),
        };
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::alignment::tests::label;

    fn decode(text: &str) -> Result<Vec<Record>, Error> {
        super::decode(text.as_bytes().to_vec(), "a.ctm", &Source::Silver)
    }

    #[test]
    fn lines_of_the_specification_are_read() {
        let text = ";; a comment\n7654 A 11.34 0.2  YES -6.763\n\n7654 B 1 2 uh NA hesitation\n";
        let records = decode(text).unwrap();
        assert_eq!((records[0].recording.as_str(), records[0].channel.as_str()), ("7654", "A"));
        assert_eq!(records[0].word.label, "YES");
        assert!((records[0].word.end_s - 11.54).abs() < 1e-12);
        assert_eq!(records[0].word.confidence, Some(-6.763));
        assert_eq!((records[1].word.confidence, records[1].word.end_s), (None, 3.0));
    }

    #[test]
    fn errors_name_line_found_and_expected() {
        for (text, expected) in [
            (
                "a A 1 2",
                "a.ctm:1: found 4 fields, expected recording, channel, start, duration and word",
            ),
            ("\na A x 2 b", "a.ctm:2: found the start `x`, expected seconds, at least 0"),
            ("a A 1 -2 b", "a.ctm:1: found the duration `-2`, expected seconds, at least 0"),
            ("a A 1 2 b x", "a.ctm:1: found the confidence `x`, expected a number or NA"),
        ] {
            assert_eq!(decode(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn white_space_cannot_be_written() {
        let record = |recording: &str, word: &str| Record {
            recording: recording.to_owned(),
            channel: "1".to_owned(),
            word: label(word, 0.0, 1.0),
        };
        for (recording, word) in [("a b", "c"), ("a", "b c"), ("a", ""), (";;a", "b")] {
            assert!(to_text(&[record(recording, word)]).is_err());
        }
        let backwards = Record { word: label("a", 2.0, 1.0), ..record("a", "a") };
        assert!(to_text(&[backwards]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_read(
            words in proptest::collection::vec(
                ("[a-z0-9_-]{1,6}", "[a-zäß'<>.]{1,8}", 0.0..1e5_f64, 0.0..30.0_f64, proptest::option::of(0.0..1.0_f32)),
                0..8,
            )
        ) {
            let records: Vec<Record> = words.into_iter().map(|(recording, word, start, length, confidence)| Record {
                recording,
                channel: "A".to_owned(),
                word: Alignment { confidence, ..label(&word, start, start + length) },
            }).collect();
            let read = super::decode(to_text(&records).unwrap().into_bytes(), "a", &Source::Exact).unwrap();
            prop_assert_eq!(read.len(), records.len());
            for (read, written) in read.iter().zip(&records) {
                prop_assert!((read.word.start_s - written.word.start_s).abs() < 1e-6);
                prop_assert!((read.word.end_s - written.word.end_s).abs() < 2e-6);
                let mut read = read.clone();
                (read.word.start_s, read.word.end_s) = (written.word.start_s, written.word.end_s);
                prop_assert_eq!(&read, written);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = super::decode(bytes, "a", &Source::Silver);
        }
    }
}
