//! A closed set of characters for CTC, with the blank as number 0.
//!
//! ```text
//! "Don't stop, José!" ─ normalize ─ "don't stop josé" ─ encode ─ [5, 15, …]   blank 0, space 1
//! ```

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use super::Error;

/// What to do with a character outside the vocabulary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// Refuse the text.
    #[default]
    Error,
    /// Leave the character out.
    Skip,
}

/// A vocabulary of characters. Written as one string, the symbols from number 1 on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Characters {
    symbols: Vec<char>,
    ids: HashMap<char, u32>,
}

impl Characters {
    /// The number of CTC's blank.
    pub const BLANK: u32 = 0;

    /// The characters that occur in [normalized](normalize) texts, the space first, then in code
    /// point order.
    pub fn from_texts<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Self {
        let mut found = BTreeSet::new();
        for text in texts {
            found.extend(normalize(text.as_ref()).chars());
        }
        found.remove(&' ');
        let symbols = std::iter::once(' ').chain(found).collect();
        Self::numbered(symbols)
    }

    /// The characters given, numbered from 1.
    ///
    /// # Errors
    ///
    /// [`Error::DuplicateCharacter`].
    pub fn new(symbols: impl IntoIterator<Item = char>) -> Result<Self, Error> {
        let symbols: Vec<char> = symbols.into_iter().collect();
        let mut seen = BTreeSet::new();
        match symbols.iter().find(|&&symbol| !seen.insert(symbol)) {
            Some(&twice) => Err(Error::DuplicateCharacter(twice)),
            None => Ok(Self::numbered(symbols)),
        }
    }

    fn numbered(symbols: Vec<char>) -> Self {
        let ids = symbols.iter().zip(1_u32..).map(|(&symbol, id)| (symbol, id)).collect();
        Self { symbols, ids }
    }

    /// Outputs of a CTC head: the symbols and the blank.
    pub fn n_symbols(&self) -> usize {
        self.symbols.len() + 1
    }

    /// The character with a number; `None` for the blank and outside the vocabulary.
    pub fn symbol(&self, id: u32) -> Option<char> {
        self.symbols.get((id as usize).checked_sub(1)?).copied()
    }

    /// The number of a character.
    pub fn id(&self, symbol: char) -> Option<u32> {
        self.ids.get(&symbol).copied()
    }

    /// Normalizes a text and numbers its characters.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownCharacter`] unless unknown characters are to be skipped.
    pub fn encode(&self, text: &str, unknown: Unknown) -> Result<Vec<u32>, Error> {
        let text = normalize(text);
        let mut ids = Vec::with_capacity(text.len());
        for character in text.chars() {
            match (self.id(character), unknown) {
                (Some(id), _) => ids.push(id),
                (None, Unknown::Skip) => {}
                (None, Unknown::Error) => return Err(Error::UnknownCharacter { character, text }),
            }
        }
        Ok(ids)
    }

    /// The text of symbols, blanks left out. Repeated symbols stay: see [`Characters::collapse`].
    ///
    /// # Errors
    ///
    /// [`Error::UnknownId`] outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        let symbols = ids.iter().filter(|&&id| id != Self::BLANK);
        let missing = |id| Error::UnknownId { id, n_tokens: self.n_symbols() };
        symbols.map(|&id| self.symbol(id).ok_or_else(|| missing(id))).collect()
    }

    /// CTC's map from frame labels to symbols: repetitions become one, then blanks vanish.
    pub fn collapse(labels: &[u32]) -> Vec<u32> {
        let mut ids = labels.to_vec();
        ids.dedup();
        ids.retain(|&id| id != Self::BLANK);
        ids
    }
}

impl TryFrom<String> for Characters {
    type Error = Error;

    fn try_from(symbols: String) -> Result<Self, Error> {
        Self::new(symbols.chars())
    }
}

impl From<Characters> for String {
    fn from(characters: Characters) -> Self {
        characters.symbols.into_iter().collect()
    }
}

