//! Speech and text in one sequence: an utterance read in turns, a few words as text, the next ones as units.
//!
//! ```text
//! words      the old mill | is far | from the harbor | …       drawn again whenever the utterance is read
//! document   <|begin|> <|text|> the old mill <|speech|> 17 17 203 998 5 <|text|> from the harbor … <|end|>
//! ```
//!
//! Spirit LM (<https://arxiv.org/abs/2402.05755>, section 3.1) interleaves so; how blocks are drawn is what the Latent
//! Speech-Text Transformer (<https://arxiv.org/abs/2510.06195>) does. [`pieces`] and [`draw_blocks`] cut an utterance,
//! [`interleaved`], [`spoken`], [`written`], [`transcribed`] and [`voiced`] make tokens, [`to_transcribe`] and [`to_voice`] ask for some, [`split`] makes documents that fit a context.

mod blocks;
mod document;
mod split;

pub use self::{
    blocks::{Block, Span, draw_blocks, pieces},
    document::{
        Document, Solved, SpeechSpan, interleaved, spoken, to_transcribe, to_voice, transcribed,
        voiced, written,
    },
    split::split,
};

use crate::{
    rng::{Stream, stream},
    text,
};

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A word that cannot lie where it is said to.
    #[error("utterance {id:?}: word {word:?}: found {found}, expected {expected}")]
    Word {
        /// The utterance.
        id: String,
        /// The word.
        word: String,
        /// Its span.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// An utterance of which no words are known.
    #[error(
        "utterance {id:?}: found no words with their units, which interleaving takes; read it as spoken, or align it"
    )]
    Wordless {
        /// The utterance.
        id: String,
    },
    /// A unit that the vocabulary does not have.
    #[error(
        "utterance {id:?}: found unit {unit}, expected units below {n_units}, those of the vocabulary"
    )]
    Unit {
        /// The utterance.
        id: String,
        /// The unit.
        unit: u32,
        /// Units of the vocabulary.
        n_units: usize,
    },
    /// A context that holds no part of a document.
    #[error("found a context of {found} tokens, expected {least} at least")]
    Context {
        /// What was asked for.
        found: usize,
        /// What is needed.
        least: usize,
    },
    /// Text could not become tokens, or a token is not of the vocabulary.
    #[error(transparent)]
    Text(#[from] text::Error),
}

/// The randomness of reading an utterance in an epoch: a function of the seed and these two alone, whoever else is
/// read, in whatever order.
pub fn reading_stream(seed: u64, epoch: u64, utterance_id: &str) -> Stream {
    let epoch = stream(stream(seed, "reading"), &format!("epoch {epoch}"));
    Stream::named(epoch, utterance_id)
}

#[cfg(test)]
mod tests;
