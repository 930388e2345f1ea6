//! Text as numbers: word pieces for language models, characters for CTC.
//!
//! ```text
//! "the mill"  ─ Tokenizer  ─ [412, 1337]                  lossless, any text
//!             ─ Characters ─ [20, 8, 5, 0x20…]            normalized, a small closed set
//! ```
//!
//! [`JointVocabulary`] is a tokenizer whose vocabulary holds units of speech as well.

mod characters;
mod joint;
mod tokenizer;

pub use characters::{Characters, Unknown, normalize};
#[cfg(test)]
pub(crate) use joint::tests as joint_tests;
pub use joint::{JointVocabulary, Mode, Symbol};
pub use tokenizer::{Piece, Tokenizer};

/// What can go wrong between text and numbers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The vocabulary cannot hold what it must.
    #[error(
        "a byte-level vocabulary needs at least {needed} entries (256 bytes and the special tokens), {found} asked for"
    )]
    VocabularyTooSmall {
        /// Bytes and special tokens.
        needed: usize,
        /// What was asked for.
        found: usize,
    },
    /// Special tokens must be distinct, not empty and without white space.
    #[error("special token {0:?} is empty, holds white space or occurs twice")]
    BadSpecialToken(String),
    /// A token that the vocabulary lacks.
    #[error("the vocabulary has no token {0:?}")]
    UnknownToken(String),
    /// A name that is to be a special token is one that text can become.
    #[error("text can become {0:?}, which is to be a special token")]
    PieceOfText(String),
    /// A vocabulary with gaps, into which nothing can be added.
    #[error("the next id of the vocabulary, {id}, is in use and cannot be that of {token:?}")]
    TakenId {
        /// The number.
        id: u32,
        /// What it would have been for.
        token: String,
    },
    /// One token that would be two symbols.
    #[error("{0:?} marks a mode or a unit; expected another token to begin or end documents with")]
    TwoSymbols(String),
    /// Units are not numbered 0, 1, 2 and so on.
    #[error(
        "the vocabulary has {n_units} tokens of units, and none of them is {missing:?}; expected all numbers from 0"
    )]
    MissingUnit {
        /// The tokens of units.
        n_units: usize,
        /// The first that is not there.
        missing: String,
    },
    /// The vocabulary has other units already.
    #[error("the vocabulary has {found} units already, {expected} were asked for")]
    UnitCount {
        /// Those that are there.
        found: usize,
        /// Those that were to be there.
        expected: usize,
    },
    /// A number outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {n_tokens}")]
    UnknownId {
        /// The number.
        id: u32,
        /// Size of the vocabulary.
        n_tokens: usize,
    },
    /// A character that the CTC vocabulary lacks.
    #[error("character {character:?} of {text:?} is not in the vocabulary")]
    UnknownCharacter {
        /// The character.
        character: char,
        /// The normalized text that it stands in.
        text: String,
    },
    /// A CTC vocabulary names a symbol twice.
    #[error("the vocabulary holds {0:?} twice")]
    DuplicateCharacter(char),
    /// The underlying tokenizer failed; the text is its message.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A tokenizer file could not be read or written.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What the reader or writer said.
        reason: String,
    },
}
