//! Which words are text and which are speech.
//!
//! ```text
//! pieces   s0  w0 w1 w2  s1  w3 w4 w5 w6  s2  w7  s3  w8 w9  s4        words, and silences where there are some
//! blocks   |-- text ---|  |-- speech --|  |-------- text ------|
//! kept      w0 w1 w2    ½s1 w3 w4 w5 w6 ½s2   w7 w8 w9                 of a silence at an edge, the nearer half
//! ```
//!
//! Of n words, a block of text has from `max(2, min(5, upper))` to `upper = max(2, min(30, ⌊0.6 n⌋))`, each as
//! likely, and a block of speech half as many as the text before it, two at least. A coin decides which comes first; a
//! block of speech that does is drawn between half the bounds of text. The last block is cut to what is left, and one
//! of fewer than three words goes to the block before it.
//!
//! A silence at an edge between speech and text is split: speech keeps `⌈s / 2⌉` of its s units, the rest is said
//! nowhere. At the start and end of the utterance it is kept whole, and text has none. Words that have not one unit
//! among them cannot be said: they are written, with the text around them.

use std::ops::Range;

use super::Error;
use crate::{
    rng::Stream,
    text::Mode,
    units::{UnitUtterance, words_problem},
};

/// A word or a silence with its units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The word, by its number in the utterance; `None` for silence.
    pub word: Option<usize>,
    /// Its units in the utterance; a word may have none.
    pub units: Range<usize>,
}

/// Words that are read alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// Words that are written.
    Text {
        /// Their numbers in the utterance.
        words: Range<usize>,
    },
    /// Words that are said.
    Speech {
        /// Words and silences in their order.
        spans: Vec<Span>,
    },
}

/// Words and silences of an utterance, which cover its units without a gap; no silence is empty.
///
/// # Errors
///
/// [`Error::Word`] for words that overlap or end behind the utterance.
pub fn pieces(utterance: &UnitUtterance) -> Result<Vec<Span>, Error> {
    let n_units = utterance.units.len();
    if let Some((word, found, expected)) = words_problem(&utterance.words, n_units) {
        let (id, word) = (utterance.id.clone(), word.to_owned());
        return Err(Error::Word { id, word, found, expected });
    }
    let mut pieces = Vec::with_capacity(2 * utterance.words.len() + 1);
    let mut end = 0;
    for (number, word) in utterance.words.iter().enumerate() {
        let units = word.start as usize..word.end as usize;
        if units.start > end {
            pieces.push(Span { word: None, units: end..units.start });
        }
        end = units.end;
        pieces.push(Span { word: Some(number), units });
    }
    if n_units > end {
        pieces.push(Span { word: None, units: end..n_units });
    }
    Ok(pieces)
}

/// Draws the blocks of an utterance. Its words are numbered in their order, as [`pieces`] gives them; without words there
/// is none.
pub fn draw_blocks(pieces: &[Span], stream: &mut Stream) -> Vec<Block> {
    let words: Vec<usize> = (0..pieces.len()).filter(|&i| pieces[i].word.is_some()).collect();
    let (mut mode, lengths) = draw_lengths(words.len(), stream);
    let mut blocks: Vec<Block> = Vec::with_capacity(lengths.len());
    let mut first = 0;
    for n_words in lengths {
        let numbers = first..first + n_words;
        first = numbers.end;
        let said = (mode == Mode::Speech)
            .then(|| speech(pieces, &words, numbers.clone()))
            .filter(|spans| spans.iter().any(|span| !span.units.is_empty()));
        match (said, blocks.last_mut()) {
            (Some(spans), _) => blocks.push(Block::Speech { spans }),
            (None, Some(Block::Text { words })) => words.end = numbers.end,
            (None, _) => blocks.push(Block::Text { words: numbers }),
        }
        mode = mode.other();
    }
    blocks
}

/// The mode of the first block and the words of each.
fn draw_lengths(n_words: usize, stream: &mut Stream) -> (Mode, Vec<usize>) {
    let upper = (n_words * 3 / 5).clamp(2, 30);
    let lower = upper.min(5);
    let mut between = |low: usize, high: usize| low + stream.below(high - low + 1);
    let first = if between(0, 1) == 0 { Mode::Text } else { Mode::Speech };
    let mut lengths: Vec<usize> = Vec::new();
    let (mut mode, mut n_left) = (first, n_words);
    while n_left > 0 {
        let length = match (mode, lengths.last()) {
            (Mode::Text, _) => between(lower, upper),
            (Mode::Speech, Some(text)) => (text / 2).max(2),
            (Mode::Speech, None) => between((lower / 2).max(2), (upper / 2).max(2)),
        };
        let length = length.min(n_left);
        lengths.push(length);
        n_left -= length;
        mode = mode.other();
    }
    if let [.., before, last] = &mut lengths[..]
        && *last < 3
    {
        *before += *last;
        lengths.pop();
    }
    (first, lengths)
}

/// Words as speech, with the silences around them; `at` are the places of all words among the pieces.
fn speech(pieces: &[Span], at: &[usize], words: Range<usize>) -> Vec<Span> {
    let from = if words.start == 0 { 0 } else { at[words.start - 1] + 1 };
    let to = at.get(words.end).copied().unwrap_or(pieces.len());
    let (first, last) = (at[words.start], at[words.end - 1]);
    let keep = |i: usize| {
        let Span { word, units } = pieces[i].clone();
        let n_kept = units.len().div_ceil(2);
        let units = if i < first && words.start > 0 {
            units.end - n_kept..units.end
        } else if i > last && words.end < at.len() {
            units.start..units.start + n_kept
        } else {
            units
        };
        Span { word, units }
    };
    (from..to).map(keep).collect()
}
