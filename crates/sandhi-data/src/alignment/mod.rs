//! Labels with times: words, pieces or phones placed on the time axis.
//!
//! ```text
//! label      the      ball          is
//!         |-------|-----------|   |----|
//!        0.12    0.31        0.66 0.7 0.84   seconds
//! ```
//!
//! One record, [`Alignment`], whatever made it; [`Source`] says what did.

pub mod ctm;
mod error;
mod file;
pub mod jsonl;
pub mod lhotse;
pub mod subtitles;
pub mod textgrid;

use serde::{Deserialize, Serialize};

pub use self::{
    error::Error,
    file::{Format, read},
};

/// One label with its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alignment {
    /// The word, piece or phone.
    pub label: String,
    /// Where it starts, in seconds.
    pub start_s: f64,
    /// Where it ends, in seconds; never before the start.
    pub end_s: f64,
    /// How sure the source is, in `[0, 1]`; `None` where the source does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// Who says so.
    pub source: Source,
}

/// Where a time comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Exact by construction: a synthesizer's own events, or a person's marks.
    Exact,
    /// An automatic aligner's: good for comparing, not for absolute claims.
    Silver,
    /// A model's, named by its hash.
    Model(String),
}

impl Alignment {
    /// Seconds from start to end.
    pub fn duration_s(&self) -> f64 {
        self.end_s - self.start_s
    }

    /// The same label `by_s` seconds later.
    #[must_use]
    pub fn shifted(mut self, by_s: f64) -> Self {
        self.start_s += by_s;
        self.end_s += by_s;
        self
    }
}

/// Times of a word's pieces by their share of its characters.
///
/// ```text
/// word    |   gardening   |    0.9 s, 9 characters
/// pieces  |▁gard |en |ing|    0.4, 0.2 and 0.3 s: 4, 2 and 3 characters
/// ```
///
/// Marks of a word's start or middle (`▁`, `Ġ`, a space, `##`) do not count as characters. Pieces without
/// characters share nothing, except when all are. The first piece starts and the last ends exactly where
/// the word does; confidence and source are the word's.
pub fn subword_times(word: &Alignment, pieces: &[&str]) -> Vec<Alignment> {
    let count = |piece: &&str| {
        let bare = piece.strip_prefix("##").unwrap_or(piece);
        bare.chars().filter(|c| !matches!(c, '▁' | 'Ġ') && !c.is_whitespace()).count()
    };
    let mut n_chars: Vec<usize> = pieces.iter().map(count).collect();
    let mut total: usize = n_chars.iter().sum();
    if total == 0 {
        n_chars.fill(1);
        total = n_chars.len();
    }
    let mut before = 0;
    let mut start_s = word.start_s;
    pieces
        .iter()
        .zip(&n_chars)
        .enumerate()
        .map(|(i, (piece, n))| {
            before += n;
            let end_s = if i + 1 == pieces.len() || before == total {
                word.end_s
            } else {
                (word.start_s + word.duration_s() * before as f64 / total as f64).min(word.end_s)
            };
            let label = (*piece).to_owned();
            let piece = Alignment { label, start_s, end_s, ..word.clone() };
            start_s = end_s;
            piece
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    pub(crate) fn label(label: &str, start_s: f64, end_s: f64) -> Alignment {
        let label = label.to_owned();
        Alignment { label, start_s, end_s, confidence: None, source: Source::Exact }
    }

    /// A file of the shared data, or `None` with a message where it is absent.
    pub(crate) fn data(file: &str) -> Option<PathBuf> {
        let root = std::env::var_os("SANDHI_TEST_DATA").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
            PathBuf::from,
        );
        let path = root.join(file);
        if !path.exists() {
            eprintln!("skipped: {} is absent", path.display());
            return None;
        }
        Some(path)
    }

    pub(super) fn fixture(name: &str) -> Option<PathBuf> {
        data(&format!("fixtures/{name}"))
    }

    #[test]
    fn pieces_share_by_characters() {
        let word = label("gardening", 1.0, 2.0);
        let pieces = subword_times(&word, &["▁gard", "en", "##ing"]);
        // 4, 2 and 3 of 9 characters.
        let expected =
            [(1.0, 1.0 + 4.0 / 9.0), (1.0 + 4.0 / 9.0, 1.0 + 6.0 / 9.0), (1.0 + 6.0 / 9.0, 2.0)];
        for (piece, (start_s, end_s)) in pieces.iter().zip(expected) {
            assert!((piece.start_s - start_s).abs() < 1e-12 && (piece.end_s - end_s).abs() < 1e-12);
        }
        assert_eq!(pieces[2].label, "##ing");
        let marks = subword_times(&word, &["▁", "▁"]);
        assert_eq!((marks[0].end_s, marks[1].end_s), (1.5, 2.0));
        assert!(subword_times(&word, &[]).is_empty());
    }

    proptest! {
        #[test]
        fn pieces_tile_the_word(
            start_s in 0.0..1e5_f64, length in 0.0..3.0_f64,
            pieces in proptest::collection::vec("[▁#aé ]{0,5}", 1..6),
        ) {
            let word = label("x", start_s, start_s + length);
            let refs: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let times = subword_times(&word, &refs);
            prop_assert_eq!(times.len(), pieces.len());
            prop_assert_eq!(times[0].start_s, word.start_s);
            prop_assert_eq!(times[times.len() - 1].end_s, word.end_s);
            for pair in times.windows(2) {
                prop_assert_eq!(pair[0].end_s, pair[1].start_s);
            }
            prop_assert!(times.iter().all(|piece| piece.end_s >= piece.start_s));
        }
    }
}
