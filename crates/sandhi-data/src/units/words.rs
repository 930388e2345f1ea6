//! Where words lie among units.
//!
//! ```text
//! seconds   0.00   0.12     0.31      0.52          25 units a second
//! words      |      |--the---|--mill---|
//! units      | 0 1 2|3 4 5 6 7|8 …   12|            3.0, 7.75 and 13.0: each to the nearest
//! ```

use super::UnitWord;
use crate::alignment::Alignment;

/// The units of words that have times: each boundary goes to the nearest unit, none behind the last of `n_units`. A
/// word that begins before the one ahead of it ends begins there. Labels without a character are silence, and left
/// out.
pub fn words_in_units(words: &[Alignment], rate_hz: f64, n_units: u32) -> Vec<UnitWord> {
    // The cast takes what is negative or not a number to 0, and what is too large to the largest.
    let nearest = |time_s: f64| ((time_s * rate_hz).round() as u32).min(n_units);
    let mut before = 0;
    let said = words.iter().filter(|word| !word.label.trim().is_empty());
    said.map(|word| {
        let start = nearest(word.start_s).max(before);
        let end = nearest(word.end_s).max(start);
        before = end;
        UnitWord { word: word.label.clone(), start, end }
    })
    .collect()
}

/// The first word that cannot lie where it is said to in an utterance of `n_units`: the word, what was found and what
/// was expected.
pub(crate) fn problem(words: &[UnitWord], n_units: usize) -> Option<(&str, String, String)> {
    let mut before = 0;
    for UnitWord { word, start, end } in words {
        let wrong = |expected: String| {
            Some((word.as_str(), format!("the units {start} to {end}"), expected))
        };
        if word.trim().is_empty() {
            let found = format!("nothing written at the units {start} to {end}");
            return Some((word, found, "a word; silence is what no word covers".to_owned()));
        }
        if *start < before {
            return wrong(format!("a start of {before} at least, where the word ahead ends"));
        }
        if end < start {
            return wrong("an end that is not before the start".to_owned());
        }
        if *end as usize > n_units {
            return wrong(format!("an end of {n_units} at most, the units of the utterance"));
        }
        before = *end;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::alignment::tests::label;

    fn check(words: &[(&str, f64, f64)], n_units: u32, expected: &[(&str, u32, u32)]) {
        let words: Vec<_> =
            words.iter().map(|&(word, start, end)| label(word, start, end)).collect();
        let expected: Vec<UnitWord> = expected
            .iter()
            .map(|&(word, start, end)| (word.to_owned(), start, end).into())
            .collect();
        assert_eq!(words_in_units(&words, 25.0, n_units), expected);
    }

    #[test]
    fn boundaries_go_to_the_nearest_unit() {
        // 3.0, 7.75 -> 8 and 13.0 units.
        check(&[("the", 0.12, 0.31), ("mill", 0.31, 0.52)], 20, &[("the", 3, 8), ("mill", 8, 13)]);
        // 0.25 -> 0 and 0.48 * 25 = 12.0: the first unit belongs to the word.
        check(&[("a", 0.01, 0.48)], 20, &[("a", 0, 12)]);
    }

    #[test]
    fn words_end_with_the_utterance_and_never_overlap() {
        check(
            &[("a", 0.1, 0.5), ("b", 0.4, 0.45), ("c", 0.7, 9.0)],
            20,
            &[("a", 3, 13), ("b", 13, 13), ("c", 18, 20)],
        );
        check(&[("a", -1.0, f64::NAN)], 20, &[("a", 0, 0)]);
        check(&[("a", 3.0, 4.0)], 20, &[("a", 20, 20)]);
    }

    #[test]
    fn silence_is_no_word() {
        check(&[("", 0.0, 0.2), ("a", 0.2, 0.4), (" ", 0.4, 0.8)], 20, &[("a", 5, 10)]);
    }

    proptest! {
        #[test]
        fn any_times_give_words_that_can_be(
            times in proptest::collection::vec((-1.0..9.0_f64, -1.0..2.0_f64), 0..12),
            rate_hz in 1.0..60.0_f64,
            n_units in 0_u32..300,
        ) {
            let words: Vec<_> =
                times.iter().map(|&(start, length)| label("w", start, start + length)).collect();
            let found = words_in_units(&words, rate_hz, n_units);
            prop_assert_eq!(found.len(), words.len());
            prop_assert_eq!(problem(&found, n_units as usize), None);
        }

        #[test]
        fn words_apart_lie_within_half_a_unit_of_their_times(
            lengths in proptest::collection::vec((0.0..0.5_f64, 0.0..0.5_f64), 0..12),
        ) {
            let mut end_s = 0.0;
            let words: Vec<_> = lengths
                .iter()
                .map(|&(gap, length)| {
                    let start_s = end_s + gap;
                    end_s = start_s + length;
                    label("w", start_s, end_s)
                })
                .collect();
            for (word, found) in words.iter().zip(words_in_units(&words, 25.0, 1_000)) {
                prop_assert!((f64::from(found.start) - word.start_s * 25.0).abs() <= 0.5);
                prop_assert!((f64::from(found.end) - word.end_s * 25.0).abs() <= 0.5);
            }
        }
    }
}