/// Lower case in composed form (NFC), letters, digits and marks only; everything else becomes a
/// space except apostrophes that touch a letter (`’` counts as one); runs of spaces become one.
pub fn normalize(text: &str) -> String {
    let characters: Vec<char> = text.nfc().collect::<String>().to_lowercase().nfc().collect();
    let is_letter = |i: Option<usize>| {
        i.and_then(|i| characters.get(i)).is_some_and(|character| character.is_alphanumeric())
    };
    let mut out = String::with_capacity(text.len());
    for (i, &character) in characters.iter().enumerate() {
        let kept = match character {
            '\'' | '\u{2019}' if is_letter(i.checked_sub(1)) || is_letter(Some(i + 1)) => '\'',
            _ if character.is_alphanumeric() => character,
            _ if unicode_normalization::char::is_combining_mark(character) => character,
            _ => ' ',
        };
        if kept != ' ' || !(out.is_empty() || out.ends_with(' ')) {
            out.push(kept);
        }
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn normalized_text_keeps_letters_digits_and_apostrophes() {
        assert_eq!(normalize("  Don’t -- STOP, «José»! "), "don't stop josé");
        assert_eq!(normalize("¿Dónde está?\tÄpfel & Straße"), "dónde está äpfel straße");
        assert_eq!(normalize("the boys' 3.5 e.g. ' x"), "the boys' 3 5 e g x");
        // e and a combining acute compose to one letter.
        assert_eq!(normalize("Jose\u{301}"), "josé");
        assert_eq!(normalize("…"), "");
    }

    #[test]
    fn the_space_comes_first_and_zero_is_blank() {
        let characters = Characters::from_texts(["Bad", "a b!"]);
        assert_eq!(String::from(characters.clone()), " abd");
        assert_eq!(characters.n_symbols(), 5);
        assert_eq!(characters.encode("dab a", Unknown::Error).unwrap(), [4, 2, 3, 1, 2]);
        assert_eq!(characters.decode(&[4, 0, 2, 3, 1, 2]).unwrap(), "dab a");
        assert_eq!(characters.symbol(0), None);
    }

    #[test]
    fn unknown_characters_are_refused_or_skipped() {
        let characters = Characters::new(['a', 'b']).unwrap();
        assert_eq!(characters.encode("abc", Unknown::Skip).unwrap(), [1, 2]);
        let error = characters.encode("abc", Unknown::Error).unwrap_err();
        assert_eq!(error.to_string(), "character 'c' of \"abc\" is not in the vocabulary");
        assert!(matches!(characters.decode(&[3]), Err(Error::UnknownId { id: 3, n_tokens: 3 })));
        assert!(Characters::new(['a', 'a']).is_err());
    }

    #[test]
    fn frame_labels_collapse() {
        // a a - a b b -  ->  a a b
        assert_eq!(Characters::collapse(&[1, 1, 0, 1, 2, 2, 0]), [1, 1, 2]);
    }

    #[test]
    fn serialized_as_one_string() {
        let characters = Characters::from_texts(["aßé"]);
        let json = serde_json::to_string(&characters).unwrap();
        assert_eq!(json, "\" aßé\"");
        assert_eq!(serde_json::from_str::<Characters>(&json).unwrap(), characters);
        assert!(serde_json::from_str::<Characters>("\"aa\"").is_err());
    }

    proptest! {
        #[test]
        fn normalizing_twice_changes_nothing(text in any::<String>()) {
            let once = normalize(&text);
            prop_assert_eq!(normalize(&once), once);
        }

        #[test]
        fn what_a_vocabulary_was_built_from_survives(text in any::<String>()) {
            let characters = Characters::from_texts([&text]);
            let ids = characters.encode(&text, Unknown::Error).unwrap();
            prop_assert_eq!(characters.decode(&ids).unwrap(), normalize(&text));
        }
    }
}
