//! Tokens of what is read.
//!
//! ```text
//! interleaved   <|begin|> (<|text|> pieces | <|speech|> units) … <|end|>       a marker ahead of every block
//! spoken        <|begin|> <|speech|> units <|end|>
//! written       <|begin|> <|text|> pieces <|end|>
//! transcribed   <|begin|> <|speech|> units <|text|> pieces <|end|>             the same, said and then written
//! voiced        <|begin|> <|text|> pieces <|speech|> units <|end|>             the same, written and then said
//! ```

use std::ops::Range;

use super::{
    Error,
    blocks::{Block, Span, draw_blocks, pieces},
};
use crate::{
    rng::Stream,
    text::{JointVocabulary, Mode},
    units::UnitUtterance,
};

/// A sequence that a model learns from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its tokens, the first of which begins a document.
    pub ids: Vec<u32>,
    /// Every word and every silence that is said, in their order; none is empty.
    pub spans: Vec<SpeechSpan>,
    /// The token at which each word begins, written or said; the next one where a word has none of its own.
    pub words: Vec<u32>,
    /// Tokens that are units.
    pub n_units: usize,
}

impl Document {
    /// Words that begin in it, written or said.
    pub fn n_words(&self) -> usize {
        self.words.len()
    }
}

/// The tokens in which a word is said, or a silence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeechSpan {
    /// Tokens of the document, all of them units.
    pub tokens: Range<usize>,
    /// The word, by its number in the utterance; `None` for silence.
    pub word: Option<u32>,
}

/// An utterance in blocks of text and speech, [drawn](draw_blocks) anew by every stream.
///
/// # Errors
///
/// [`Error::Wordless`] where no words are known, [`Error::Word`] and [`Error::Unit`] for what cannot be, [`Error::Text`]
/// where a foreign tokenizer fails.
pub fn interleaved(
    utterance: &UnitUtterance,
    vocabulary: &JointVocabulary,
    stream: &mut Stream,
) -> Result<Document, Error> {
    if utterance.words.is_empty() {
        return Err(Error::Wordless { id: utterance.id.clone() });
    }
    let blocks = draw_blocks(&pieces(utterance)?, stream);
    let mut tokens = Tokens::new(vocabulary);
    for block in &blocks {
        match block {
            Block::Text { words } => {
                let words = utterance.words[words.clone()].iter();
                let words: Vec<&str> = words.map(|word| word.word.as_str()).collect();
                let starts = words.iter().scan(0, |start, word| {
                    let this = *start;
                    *start += word.len() + 1;
                    Some(this)
                });
                tokens.text(&words.join(" "), starts)?;
            }
            Block::Speech { spans } => tokens.speech(utterance, spans)?,
        }
    }
    Ok(tokens.end())
}

/// An utterance as speech alone.
///
/// # Errors
///
/// As [`interleaved`].
pub fn spoken(utterance: &UnitUtterance, vocabulary: &JointVocabulary) -> Result<Document, Error> {
    let mut tokens = Tokens::new(vocabulary);
    tokens.speech(utterance, &pieces(utterance)?)?;
    Ok(tokens.end())
}

/// A text, as it is; its words are runs of characters that are not white space.
///
/// # Errors
///
/// [`Error::Text`] where a foreign tokenizer fails.
pub fn written(text: &str, vocabulary: &JointVocabulary) -> Result<Document, Error> {
    let mut tokens = Tokens::new(vocabulary);
    tokens.whole_text(text)?;
    Ok(tokens.end())
}

/// An utterance as speech, and what it says behind it: what recognition is learned from.
///
/// # Errors
///
/// As [`interleaved`].
pub fn transcribed(
    utterance: &UnitUtterance,
    text: &str,
    vocabulary: &JointVocabulary,
) -> Result<Document, Error> {
    let mut tokens = Tokens::new(vocabulary);
    tokens.speech(utterance, &pieces(utterance)?)?;
    tokens.whole_text(text)?;
    Ok(tokens.end())
}

/// A text, and behind it an utterance that says it: what speaking is learned from.
///
/// # Errors
///
/// As [`interleaved`].
pub fn voiced(
    text: &str,
    utterance: &UnitUtterance,
    vocabulary: &JointVocabulary,
) -> Result<Document, Error> {
    let mut tokens = Tokens::new(vocabulary);
    tokens.whole_text(text)?;
    tokens.speech(utterance, &pieces(utterance)?)?;
    Ok(tokens.end())
}

