//! What BLEU takes for words.
//!
//! `13a` and `intl` are the rules of NIST's mteval scripts (v13a and v14) in the form that
//! sacreBLEU gave them: three or four substitutions that put spaces around symbols.

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::score::is_space;

/// A tokenizer of [`super::bleu`], by sacreBLEU's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BleuTokenizer {
    /// The rules of mteval-v13a, for European languages.
    #[default]
    #[serde(rename = "13a")]
    Mteval13a,
    /// The rules of mteval-v14: all of Unicode's punctuation and symbols.
    Intl,
    /// Every character.
    Char,
    /// White space only.
    None,
}

impl BleuTokenizer {
    /// sacreBLEU's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mteval13a => "13a",
            Self::Intl => "intl",
            Self::Char => "char",
            Self::None => "none",
        }
    }

    pub(super) fn tokens(self, text: &str) -> Vec<String> {
        let spaced = match self {
            Self::Mteval13a => mteval_13a(text),
            Self::Intl => substitute(text, &INTERNATIONAL),
            Self::Char => {
                let characters = text.chars().filter(|&character| !is_space(character));
                return characters.map(String::from).collect();
            }
            Self::None => text.to_owned(),
        };
        spaced.split(is_space).filter(|token| !token.is_empty()).map(str::to_owned).collect()
    }
}

impl std::str::FromStr for BleuTokenizer {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [Self::Mteval13a, Self::Intl, Self::Char, Self::None];
        let found = all.into_iter().find(|tokenizer| tokenizer.name() == name);
        found.ok_or_else(|| format!("found {name:?}, expected 13a, intl, char or none"))
    }
}

type Rules = Vec<(Regex, &'static str)>;

fn rules(rules: &[(&str, &'static str)]) -> Rules {
    let compile = |pattern| Regex::new(pattern).expect("the pattern is a constant");
    rules.iter().map(|&(pattern, replacement)| (compile(pattern), replacement)).collect()
}

static MTEVAL_13A: LazyLock<Rules> = LazyLock::new(|| {
    rules(&[
        // ASCII symbols except apostrophe, comma, hyphen and period.
        (r"([\{-~\[-` -&\(-\+:-@/])", " $1 "),
        // Period and comma unless a digit stands before, then unless one stands behind.
        (r"([^0-9])([\.,])", "$1 $2 "),
        (r"([\.,])([^0-9])", " $1 $2"),
        // A hyphen behind a digit.
        (r"([0-9])(-)", "$1 $2 "),
    ])
});

static INTERNATIONAL: LazyLock<Rules> = LazyLock::new(|| {
    rules(&[(r"(\P{N})(\p{P})", "$1 $2 "), (r"(\p{P})(\P{N})", " $1 $2"), (r"(\p{S})", " $1 ")])
});

fn mteval_13a(text: &str) -> String {
    let mut text = text.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    if text.contains('&') {
        for (entity, character) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")]
        {
            text = text.replace(entity, character);
        }
    }
    substitute(&format!(" {text} "), &MTEVAL_13A)
}

fn substitute(text: &str, rules: &Rules) -> String {
    let mut text = text.to_owned();
    for (pattern, replacement) in rules {
        text = pattern.replace_all(&text, *replacement).into_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tokenizer: BleuTokenizer, text: &str, expected: &str) {
        assert_eq!(tokenizer.tokens(text).join(" "), expected);
    }

    #[test]
    fn numbers_keep_their_points_and_commas() {
        check(
            BleuTokenizer::Mteval13a,
            "It cost $1,234.50, he said.",
            "It cost $ 1,234.50 , he said .",
        );
        check(BleuTokenizer::Mteval13a, "a 3-day e-mail &quot;x&quot;", "a 3 - day e-mail \" x \"");
    }

    #[test]
    fn other_scripts() {
        check(BleuTokenizer::Intl, "«Où?» 3,5€", "« Où ? » 3,5 €");
        check(BleuTokenizer::Char, " ab\tc ", "a b c");
        check(BleuTokenizer::None, "a,b  c.", "a,b c.");
    }
}
