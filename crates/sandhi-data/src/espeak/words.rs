//! From espeak-ng's events to words with times.
//!
//! ```text
//! text       Anna  is  here,       today
//! events    W     W   W  (phonemes) _  _ W              _ silence
//! words     |----|--| |------|           |------|
//! ```
//!
//! A word event carries a position in the text, and may come several times for one word (numbers), at the
//! space before a word (after a comma), before a pause, or not at all. So the words are cut from
//! the text here; an event only says to which word the phonemes after it belong. A word lasts from
//! its first phoneme's start to its last phoneme's end.

use std::ops::Range;

use super::library::{Event, EventKind};
use crate::alignment::{Alignment, Source};

/// Confidence of words whose common time was shared.
const SHARED: f32 = 0.5;
/// After that many words a space stays breakable, because espeak-ng cuts long clauses at spaces.
const MAX_UNBROKEN: usize = 48;

/// A word of the text.
#[derive(Debug)]
struct Token {
    /// Characters of the text, with punctuation.
    chars: Range<usize>,
    label: String,
    /// Whether it has a letter or a digit.
    is_word: bool,
    /// Indices of its phonemes.
    phonemes: Range<usize>,
}

/// The text with no-break spaces between words: espeak-ng speaks some words as one when a plain space
/// stands between them (`in the`, `have been`), and then tells no time for the second. The number
/// of characters stays the same.
pub(super) fn separated(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut n_unbroken = 0;
    chars
        .iter()
        .enumerate()
        .map(|(i, &c)| {
            let joins = |j: usize| chars.get(j).is_some_and(|c| c.is_alphanumeric());
            if c != ' ' {
                return c;
            }
            if i > 0 && joins(i - 1) && joins(i + 1) && n_unbroken < MAX_UNBROKEN {
                n_unbroken += 1;
                return '\u{a0}';
            }
            n_unbroken = 0;
            c
        })
        .collect()
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut in_token = false;
    for (i, c) in text.chars().enumerate() {
        if c.is_whitespace() || c == '\0' {
            in_token = false;
            continue;
        }
        if !in_token {
            let (label, is_word) = (String::new(), false);
            tokens.push(Token { chars: i..i, label, is_word, phonemes: 0..0 });
            in_token = true;
        }
        if let Some(token) = tokens.last_mut() {
            token.chars.end = i + 1;
            token.label.push(c);
            token.is_word |= c.is_alphanumeric();
        }
    }
    for token in tokens.iter_mut().filter(|token| token.is_word) {
        token.label = token.label.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
    }
    tokens
}

/// Words and phonemes with their times, from the events of a text that was spoken.
pub(super) fn align(
    text: &str,
    events: &[Event],
    n_samples: usize,
    sample_rate_hz: f64,
) -> (Vec<Alignment>, Vec<Alignment>) {
    let mut tokens = tokens(text);
    let mut phonemes: Vec<(String, Range<usize>)> = Vec::new();
    let mut is_open = false;
    let mut current = 0;
    for event in events {
        if is_open && let Some((_, span)) = phonemes.last_mut() {
            span.end = event.sample.max(span.start);
        }
        is_open = false;
        match &event.kind {
            EventKind::Word { text_position } => {
                let position = text_position.saturating_sub(1);
                let at = tokens.partition_point(|token| token.chars.end <= position);
                current = at.min(tokens.len().saturating_sub(1)).max(current);
            }
            EventKind::Phoneme(name) if !name.is_empty() && !name.starts_with('_') => {
                let start = event.sample.min(n_samples);
                phonemes.push((name.clone(), start..n_samples));
                is_open = true;
                if let Some(token) = tokens.get_mut(current) {
                    if token.phonemes.is_empty() {
                        token.phonemes.start = phonemes.len() - 1;
                    }
                    token.phonemes.end = phonemes.len();
                }
            }
            EventKind::Phoneme(_) | EventKind::End => {}
        }
    }

    let seconds = |sample: usize| sample as f64 / sample_rate_hz;
    let alignment = |label: &str, span: Range<usize>, confidence| Alignment {
        label: label.to_owned(),
        start_s: seconds(span.start),
        end_s: seconds(span.end),
        confidence,
        source: Source::Exact,
    };

    // A group is a token with phonemes and the words without that follow it.
    tokens.retain(|token| token.is_word || !token.phonemes.is_empty());
    let mut words = Vec::with_capacity(tokens.len());
    let mut first = 0;
    while first < tokens.len() {
        let spoken = |i: usize| tokens.get(i).is_some_and(|t| !t.phonemes.is_empty());
        let mut last = first;
        while last + 1 < tokens.len() && !(spoken(last + 1) && (first..=last).any(spoken)) {
            last += 1;
        }
        let group = &tokens[first..=last];
        first = last + 1;
        let Some(owner) = group.iter().find(|token| !token.phonemes.is_empty()) else { continue };
        if let [token] = group {
            let span = &phonemes[token.phonemes.clone()];
            words.push(alignment(&token.label, span[0].1.start..span[span.len() - 1].1.end, None));
            continue;
        }
        let labels: Vec<&str> = group.iter().map(|token| token.label.as_str()).collect();
        let spans = share(&labels, &phonemes[owner.phonemes.clone()]);
        for (label, span) in labels.iter().zip(spans) {
            words.push(alignment(label, span, Some(SHARED)));
        }
    }
    let phonemes = phonemes.into_iter().map(|(name, span)| alignment(&name, span, None)).collect();
    (words, phonemes)
}