/// An utterance and what it says, as an example of what is to be done.
pub type Solved<'a> = (&'a UnitUtterance, &'a str);

/// The beginning of a document that goes on with what an utterance says, behind as many solved examples as there are:
/// `<|begin|> (<|speech|> units <|text|> pieces) … <|speech|> units <|text|>`.
///
/// # Errors
///
/// As [`interleaved`].
pub fn to_transcribe(
    solved: &[Solved<'_>],
    utterance: &UnitUtterance,
    vocabulary: &JointVocabulary,
) -> Result<Vec<u32>, Error> {
    let mut tokens = Tokens::new(vocabulary);
    for (utterance, text) in solved {
        tokens.speech(utterance, &pieces(utterance)?)?;
        tokens.whole_text(text)?;
    }
    tokens.speech(utterance, &pieces(utterance)?)?;
    Ok(tokens.goes_on(Mode::Text))
}

/// The beginning of a document that goes on with the units that say a text, as [`to_transcribe`]:
/// `<|begin|> (<|text|> pieces <|speech|> units) … <|text|> pieces <|speech|>`.
///
/// # Errors
///
/// As [`interleaved`].
pub fn to_voice(
    solved: &[Solved<'_>],
    text: &str,
    vocabulary: &JointVocabulary,
) -> Result<Vec<u32>, Error> {
    let mut tokens = Tokens::new(vocabulary);
    for (utterance, text) in solved {
        tokens.whole_text(text)?;
        tokens.speech(utterance, &pieces(utterance)?)?;
    }
    tokens.whole_text(text)?;
    Ok(tokens.goes_on(Mode::Speech))
}

/// A document that grows by a block at a time.
struct Tokens<'a> {
    vocabulary: &'a JointVocabulary,
    document: Document,
}

impl<'a> Tokens<'a> {
    fn new(vocabulary: &'a JointVocabulary) -> Self {
        let ids = vec![vocabulary.begin()];
        let document = Document { ids, spans: Vec::new(), words: Vec::new(), n_units: 0 };
        Self { vocabulary, document }
    }

    /// A block of text whose words start at these bytes.
    fn text(&mut self, text: &str, starts: impl Iterator<Item = usize>) -> Result<(), Error> {
        let Document { ids, words, .. } = &mut self.document;
        ids.push(self.vocabulary.marker(Mode::Text));
        let n_before = ids.len();
        let pieces = self.vocabulary.tokenizer().pieces(text)?;
        for start in starts {
            let piece = pieces.partition_point(|piece| piece.span.end <= start);
            words.push((n_before + piece) as u32);
        }
        ids.extend(pieces.iter().map(|piece| piece.id));
        Ok(())
    }

    /// A text as a block, its words runs of characters that are not white space.
    fn whole_text(&mut self, text: &str) -> Result<(), Error> {
        let mut is_in_word = false;
        let starts = text.char_indices().filter(|(_, c)| {
            let was_in_word = std::mem::replace(&mut is_in_word, !c.is_whitespace());
            is_in_word && !was_in_word
        });
        self.text(text, starts.map(|(start, _)| start))
    }

    /// A block of speech.
    fn speech(&mut self, utterance: &UnitUtterance, pieces: &[Span]) -> Result<(), Error> {
        let Document { ids, spans, words, n_units } = &mut self.document;
        ids.push(self.vocabulary.marker(Mode::Speech));
        for Span { word, units } in pieces {
            let start = ids.len();
            let word = word.map(|word| word as u32);
            words.extend(word.map(|_| start as u32));
            for &unit in &utterance.units[units.clone()] {
                let n_units = self.vocabulary.n_units();
                let id = || utterance.id.clone();
                let token = self.vocabulary.unit(unit);
                ids.push(token.ok_or_else(|| Error::Unit { id: id(), unit, n_units })?);
            }
            *n_units += units.len();
            if !units.is_empty() {
                spans.push(SpeechSpan { tokens: start..ids.len(), word });
            }
        }
        Ok(())
    }

    /// All tokens, and the marker of what follows.
    fn goes_on(mut self, mode: Mode) -> Vec<u32> {
        self.document.ids.push(self.vocabulary.marker(mode));
        self.document.ids
    }

    fn end(mut self) -> Document {
        self.document.ids.push(self.vocabulary.end());
        self.document
    }
}
