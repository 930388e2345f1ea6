//! Units as JSON lines.
//!
//! ```text
//! {"sandhi_units": 1, "quantizer": "5ae1…", "n_units": 100, "rate_hz": 25.0}
//! {"id": "an251", "units": [17, 17, 3, 98], "words": [["yes", 1, 4]], "text": "Yes.", "language": "en"}
//! ```
//!
//! `words`, `text` and `language` may be absent.

use std::{collections::HashMap, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Error, UnitUtterance, UnitsHeader, VERSION};

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    sandhi_units: u32,
    quantizer: String,
    n_units: u32,
    rate_hz: f64,
}

const HEADER: &str = r#"{"sandhi_units": 1, "quantizer": "…", "n_units": …, "rate_hz": …}"#;
const UTTERANCE: &str =
    r#"{"id": "…", "units": […]} with "words": [["…", start, end], …] where they are known"#;

/// The header of a file and its utterances, each with its line.
pub(super) fn decode(
    bytes: &[u8],
    path: &Path,
) -> Result<(UnitsHeader, Vec<(usize, UnitUtterance)>), Error> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut lines = (1..)
        .zip(bytes.split(|&byte| byte == b'\n'))
        .filter(|(_, line)| !line.trim_ascii().is_empty());
    let at = |line: usize| format!("{}:{line}", path.display());
    let Some((line, text)) = lines.next() else {
        return Err(Error::Empty { path: path.to_owned() });
    };
    let header = header(text, path, &at(line))?;
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut utterances = Vec::new();
    for (line, text) in lines {
        let utterance: UnitUtterance = serde_json::from_slice(text).map_err(|error| {
            Error::Malformed { at: at(line), found: error.to_string(), expected: UTTERANCE }
        })?;
        utterance.check(&header, || at(line))?;
        if let Some(first) = seen.insert(utterance.id.clone(), line) {
            return Err(Error::Duplicate { at: at(line), id: utterance.id, first: at(first) });
        }
        utterances.push((line, utterance));
    }
    Ok((header, utterances))
}

fn header(text: &[u8], path: &Path, at: &str) -> Result<UnitsHeader, Error> {
    let wrong = |found: String, expected| Error::Header { at: at.to_owned(), found, expected };
    let object: Map<String, Value> = serde_json::from_slice(text)
        .map_err(|error| wrong(format!("no header ({error})"), HEADER))?;
    let Some(version) = object.get("sandhi_units") else {
        return Err(wrong("a line without `sandhi_units`".to_owned(), HEADER));
    };
    if let Some(found) = version.as_u64().filter(|&found| found != u64::from(VERSION)) {
        return Err(Error::Version { path: path.to_owned(), found, expected: VERSION });
    }
    let Header { quantizer, n_units, rate_hz, .. } =
        serde_json::from_slice(text).map_err(|error| wrong(error.to_string(), HEADER))?;
    let header = UnitsHeader { quantizer, n_units, rate_hz };
    match header.problem() {
        Some((found, expected)) => Err(wrong(found, expected)),
        None => Ok(header),
    }
}

/// The first line, with its end.
pub(super) fn header_line(header: &UnitsHeader) -> Vec<u8> {
    let UnitsHeader { quantizer, n_units, rate_hz } = header.clone();
    line(&Header { sandhi_units: VERSION, quantizer, n_units, rate_hz })
}

/// A line, with its end.
pub(super) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("texts and finite numbers");
    line.push(b'\n');
    line
}