/// Shares the phonemes among the labels by their characters; by time where there are too few.
fn share(labels: &[&str], phonemes: &[(String, Range<usize>)]) -> Vec<Range<usize>> {
    let n_chars: Vec<usize> = labels.iter().map(|label| label.chars().count()).collect();
    let total = n_chars.iter().sum::<usize>().max(1);
    let (start, end) = match phonemes {
        [] => (0, 0),
        [first, .., last] => (first.1.start, last.1.end),
        [only] => (only.1.start, only.1.end),
    };
    let (n_labels, n_phonemes) = (labels.len(), phonemes.len());
    let mut spans = Vec::with_capacity(n_labels);
    let (mut before, mut taken, mut from) = (0, 0, start);
    for (i, n) in n_chars.iter().enumerate() {
        before += n;
        let to = if n_phonemes >= n_labels {
            // At least one phoneme for this label, and one for each label after it.
            let wanted = (n_phonemes * before + total / 2) / total;
            taken = wanted.clamp(taken + 1, n_phonemes - (n_labels - 1 - i));
            phonemes[taken - 1].1.end
        } else {
            start + (end - start) * before / total
        };
        spans.push(from..to);
        from = phonemes.get(taken).filter(|_| n_phonemes >= n_labels).map_or(to, |p| p.1.start);
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `W4` a word event at position 4, `_` silence, `.` an end, everything else a phoneme; 10 samples apart.
    #[track_caller]
    fn check(text: &str, events: &str, expected: &[(&str, f64, f64)]) {
        let names: Vec<&str> = events.split_whitespace().collect();
        let events: Vec<Event> = names
            .iter()
            .enumerate()
            .map(|(i, name)| Event {
                sample: 10 * i,
                kind: match name.strip_prefix('W') {
                    Some(position) => EventKind::Word { text_position: position.parse().unwrap() },
                    None if *name == "." => EventKind::End,
                    None => EventKind::Phoneme(name.replace('_', "")),
                },
            })
            .collect();
        let (words, _) = align(text, &events, 10 * names.len(), 10.0);
        let words: Vec<(&str, f64, f64)> =
            words.iter().map(|w| (w.label.as_str(), w.start_s, w.end_s)).collect();
        assert_eq!(words, expected);
    }

    #[test]
    fn pauses_belong_to_no_word() {
        // 0   1 2 3  4 5 6 7  8 9 10
        check("ab, cd", "W1 a b _ . W5 _ c d _ .", &[("ab", 1.0, 3.0), ("cd", 7.0, 9.0)]);
    }

    #[test]
    fn positions_count_characters() {
        check(
            "Über ß x",
            "W1 a W6 s W8 k .",
            &[("Über", 1.0, 2.0), ("ß", 3.0, 4.0), ("x", 5.0, 6.0)],
        );
    }

    #[test]
    fn a_number_of_several_events_is_one_word() {
        check(
            "in 1,234 days",
            "W1 i W4 w W5 t _ W6 t _ W10 d .",
            &[("in", 1.0, 2.0), ("1,234", 3.0, 9.0), ("days", 11.0, 12.0)],
        );
    }

    #[test]
    fn an_event_at_the_space_before_belongs_to_the_word_after() {
        check("a, \"b\"", "W1 a . W3 _ W3 b .", &[("a", 1.0, 2.0), ("b", 6.0, 7.0)]);
    }

    #[test]
    fn words_spoken_as_one_share_by_phonemes() {
        // `den` has no event: four phonemes over 2 + 3 characters, 4 * 2 / 5 = 1.6, so two each.
        check(
            "in den Wald",
            "W1 i n d n W8 v .",
            &[("in", 1.0, 3.0), ("den", 3.0, 5.0), ("Wald", 6.0, 7.0)],
        );
    }

    #[test]
    fn punctuation_alone_is_no_word() {
        check("a — b", "W1 a W5 b .", &[("a", 1.0, 2.0), ("b", 3.0, 4.0)]);
    }

    #[test]
    fn inner_apostrophes_and_hyphens_stay() {
        check(
            "well-known o'clock!",
            "W1 a W6 b W12 c W14 d .",
            &[("well-known", 1.0, 4.0), ("o'clock", 5.0, 8.0)],
        );
    }

    #[test]
    fn only_spaces_between_words_become_unbreakable() {
        assert_eq!(separated("in the house, now"), "in\u{a0}the\u{a0}house, now");
        let long = "a ".repeat(200);
        assert_eq!(separated(&long).chars().count(), 400);
        assert!(separated(&long).trim_end().contains(' '));
    }
}
