//! Items as JSON lines: ours, and HellaSwag's.
//!
//! ```text
//! {"id": "s1", "audio": "s1.wav", "context": "Anna …", "endings": ["She …", "He …"], "right": 1}     ours
//! {"ctx": "A man is sitting on a roof. He", "endings": ["is …", …], "label": 3, "ind": 24}           HellaSwag
//! ```

use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use super::{ChoiceItem, Error, Part, error::field};
use crate::language::Language;

/// An item of ours as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    #[serde(default)]
    preface: String,
    #[serde(default)]
    context: Option<String>,
    #[serde(default)]
    audio: Option<String>,
    #[serde(default)]
    cue: String,
    #[serde(default)]
    endings: Vec<String>,
    #[serde(default)]
    ending_audio: Vec<String>,
    right: usize,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    language: Option<Language>,
}

/// Lines that are not empty, with their numbers.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let lines = (1..).zip(bytes.split(|&b| b == b'\n'));
    lines.filter(|(_, line)| !line.trim_ascii().is_empty())
}

pub(super) fn sandhi(bytes: &[u8], file: &str) -> Result<Vec<ChoiceItem>, Error> {
    let mut items = Vec::new();
    for (line, text) in lines(bytes) {
        let wrong = |found: String, expected: &str| Error::malformed(file, line, found, expected);
        let written: Written = serde_json::from_slice(text)
            .map_err(|error| wrong(error.to_string(), "an object with `endings` and `right`"))?;
        let n = written.endings.len().max(written.ending_audio.len());
        if n < 2 {
            return Err(wrong(format!("{n} endings"), "two at least"));
        }
        for (name, list) in [("endings", &written.endings), ("ending_audio", &written.ending_audio)]
        {
            if !list.is_empty() && list.len() != n {
                let found = format!("{} in `{name}`, {n} in the other list", list.len());
                return Err(wrong(found, "as many of either kind"));
            }
            if list.iter().any(|text| text.trim().is_empty()) {
                return Err(wrong(format!("an empty text in `{name}`"), "none"));
            }
        }
        if written.right >= n {
            let found = format!("`right` = {}", written.right);
            return Err(wrong(found, &format!("the index of one of {n} endings, from 0")));
        }
        let context = written.context.map(|text| text.trim().to_owned());
        let part = |i: usize| Part {
            text: written.endings.get(i).map(|text| text.trim().to_owned()),
            audio: written.ending_audio.get(i).map(Into::into),
        };
        items.push(ChoiceItem {
            endings: (0..n).map(part).collect(),
            id: written.id,
            preface: written.preface,
            context: Part {
                text: context.filter(|text| !text.is_empty()),
                audio: written.audio.map(Into::into),
            },
            cue: written.cue,
            right: written.right,
            group: written.group,
            language: written.language.unwrap_or(Language::English),
        });
    }
    Ok(items)
}

pub(super) fn hella_swag(bytes: &[u8], file: &str) -> Result<Vec<ChoiceItem>, Error> {
    let mut items = Vec::new();
    for (line, text) in lines(bytes) {
        let wrong = |found: String, expected: &str| Error::malformed(file, line, found, expected);
        let object: serde_json::Map<String, Value> = serde_json::from_slice(text)
            .map_err(|error| wrong(format!("no object ({error})"), "an object"))?;
        let shown = |name: &str| match object.get(name) {
            None => format!("no field `{name}`"),
            Some(value) => field(name, &value.to_string()),
        };
        let context = object.get("ctx").or_else(|| object.get("context")).and_then(Value::as_str);
        let context = context.ok_or_else(|| wrong(shown("ctx"), "a text"))?;
        let endings = object.get("endings").and_then(Value::as_array);
        let endings = endings.map(|list| list.iter().map(Value::as_str).collect::<Vec<_>>());
        let endings: Vec<&str> = endings
            .and_then(|list| list.into_iter().collect())
            .filter(|list: &Vec<&str>| list.len() >= 2)
            .ok_or_else(|| wrong(shown("endings"), "a list of two texts at least"))?;
        // A number, or its digits in some copies; empty in test sets that keep their answers.
        let right = match object.get("label") {
            Some(Value::String(digits)) => digits.parse().ok(),
            Some(value) => value.as_u64(),
            None => None,
        };
        let right = right.and_then(|i| usize::try_from(i).ok()).filter(|&i| i < endings.len());
        let right = right.ok_or_else(|| {
            let n = endings.len();
            wrong(shown("label"), &format!("the index of one of {n} endings, from 0"))
        })?;
        let id = object.get("ind").map_or_else(|| format!("line-{line}"), Value::to_string);
        let endings: Vec<String> = endings.into_iter().map(without_marks).collect();
        if endings.iter().any(String::is_empty) {
            return Err(wrong(shown("endings"), "texts that say something"));
        }
        items.push(ChoiceItem {
            id,
            preface: String::new(),
            context: Part::written(without_marks(context)),
            cue: String::new(),
            endings: endings.into_iter().map(Part::written).collect(),
            right,
            group: object.get("split_type").and_then(Value::as_str).map(str::to_owned),
            language: Language::English,
        });
    }
    Ok(items)
}

/// A text of WikiHow without its marks: a title ends a sentence, the others (`[header]`, `[step]`, `[substeps]`) say
/// nothing; neither can be spoken.
fn without_marks(text: &str) -> String {
    static MARK: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\[[^\[\]]*\]").expect("a constant"));
    let titled = text.trim().replace(" [title]", ". ");
    let bare = MARK.replace_all(&titled, "");
    bare.split_whitespace().collect::<Vec<_>>().join(" ")
}
