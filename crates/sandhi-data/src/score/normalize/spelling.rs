//! British spellings to American ones, word by word.

use std::{collections::HashMap, sync::LazyLock};

use crate::score::is_space;

/// Pairs of words, British first; the file opens with its licence in lines that start with `#`.
static TABLE: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
    let lines = include_str!("spelling.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(' ')).collect()
});

/// Replaces every word that the table has; words are joined by one space.
pub(super) fn american(text: &str) -> String {
    let words = text.split(is_space).filter(|word| !word.is_empty());
    words.map(|word| *TABLE.get(word).unwrap_or(&word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_replaced_whole() {
        assert_eq!(
            american(" the  colour of colourblind theatres\n"),
            "the color of colourblind theaters"
        );
        assert_eq!(TABLE.len(), 1_738);
    }
}
