//! Patches as long as words and silences.
//!
//! ```text
//! tokens    B s u u u'u u'u t w       ' a word or a silence ends
//! patches  |B|s|u u u|u u|u|t|w|      what ends without a mark is closed by what follows it
//! ```
//!
//! Where the marks are:
//!
//! ```text
//! words         sil |  the  | sil |    mill    |  sil         of a run of units
//! separate         '        '     '            '     '
//! merged                          '                  '        silence goes to the word ahead of it; the first one has
//! pieces           '        '     '       '    '     '        none, and goes to the next. "mill": ▁mi, ll
//! ```

use serde::{Deserialize, Serialize};

use super::{Closed, Error, TokenKind};
use crate::{
    interleave::{Document, SpeechSpan},
    text::JointVocabulary,
    units::UnitWord,
};

/// What of a word is a patch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// The whole word.
    #[default]
    Word,
    /// Each of its pieces of text, which share its units by their characters.
    Piece,
}

/// Where the units of a silence go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Silence {
    /// Into a patch of their own.
    #[default]
    Separate,
    /// To the word ahead of them, or to the first word of the run, where they begin it.
    Merged,
}

/// Closes a patch at every mark. Without marks, a run of units is one patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aligned {
    granularity: Granularity,
    silence: Silence,
    is_open: bool,
}

impl Aligned {
    /// Marks at the ends that these choose.
    pub fn new(granularity: Granularity, silence: Silence) -> Self {
        Self { granularity, silence, is_open: false }
    }

    /// Reads a token; `mark` says that a boundary lies right after it.
    pub fn push(&mut self, kind: TokenKind, mark: bool) -> Closed {
        match kind {
            TokenKind::Alone => {
                let before = self.is_open;
                self.is_open = false;
                Closed { before, after: true }
            }
            TokenKind::Unit(_) => {
                self.is_open = !mark;
                Closed { before: false, after: mark }
            }
        }
    }

    /// The marks of a document's tokens, whose spans are of an utterance with these words. A word that [`split`]
    /// divided is marked in each part as if the part were all of it.
    ///
    /// [`split`]: crate::interleave::split
    ///
    /// # Errors
    ///
    /// [`Error::Word`], and [`Error::Text`] where a foreign tokenizer fails.
    pub fn marks(
        &self,
        document: &Document,
        words: &[UnitWord],
        vocabulary: &JointVocabulary,
    ) -> Result<Vec<bool>, Error> {
        let mut marks = vec![false; document.ids.len()];
        let mut has_word = false;
        for (i, SpeechSpan { tokens, word }) in document.spans.iter().enumerate() {
            let is_beside = |span: &&SpeechSpan| span.tokens.start == tokens.end;
            let next = document.spans.get(i + 1).filter(is_beside);
            if let (Some(word), Granularity::Piece) = (word, self.granularity) {
                let n_words = words.len();
                let text = words.get(*word as usize).ok_or(Error::Word { word: *word, n_words })?;
                for end in piece_ends(&text.word, tokens.len(), vocabulary)? {
                    marks[tokens.start + end - 1] = true;
                }
            }
            has_word |= word.is_some();
            let is_end = match (self.silence, next) {
                (Silence::Separate, _) | (_, None) => true,
                // A silence stays with what is ahead of it, and that goes on with the silence.
                (Silence::Merged, Some(next)) => has_word && next.word.is_some(),
            };
            if is_end {
                marks[tokens.end - 1] = true;
            }
            has_word &= next.is_some();
        }
        Ok(marks)
    }
}

