//! Text normalizers for scoring, after Whisper's (Radford et al., 2022, appendix C,
//! <https://arxiv.org/abs/2212.04356>).
//!
//! ```text
//! "[noise] Mr. Smith won't pay $20 million"
//!    basic    ->  "mr smith won t pay 20 million"
//!    english  ->  "mister smith will not pay $20000000"
//! ```
//!
//! Published error rates are taken after one of these, so that they are only comparable when the
//! normalizer is named with the number ([`Normalizer::name`]). Results equal those of the Python
//! package `whisper_normalizer` 0.1.15, oddities included (white space at an end is kept as one
//! space by [`Normalizer::Basic`]).

mod english;
mod numbers;
mod spelling;
mod unicode;

use std::{borrow::Cow, sync::LazyLock};

use regex::Regex;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

/// What is done to references and hypotheses before they are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalizer {
    /// Nothing.
    #[default]
    None,
    /// Lower case; no punctuation, symbols or combining marks; nothing in brackets.
    Basic,
    /// [`Normalizer::Basic`], and letters lose their diacritics.
    BasicWithoutDiacritics,
    /// [`Normalizer::Basic`], and every character is a word, for scripts without spaces.
    BasicLetters,
    /// Contractions written out, numbers in digits, American spelling.
    English,
}

impl Normalizer {
    /// All normalizers.
    pub const ALL: [Self; 5] =
        [Self::None, Self::Basic, Self::BasicWithoutDiacritics, Self::BasicLetters, Self::English];

    /// The name on the command line and beside scores.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "basic",
            Self::BasicWithoutDiacritics => "basic-without-diacritics",
            Self::BasicLetters => "basic-letters",
            Self::English => "english",
        }
    }

    /// Normalizes a text.
    pub fn apply(self, text: &str) -> String {
        match self {
            Self::None => text.to_owned(),
            Self::Basic => basic(text, unicode::without_symbols),
            Self::BasicWithoutDiacritics => {
                basic(text, |text| unicode::without_symbols_and_diacritics(text, ""))
            }
            Self::BasicLetters => {
                let spaced = cleaned(text, unicode::without_symbols);
                let letters: Vec<&str> = spaced.graphemes(true).collect();
                single_spaces(&letters.join(" "))
            }
            Self::English => english::normalize(text),
        }
    }
}

impl std::fmt::Display for Normalizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Normalizer {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|normalizer| normalizer.name() == name);
        found.ok_or_else(|| {
            let expected = Self::ALL.map(Self::name).join(", ");
            format!("found {name:?}, expected one of {expected}")
        })
    }
}

fn basic(text: &str, clean: impl Fn(&str) -> String) -> String {
    single_spaces(&cleaned(text, clean))
}

fn cleaned(text: &str, clean: impl Fn(&str) -> String) -> String {
    clean(&without_brackets(&text.to_lowercase())).to_lowercase()
}

/// Takes out what stands in `<>`, `[]` and `()`: it is not speech.
fn without_brackets(text: &str) -> String {
    static BRACKETS: LazyLock<Regex> = LazyLock::new(|| constant(r"[<\[][^>\]]*[>\]]"));
    static PARENTHESES: LazyLock<Regex> = LazyLock::new(|| constant(r"\([^)]+?\)"));
    let text = BRACKETS.replace_all(text, "");
    PARENTHESES.replace_all(&text, "").into_owned()
}

/// Makes every run of white space one space, also at the ends.
fn single_spaces(text: &str) -> String {
    static SPACES: LazyLock<Regex> = LazyLock::new(|| constant(r"[\s\x1c-\x1f]+"));
    SPACES.replace_all(text, " ").into_owned()
}

fn constant(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is a constant")
}

fn compose<'a>(text: &'a str) -> Cow<'a, str> {
    if text.is_ascii() { Cow::Borrowed(text) } else { Cow::Owned(text.nfkc().collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(normalizer: Normalizer, text: &str, expected: &str) {
        assert_eq!(normalizer.apply(text), expected);
    }

    #[test]
    fn basic_keeps_letters_and_digits() {
        check(Normalizer::Basic, "[noise] Mr. Smith won't pay $20!", " mr smith won t pay 20 ");
        check(Normalizer::Basic, "Äpfel (very ripe) für José", "äpfel für josé");
        check(Normalizer::BasicWithoutDiacritics, "Äpfel für José, Łódź", "apfel fur jose lodz");
        check(Normalizer::BasicLetters, "東京 へ", "東 京 へ");
        check(Normalizer::None, " A! ", " A! ");
    }

    #[test]
    fn english_writes_contractions_out() {
        check(
            Normalizer::English,
            "Mr. Smith won't pay, he's gone",
            "mister smith will not pay he has gone",
        );
        check(Normalizer::English, "Hmm, the colour isn't grey", "the color is not gray");
    }

    #[test]
    fn english_writes_numbers_in_digits() {
        check(Normalizer::English, "$20 million", "$20000000");
        check(Normalizer::English, "twenty five dollars and seven cents", "$25.07");
        check(Normalizer::English, "one oh one, the 1960s", "101 the 1960s");
        check(Normalizer::English, "two and a half million", "2500000");
        check(Normalizer::English, "the twenty-first", "the 21st");
    }

    #[test]
    fn names_are_read_back() {
        for normalizer in Normalizer::ALL {
            assert_eq!(normalizer.name().parse(), Ok(normalizer));
        }
        assert!("Basic".parse::<Normalizer>().is_err());
    }
}
