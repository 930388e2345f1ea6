//! Characters by their general category, as Python's `unicodedata` and `re` see them.

use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use super::{compose, constant};

/// Composes (NFKC) and makes every mark, symbol and punctuation character a space.
pub(super) fn without_symbols(text: &str) -> String {
    static SYMBOLS: LazyLock<Regex> = LazyLock::new(|| constant(r"[\p{M}\p{S}\p{P}]"));
    SYMBOLS.replace_all(&compose(text), " ").into_owned()
}

/// Decomposes (NFKD), drops diacritics, spells out letters that do not decompose, and makes every
/// other mark, symbol and punctuation character a space except those in `keep`.
pub(super) fn without_symbols_and_diacritics(text: &str, keep: &str) -> String {
    static SYMBOLS: LazyLock<Regex> = LazyLock::new(|| constant(r"^[\p{M}\p{S}\p{P}]"));
    static MARKS: LazyLock<Regex> = LazyLock::new(|| constant(r"^\p{Mn}"));
    let mut out = String::with_capacity(text.len());
    let mut buffer = [0; 4];
    for character in text.nfkd() {
        if keep.contains(character) || character == ' ' || character.is_ascii_alphanumeric() {
            out.push(character);
            continue;
        }
        let bytes = character.encode_utf8(&mut buffer);
        match plain(character) {
            Some(plain) => out.push_str(plain),
            None if MARKS.is_match(bytes) => {}
            None if SYMBOLS.is_match(bytes) => out.push(' '),
            None => out.push(character),
        }
    }
    out
}

/// Letters with a stroke and ligatures, which have no decomposition.
fn plain(character: char) -> Option<&'static str> {
    Some(match character {
        'œ' => "oe",
        'Œ' => "OE",
        'ø' => "o",
        'Ø' => "O",
        'æ' => "ae",
        'Æ' => "AE",
        'ß' => "ss",
        'ẞ' => "SS",
        'đ' | 'ð' => "d",
        'Đ' | 'Ð' => "D",
        'þ' | 'Þ' => "th",
        'ł' => "l",
        'Ł' => "L",
        _ => return None,
    })
}

/// Whether Python's `\w` matches: letters, numbers and the underscore (and not, as in other
/// engines, combining marks).
pub(super) fn is_word(character: char) -> bool {
    static WORD: LazyLock<Regex> = LazyLock::new(|| constant(r"^[\p{L}\p{N}]"));
    if character.is_ascii() {
        return character.is_ascii_alphanumeric() || character == '_';
    }
    WORD.is_match(character.encode_utf8(&mut [0; 4]))
}

/// Whether Python's `\b` matches between the two sides of a place.
pub(super) fn is_boundary(before: &str, after: &str) -> bool {
    let before = before.chars().next_back().is_some_and(is_word);
    let after = after.chars().next().is_some_and(is_word);
    before != after
}

/// The value of a decimal digit of any script.
pub(super) fn digit(character: char) -> Option<u8> {
    static DIGIT: LazyLock<Regex> = LazyLock::new(|| constant(r"^\p{Nd}"));
    if character.is_ascii() {
        return character.to_digit(10).map(|digit| digit as u8);
    }
    let is_digit = |code: u32| {
        char::from_u32(code).is_some_and(|c| DIGIT.is_match(c.encode_utf8(&mut [0; 4])))
    };
    let code = u32::from(character);
    if !is_digit(code) {
        return None;
    }
    // Unicode's digits stand in unbroken tens that begin with zero.
    let n_before = (1..code).take_while(|back| is_digit(code - back)).count();
    Some((n_before % 10) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_any_script_have_values() {
        assert_eq!(['7', '٣', '९', '𝟘', '𝟡', '𝟬'].map(digit), [7, 3, 9, 0, 9, 0].map(Some));
        assert_eq!(['x', '½', '²', 'Ⅷ'].map(digit), [None; 4]);
    }

    #[test]
    fn marks_are_no_word_characters() {
        assert_eq!(
            ['é', '漢', '½', '_', '\u{301}', '-'].map(is_word),
            [true, true, true, true, false, false]
        );
    }
}