/// Where the pieces of a word end within its `n_units`, all but the last: by their characters, to the nearest unit.
/// Pieces that get no unit are left out.
fn piece_ends(
    word: &str,
    n_units: usize,
    vocabulary: &JointVocabulary,
) -> Result<Vec<usize>, Error> {
    let pieces = vocabulary.tokenizer().pieces_on(&format!(" {word}"))?;
    let n_chars = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
    let total = n_chars(word).max(1);
    let inner = pieces.iter().take(pieces.len().saturating_sub(1)).map(|piece| {
        // The space ahead of the word counts as a byte and not as a character.
        let n_before = word.get(..piece.span.end.saturating_sub(1)).map_or(0, n_chars);
        (2 * n_units * n_before + total) / (2 * total)
    });
    Ok(inner.filter(|&end| end > 0 && end < n_units).collect())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Closure, Patches, Rule, tests},
        *,
    };
    use crate::{
        interleave::spoken,
        text::joint_tests::vocabulary,
        units::{UnitUtterance, tests::utterance},
    };

    fn check(tokens: &str, expected: &str) {
        let rule = Rule::Aligned(Aligned::new(Granularity::Word, Silence::Separate));
        tests::check(rule, tokens, expected);
    }

    #[test]
    fn marks_close_patches() {
        check("Bsuuu'uu'utw", "|B|s|uuu|uu|u|t|w|");
    }

    #[test]
    fn without_marks_a_run_is_one_patch() {
        check("Bsuuuuusuut", "|B|s|uuuuu|s|uu|t|");
    }

    /// Lengths of the patches of units of an utterance that is spoken.
    fn lengths(utterance: &UnitUtterance, granularity: Granularity, silence: Silence) -> Vec<u32> {
        let vocabulary = vocabulary(100);
        let document = spoken(utterance, &vocabulary).unwrap();
        let rule = Rule::Aligned(Aligned::new(granularity, silence));
        let patches: Patches =
            rule.patches(&document, &utterance.words, &vocabulary, Closure::Causal).unwrap();
        let starts = patches.ends.iter();
        let lengths: Vec<u32> =
            starts.clone().skip(1).zip(starts).map(|(end, start)| end - start).collect();
        // Without the marker and the end.
        lengths[1..lengths.len() - 1].to_vec()
    }

    #[test]
    fn silences_are_patches_or_go_to_words() {
        // sil 2, the 3, sil 1, qzx 6, (o, without a unit,) is 2, sil 4.
        let words = [("the", 2, 5), ("qzx", 6, 12), ("o", 12, 12), ("is", 12, 14)];
        let utterance = utterance("u", &[0; 18], &words);
        let word = |silence| lengths(&utterance, Granularity::Word, silence);
        assert_eq!(word(Silence::Separate), [2, 3, 1, 6, 2, 4]);
        assert_eq!(word(Silence::Merged), [2 + 3 + 1, 6, 2 + 4]);
    }

    #[test]
    fn pieces_share_the_units_of_their_word() {
        // No merges of "qzx" or of its space: the pieces are " ", "q", "z" and "x", of which the space has no character.
        // A third of 6 units each. Of 4 units the pieces end at 4/3 and 8/3, that is 1 and 3; of one unit at 1/3 and
        // 2/3, that is 0 and 1, so that one piece has all of it.
        let words = [("qzx", 0, 6), ("qzx", 6, 10), ("qzx", 10, 11)];
        let utterance = utterance("u", &[0; 13], &words);
        let piece = |silence| lengths(&utterance, Granularity::Piece, silence);
        assert_eq!(piece(Silence::Separate), [2, 2, 2, 1, 2, 1, 1, 2]);
        assert_eq!(piece(Silence::Merged), [2, 2, 2, 1, 2, 1, 3]);
    }

    #[test]
    fn an_utterance_without_words_is_one_patch() {
        for silence in [Silence::Separate, Silence::Merged] {
            assert_eq!(lengths(&utterance("u", &[0; 9], &[]), Granularity::Word, silence), [9]);
        }
    }

    #[test]
    fn words_of_another_utterance_are_refused() {
        let vocabulary = vocabulary(1);
        let utterance = utterance("u", &[0; 4], &[("a", 0, 2), ("b", 2, 4)]);
        let document = spoken(&utterance, &vocabulary).unwrap();
        let rule = Rule::Aligned(Aligned::new(Granularity::Piece, Silence::Separate));
        let words = &utterance.words[..1];
        let error = rule.patches(&document, words, &vocabulary, Closure::Causal).unwrap_err();
        assert_eq!(
            error.to_string(),
            "found word 1 in the document, expected one of the 1 words of its utterance"
        );
    }
}
