//! What the outputs of a CTC head mean: `vocab.json` and what stands beside it.
//!
//! ```text
//! vocab.json               E 0   <s> 1   </s> 2   <pad> 3   <unk> 4   | 5   A 6   …
//! our symbols              blank 0 = 3   e 1 = 0   ' ' 2 = 5   a 3 = 6   …
//! ```
//!
//! The blank becomes number 0, as everywhere here, and the word delimiter a space. Symbols that are no characters,
//! `<s>` and the like, get no output: nobody can say them. Where all letters are capital they become small ones, as our
//! normalized texts have them.

use std::{collections::BTreeMap, path::Path};

use indexmap::IndexMap;
use sandhi_data::text::Characters;
use serde_json::{Map, Value};

use super::super::{Error, config::Fields, read_json};

/// The symbols of a head, and which of its outputs each of them is, the blank first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Symbols {
    pub(super) characters: Characters,
    pub(super) columns: Vec<usize>,
}

const VOCABULARY: &str = "vocab.json";

/// Reads the symbols of a head of `n` outputs; `blank` is `pad_token_id` of `config.json`.
pub(super) fn read(dir: &Path, n: usize, blank: Option<usize>) -> Result<Symbols, Error> {
    let path = dir.join(VOCABULARY);
    if !path.exists() {
        let message = "is not there, and lm_head needs the meaning of its outputs".into();
        return Err(Error::Config { path, message });
    }
    let optional = |name: &str| {
        let path = dir.join(name);
        let empty = Value::Object(Map::new());
        let value = if path.exists() { read_json(&path)? } else { empty };
        Ok::<_, Error>((path, value))
    };
    let value = read_json(&path)?;
    let vocabulary = Fields::new(&path, &value)?;
    let (tokenizer_path, tokenizer) = optional("tokenizer_config.json")?;
    let (map_path, map) = optional("special_tokens_map.json")?;
    let (added_path, added) = optional("added_tokens.json")?;
    let tokenizer = Fields::new(&tokenizer_path, &tokenizer)?;
    let map = Fields::new(&map_path, &map)?;

    let mut tokens: BTreeMap<usize, String> = BTreeMap::new();
    for (token, id) in vocabulary.ids_by_name()? {
        if let Some(other) = tokens.insert(id, token.clone()) {
            return Err(vocabulary.error(format_args!("{other:?} and {token:?} are both {id}")));
        }
    }
    // Symbols for the tokenizer's own use, which need not have an output.
    let mut special: Vec<String> = tokenizer.texts("additional_special_tokens")?;
    let added = Fields::new(&added_path, &added)?.ids_by_name()?.into_iter();
    for (token, id) in added.chain(tokenizer.added_tokens()?) {
        if token.chars().count() > 1 {
            special.push(token.clone());
        }
        tokens.entry(id).or_insert(token);
    }
    let named = |name: &str, default: &str| -> Result<String, Error> {
        let found = match tokenizer.token(name)? {
            Some(found) => Some(found),
            None => map.token(name)?,
        };
        Ok(found.unwrap_or_else(|| default.to_owned()))
    };
    let pad = named("pad_token", "<pad>")?;
    let delimiter = named("word_delimiter_token", "|")?;
    for (name, default) in [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")] {
        special.push(named(name, default)?);
    }
    if let Some(other) = tokenizer.text("replace_word_delimiter_char")?.filter(|c| *c != " ") {
        return Err(tokenizer
            .error(format_args!("replace_word_delimiter_char is {other:?}, expected \" \"")));
    }

    let pad_id = tokens.iter().find(|(_, token)| **token == pad).map(|(&id, _)| id);
    let Some(pad_id) = pad_id.filter(|&id| id < n) else {
        return Err(
            vocabulary.error(format_args!("{pad:?}, the blank, is none of the {n} outputs"))
        );
    };
    if let Some(said) = blank.filter(|&said| said != pad_id) {
        return Err(vocabulary.error(format_args!(
            "{pad:?}, the blank, is {pad_id}, but pad_token_id of config.json is {said}"
        )));
    }
    let (mut characters, mut columns) = (Vec::new(), vec![pad_id]);
    for id in (0..n).filter(|&id| id != pad_id) {
        let Some(token) = tokens.get(&id) else {
            return Err(
                vocabulary.error(format_args!("there is no symbol {id}, lm_head has {n} outputs"))
            );
        };
        if special.contains(token) && *token != delimiter {
            continue;
        }
        let mut rest = token.chars();
        match (rest.next(), rest.next()) {
            _ if *token == delimiter => characters.push(' '),
            (Some(character), None) => characters.push(character),
            _ => {
                return Err(vocabulary.error(format_args!(
                    "symbol {token:?} ({id}) is not a single character, heads over phones or pieces are not supported"
                )));
            }
        }
        columns.push(id);
    }
    let characters = Characters::new(small(characters)).map_err(|error| vocabulary.error(error))?;
    Ok(Symbols { characters, columns })
}

/// Small letters for capital ones, if there are no small ones and none would be there twice.
fn small(characters: Vec<char>) -> Vec<char> {
    let lowered: Option<Vec<char>> = characters
        .iter()
        .map(|character| {
            let mut lower = character.to_lowercase();
            lower.next().filter(|_| lower.next().is_none())
        })
        .collect();
    let Some(lowered) = lowered else { return characters };
    let mut unique = lowered.clone();
    unique.sort_unstable();
    unique.dedup();
    let capital = !characters.iter().any(|character| character.is_lowercase());
    if capital && unique.len() == characters.len() { lowered } else { characters }
}

