//! Patches: which tokens a transformer over patches sees as one step.
//!
//! ```text
//! tokens      B  <t>  the  mill  <s>  17 17 203 998 5 5 41  <t>  is   E
//! patches    |B |<t> |the |mill |<s> |17 17 203 998|5 5 41 |<t> |is  |E |        static, four units
//! ```
//!
//! Whatever is not a unit is a patch of its own; units are grouped by a [`Rule`], which reads one token after another
//! and says when a patch is whole. [`Patches`] are those of a document, with the token after which each is known.
//! A [`Patching`] chooses the rule, for all documents alike or by the progress of training. All of it is
//! decided on the host.
//!
//! Latent Speech-Text Transformer, <https://arxiv.org/abs/2510.06195>, section 3. There the marker of speech belongs to
//! the first patch of a static run; here it is always alone, whatever the rule, so that a model that is trained by two
//! rules sees it in one way.

mod aligned;
mod config;
mod entropy;
mod learned;
mod merges;
mod patches;
mod static_size;

pub use self::{
    aligned::{Aligned, Granularity, Silence},
    config::{
        AlignedConfig, CurriculumConfig, MixedConfig, Patching, PatchingConfig, StaticConfig,
    },
    entropy::{Entropy, EntropyConfig, UnitEntropy},
    learned::LearnedError,
    merges::UnitMerges,
    patches::{Closure, Patches},
    static_size::Static,
};

use crate::{
    interleave::Document,
    text::{self, JointVocabulary, Symbol},
    units::UnitWord,
};

/// What matters of a token to patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A piece of text, a marker, begin or end: always a patch of its own.
    Alone,
    /// This unit of speech, which may share a patch with the units beside it.
    Unit(u32),
}

impl From<Symbol> for TokenKind {
    fn from(symbol: Symbol) -> Self {
        match symbol {
            Symbol::Unit(unit) => Self::Unit(unit),
            Symbol::Text | Symbol::Begin | Symbol::End | Symbol::Marker(_) => Self::Alone,
        }
    }
}

/// What a token closes when it is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Closed {
    /// A patch of units that was open ahead of it.
    pub before: bool,
    /// The patch that it ends.
    pub after: bool,
}

/// How units are grouped. It holds where it stands in a sequence: a copy of a new one is needed for every sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// So many units a patch.
    Static(Static),
    /// A word or a silence a patch.
    Aligned(Aligned),
    /// Up to where the next unit is uncertain.
    Entropy(Entropy),
}

impl Rule {
    /// Reads a token. `mark` says that a boundary that is given, the end of a word or of a silence, lies right after
    /// it; it is ignored of what is no unit.
    pub fn push(&mut self, kind: TokenKind, mark: bool) -> Closed {
        match self {
            Self::Static(rule) => rule.push(kind),
            Self::Aligned(rule) => rule.push(kind, mark),
            Self::Entropy(rule) => rule.push(kind),
        }
    }

    /// The patches of a document whose spans are of an utterance with these words; a text has none.
    ///
    /// # Errors
    ///
    /// [`Error::Word`], [`Error::First`], [`Error::Text`].
    pub fn patches(
        self,
        document: &Document,
        words: &[UnitWord],
        vocabulary: &JointVocabulary,
        closure: Closure,
    ) -> Result<Patches, Error> {
        let kinds: Result<Vec<TokenKind>, text::Error> =
            document.ids.iter().map(|&id| Ok(vocabulary.known(id)?.into())).collect();
        let marks = match &self {
            Self::Static(_) | Self::Entropy(_) => vec![false; document.ids.len()],
            Self::Aligned(rule) => rule.marks(document, words, vocabulary)?,
        };
        Patches::new(self, kinds?.into_iter().zip(marks), closure)
    }
}

/// Why there are no patches.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing precedes the first unit that it could be predicted from.
    #[error(
        "found {found} at the start, expected a token that is no unit, such as the one that documents begin with"
    )]
    First {
        /// A unit, or nothing.
        found: &'static str,
    },
    /// The words are those of another utterance.
    #[error(
        "found word {word} in the document, expected one of the {n_words} words of its utterance"
    )]
    Word {
        /// The number of the word.
        word: u32,
        /// The words that there are.
        n_words: usize,
    },
    /// A token is not of the vocabulary, or a foreign tokenizer fails.
    #[error(transparent)]
    Text(#[from] text::Error),
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Tokens as `Bsuu'0tw`: `u` and digits are units, `u'` is one before a mark, all else stands alone.
    pub(super) fn tokens(picture: &str) -> Vec<(TokenKind, bool)> {
        let mut tokens = Vec::new();
        for c in picture.chars() {
            match (c, tokens.last_mut()) {
                ('\'', Some((_, mark))) => *mark = true,
                ('u', _) => tokens.push((TokenKind::Unit(0), false)),
                ('0'..='9', _) => tokens.push((TokenKind::Unit(c as u32 - '0' as u32), false)),
                _ => tokens.push((TokenKind::Alone, false)),
            }
        }
        tokens
    }

    /// Lengths of patches as a picture, `|B|s|uu|`, after the tokens without marks.
    pub(super) fn check(rule: Rule, picture: &str, expected: &str) {
        let patches = Patches::new(rule, tokens(picture), Closure::Causal).unwrap();
        let letters: Vec<char> = picture.chars().filter(|&c| c != '\'').collect();
        let mut shown = "|".to_owned();
        let mut start = 0;
        for &end in &patches.ends {
            shown.extend(&letters[start..end as usize]);
            shown.push('|');
            start = end as usize;
        }
        assert_eq!(shown, expected);
    }
}
