//! Scores: how far what a model said is from what was right, with the evidence.
//!
//! ```text
//! references ┐
//!            ├─ per-utterance counts ─ sum ─ rate        (WER, CER, BLEU, chrF, exact match)
//! hypotheses ┘            └─ resample ─ sum ─ interval   (bootstrap)
//! ```
//!
//! Every corpus score is a function of a *sum* of per-utterance counts, so that the same counts
//! serve the value, its interval and a paired comparison of two systems.

mod bleu;
mod bootstrap;
mod boundaries;
mod chrf;
mod edit;
mod error_rate;
mod exact;
#[cfg(test)]
mod golden;
mod normalize;

pub use bleu::{Bleu, BleuConfig, BleuCounts, BleuTokenizer, Smoothing, bleu};
pub use bootstrap::{Bootstrap, Interval};
pub use boundaries::{Boundaries, BoundaryCounts, TOLERANCES_S, boundaries};
pub use chrf::{Chrf, ChrfConfig, ChrfCounts, GramCounts, chrf};
pub use edit::{Edit, align};
pub use error_rate::{EditCounts, ErrorRate, cer, unit_edits, wer, word_edits, words};
pub use exact::{ExactMatch, exact_match};
pub use normalize::Normalizer;

/// What can be wrong with a request for a score.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The two lists do not belong together.
    #[error("{references} references but {hypotheses} hypotheses")]
    LengthMismatch {
        /// Number of references.
        references: usize,
        /// Number of hypotheses.
        hypotheses: usize,
    },
}

fn check_lengths(references: usize, hypotheses: usize) -> Result<(), Error> {
    if references == hypotheses {
        Ok(())
    } else {
        Err(Error::LengthMismatch { references, hypotheses })
    }
}

/// White space as Python's `str.split`, `str.strip` and `re` see it: Unicode's and U+001C–001F.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// What a signature says of its maker.
fn version() -> &'static str {
    concat!("sandhi-", env!("CARGO_PKG_VERSION"))
}