/// What these files hold beside sizes and flags.
impl Fields<'_> {
    /// The whole object as numbers by name.
    fn ids_by_name(&self) -> Result<IndexMap<String, usize>, Error> {
        let id = |(token, id): (&String, &Value)| match id
            .as_u64()
            .and_then(|id| id.try_into().ok())
        {
            Some(id) => Ok((token.clone(), id)),
            None if id.is_object() => Err(self.error(format_args!(
                "{token:?} is a vocabulary of its own, several in one file (MMS) are not supported"
            ))),
            None => Err(self.error(format_args!("{token:?} is {id}, expected a whole number"))),
        };
        self.entries().map(id).collect()
    }

    /// `added_tokens_decoder`: tokens with their numbers.
    fn added_tokens(&self) -> Result<Vec<(String, usize)>, Error> {
        let read = |value: &Value| {
            let entry = |(id, token): (&String, &Value)| {
                Some((token.get("content")?.as_str()?.to_owned(), id.parse().ok()?))
            };
            value.as_object()?.iter().map(entry).collect()
        };
        let found = self.typed("added_tokens_decoder", "an object of tokens by number", read)?;
        Ok(found.unwrap_or_default())
    }

    /// A token: a string, or an object with its `content`.
    fn token(&self, name: &str) -> Result<Option<String>, Error> {
        let read = |value: &Value| {
            let text = value.as_str().or_else(|| value.get("content")?.as_str());
            text.map(str::to_owned)
        };
        self.typed(name, "a token", read)
    }

    /// A list of tokens; none where it is absent.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Error> {
        let read = |value: &Value| {
            let text = |value: &Value| {
                let text = value.as_str().or_else(|| value.get("content")?.as_str());
                text.map(str::to_owned)
            };
            value.as_array()?.iter().map(text).collect()
        };
        Ok(self.typed(name, "a list of tokens", read)?.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_files(
        n: usize,
        blank: Option<usize>,
        files: &[(&str, &str)],
    ) -> Result<Symbols, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        read(dir.path(), n, blank).map_err(|error| error.to_string())
    }

    #[test]
    fn symbols_are_those_of_the_vocabulary() {
        let vocabulary = r#"{"B": 0, "<pad>": 2, "|": 1, "<unk>": 3, "Ä": 4}"#;
        let found = read_files(5, Some(2), &[("vocab.json", vocabulary)]).unwrap();
        assert_eq!(found.columns, [2, 0, 1, 4]);
        assert_eq!(found.characters, Characters::new("b ä".chars()).unwrap());
        // Other names of the special ones, some of them added behind the others.
        let vocabulary = r#"{"a": 0, "[UNK]": 1, "[PAD]": 2, "_": 3, "B": 4}"#;
        let tokenizer = r#"{"pad_token": {"content": "[PAD]"}, "unk_token": "[UNK]"}"#;
        let files = [
            ("vocab.json", vocabulary),
            ("tokenizer_config.json", r#"{"word_delimiter_token": "_"}"#),
            ("special_tokens_map.json", tokenizer),
            ("added_tokens.json", r#"{"<s>": 5, "</s>": 6}"#),
        ];
        let found = read_files(7, None, &files).unwrap();
        assert_eq!(found.columns, [2, 0, 3, 4]);
        // With small letters beside them, capital ones stay.
        assert_eq!(found.characters, Characters::new("a B".chars()).unwrap());
    }

    #[test]
    fn vocabularies_that_are_no_characters_are_refused() {
        let check = |n, blank, files: &[(&str, &str)], expected: &[&str]| {
            let error = read_files(n, blank, files).unwrap_err();
            for part in expected {
                assert!(error.contains(part), "{error:?} lacks {part:?}");
            }
        };
        let of = |text| [("vocab.json", text)];
        check(1, None, &[], &["vocab.json", "not there"]);
        check(2, None, &of(r#"{"<pad>": 0, "tʃ": 1}"#), &["\"tʃ\" (1)", "single character"]);
        check(2, None, &of(r#"{"a": 0, "b": 1}"#), &["\"<pad>\", the blank"]);
        check(2, None, &of(r#"{"a": 0, "b": 1, "<pad>": 2}"#), &["none of the 2 outputs"]);
        check(2, Some(0), &of(r#"{"a": 0, "<pad>": 1}"#), &["is 1", "config.json is 0"]);
        check(3, None, &of(r#"{"a": 0, "<pad>": 1}"#), &["no symbol 2"]);
        check(3, None, &of(r#"{"a": 0, "b": 0, "<pad>": 1}"#), &["\"a\" and \"b\" are both 0"]);
        check(3, None, &of(r#"{"|": 0, " ": 2, "<pad>": 1}"#), &["' '"]);
        check(2, None, &of(r#"{"eng": {"a": 0}}"#), &["\"eng\"", "MMS"]);
        check(2, None, &of(r#"{"a": -1}"#), &["\"a\" is -1", "whole number"]);
        let files = [
            ("vocab.json", r#"{"a": 0, "<pad>": 1}"#),
            ("tokenizer_config.json", r#"{"replace_word_delimiter_char": "_"}"#),
        ];
        check(2, None, &files, &["tokenizer_config.json", "replace_word_delimiter_char"]);
    }
}
