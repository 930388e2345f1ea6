//! Which tokens form a patch, which patches a token may know of, and what that means for every attention.
//!
//! ```text
//! tokens     B  S  a  b  c  d  e  T  w         B, S, T, w stand alone; units a..e in fours
//! closing    .| .| .  .  .  .| .  || .|        .| after it   || before and after it
//! patches    0  1  2  2  2  2  3  4  5
//! context    0  1  1  1  1  2  2  4  5         the last patch that is whole once the token was read
//! ```
//!
//! The patch `[e]` is whole when `T` was read, which ended it, and not before: a position never knows that a run ends
//! until it has. (The published shift lets `e` see its own patch, which tells the model one token early; Yen-Ju Lu et al.,
//! 2025, "Latent speech-text transformer", <https://arxiv.org/abs/2510.06195>. It is had by closing after `e`.)

use std::{ops::Range, sync::Arc};

use crate::{
    ops::{AttentionLayout, Mask},
    ragged::Offsets,
};

/// Where patches end around one token, known as soon as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Closing {
    /// What was open before the token is a patch.
    pub before: bool,
    /// What is open with the token is a patch.
    pub after: bool,
}

impl Closing {
    /// A token that is a patch of its own.
    pub const ALONE: Self = Self { before: true, after: true };
}

/// What has been read of one sequence, counted from its first token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub n_tokens: usize,
    /// The first token of every patch that is whole.
    pub starts: Vec<u32>,
    /// The first token that is in no whole patch yet.
    pub open: usize,
}

/// What new tokens of one sequence add.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Added {
    /// The tokens of each patch that became whole, counted from the sequence's first.
    pub members: Vec<Range<usize>>,
    /// The token that ended each of them, counted from the first of the new ones.
    pub closed_by: Vec<usize>,
    /// For each new token the last patch that is whole once it was read.
    pub context: Vec<usize>,
    /// Whether each new token ends the patch that it is in.
    pub ends: Vec<bool>,
}

impl Progress {
    /// Reads tokens.
    ///
    /// # Panics
    ///
    /// When no patch is whole after the first token of a sequence, on which nothing could be predicted.
    pub fn read(&mut self, closings: &[Closing]) -> Added {
        let mut added = Added::default();
        for (i, closing) in closings.iter().enumerate() {
            let mut close = |progress: &mut Self, end: usize| {
                added.members.push(progress.open..end);
                added.closed_by.push(i);
                progress.starts.push(progress.open as u32);
                progress.open = end;
            };
            if closing.before && self.open < self.n_tokens {
                close(self, self.n_tokens);
            }
            self.n_tokens += 1;
            if closing.after {
                close(self, self.n_tokens);
            }
            let n_whole = self.starts.len();
            assert!(n_whole > 0, "the first token of a sequence is a patch of its own");
            added.context.push(n_whole - 1);
            added.ends.push(closing.after);
        }
        added
    }
}

/// The tokens of every patch that becomes whole in a document of its own, counted from the first one.
///
/// # Panics
///
/// When the first token is no patch.
pub fn members(closings: &[Closing]) -> Vec<Range<usize>> {
    Progress::default().read(closings).members
}

/// The additions of all sequences of a batch, in rows.
#[derive(Debug)]
pub(super) struct Layout {
    /// New patches of every sequence.
    pub patches: Offsets,
    /// The rows of each new patch's tokens among those kept.
    pub members: Vec<Range<usize>>,
    /// The row of the new token that ended each new patch.
    pub closed_by: Vec<u32>,
    added: Vec<Added>,
    starts: Vec<Vec<u32>>,
}

impl Layout {
    /// `kept` are the spans of tokens, new ones included; `progress` is moved on.
    pub fn new(
        progress: &mut [Progress],
        closings: &[Closing],
        new: &Offsets,
        kept: &[Range<usize>],
    ) -> Self {
        let added: Vec<Added> = progress
            .iter_mut()
            .zip(new.iter())
            .map(|(progress, span)| progress.read(&closings[span]))
            .collect();
        let lengths: Vec<usize> = added.iter().map(|added| added.members.len()).collect();
        let members = added.iter().zip(kept).flat_map(|(added, kept)| {
            added.members.iter().map(|span| kept.start + span.start..kept.start + span.end)
        });
        let closed_by = added.iter().zip(new.iter()).flat_map(|(added, span)| {
            added.closed_by.iter().map(move |&i| (span.start + i) as u32)
        });
        Self {
            patches: Offsets::from_lengths(&lengths),
            members: members.collect(),
            closed_by: closed_by.collect(),
            starts: progress.iter().map(|progress| progress.starts.clone()).collect(),
            added,
        }
    }

    /// For every new token the row, among new patches, of the one that ends with it.
    pub fn made_whole(&self) -> Vec<Option<u32>> {
        let mut rows = Vec::new();
        for ((added, whole), new) in self.added.iter().zip(self.whole()).zip(self.patches.iter()) {
            let row = |context: usize| (new.start + context - whole.start) as u32;
            let of_tokens = added.context.iter().zip(&added.ends);
            rows.extend(of_tokens.map(|(&context, ends)| ends.then(|| row(context))));
        }
        rows
    }

    /// The new patches of every sequence, counted from its first.
    pub fn whole(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let counts = self.patches.lengths().into_iter();
        self.starts.iter().zip(counts).map(|(starts, n)| starts.len() - n..starts.len())
    }

    /// `n_queries` queries of every new patch ask the tokens of its own and of the `window - 1` patches before it.
    pub fn gathering(&self, kept: &[Range<usize>], shape: Heads, window: usize) -> AttentionLayout {
        let Heads { n_heads, d_head, n_queries } = shape;
        let mut ranges = Vec::with_capacity(self.members.len() * n_queries);
        for (added, starts) in self.added.iter().zip(&self.starts) {
            let first = starts.len() - added.members.len();
            for (i, span) in added.members.iter().enumerate() {
                let start = starts[(first + i + 1).saturating_sub(window)];
                ranges.extend(vec![start..span.end as u32; n_queries]);
            }
        }
        let lengths: Vec<usize> = self.patches.lengths().iter().map(|n| n * n_queries).collect();
        AttentionLayout {
            n_heads,
            n_kv_heads: n_heads,
            d_head,
            queries: Offsets::from_lengths(&lengths).iter().collect(),
            keys: kept.into(),
            mask: Mask::Ranges(ranges.into()),
        }
    }

    /// Every new token asks what the last `window` whole patches gave, `n_queries` rows each.
    pub fn reading(
        &self,
        new: &Offsets,
        kept: &[Range<usize>],
        shape: Heads,
        window: usize,
    ) -> AttentionLayout {
        let Heads { n_heads, d_head, n_queries } = shape;
        let contexts = self.added.iter().flat_map(|added| &added.context);
        let range = |&context: &usize| {
            let first = (context + 1).saturating_sub(window) * n_queries;
            first as u32..((context + 1) * n_queries) as u32
        };
        let ranges: Arc<[Range<u32>]> = contexts.map(range).collect();
        AttentionLayout {
            n_heads,
            n_kv_heads: n_heads,
            d_head,
            queries: new.iter().collect(),
            keys: kept.into(),
            mask: Mask::Ranges(ranges),
        }
    }
}

/// Heads of an attention between tokens and patches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub n_heads: usize,
    pub d_head: usize,
    /// Rows that stand for a patch.
    pub n_queries: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Closing = Closing { before: false, after: false };
    const FULL: Closing = Closing { before: false, after: true };
    const ALONE: Closing = Closing::ALONE;

    /// The picture of this file.
    #[test]
    fn a_run_that_ends_early_is_a_patch_when_that_was_read() {
        let closings = [ALONE, ALONE, OPEN, OPEN, OPEN, FULL, OPEN, ALONE, ALONE];
        let mut progress = Progress::default();
        let added = progress.read(&closings);
        assert_eq!(added.members, [0..1, 1..2, 2..6, 6..7, 7..8, 8..9]);
        assert_eq!(added.closed_by, [0, 1, 5, 7, 7, 8]);
        assert_eq!(added.context, [0, 1, 1, 1, 1, 2, 2, 4, 5]);
        let ends = [true, true, false, false, false, true, false, true, true];
        assert_eq!(added.ends, ends);
        assert_eq!((progress.n_tokens, progress.open), (9, 9));
        // The published shift: `e` closes its own patch.
        let mut shifted = closings;
        shifted[6].after = true;
        let added = Progress::default().read(&shifted);
        assert_eq!(added.members, [0..1, 1..2, 2..6, 6..7, 7..8, 8..9]);
        assert_eq!(added.context, [0, 1, 1, 1, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn in_parts_tokens_add_what_they_add_at_once() {
        let closings = [ALONE, OPEN, OPEN, ALONE, FULL, OPEN, FULL, OPEN];
        let whole = Progress::default().read(&closings);
        for cut in 1..closings.len() {
            let mut progress = Progress::default();
            let (a, b) = (progress.read(&closings[..cut]), progress.read(&closings[cut..]));
            assert_eq!([a.members, b.members].concat(), whole.members, "{cut}");
            assert_eq!([a.context, b.context].concat(), whole.context, "{cut}");
        }
    }

    #[test]
    fn ranges_of_both_attentions_by_hand() {
        // Two sequences: B a b | and B, kept in slots of 4 and 3 rows.
        let closings = [ALONE, OPEN, FULL, ALONE];
        let new = Offsets::from_lengths(&[3, 1]);
        let mut progress = [Progress::default(), Progress::default()];
        let layout = Layout::new(&mut progress, &closings, &new, &[0..3, 4..5]);
        assert_eq!(layout.patches.lengths(), [2, 1]);
        assert_eq!(layout.members, [0..1, 1..3, 4..5]);
        assert_eq!(layout.closed_by, [0, 2, 3]);
        assert_eq!(layout.made_whole(), [Some(0), None, Some(1), Some(2)]);
        let shape = Heads { n_heads: 2, d_head: 4, n_queries: 2 };
        let ranges = |layout: AttentionLayout| match layout.mask {
            Mask::Ranges(ranges) => ranges.to_vec(),
            other => panic!("{other:?}"),
        };
        let own = layout.gathering(&[0..3, 4..5], shape, 1);
        assert_eq!(own.queries[..], [0..4, 4..6]);
        assert_eq!(ranges(own), [0..1, 0..1, 1..3, 1..3, 0..1, 0..1]);
        let two = layout.gathering(&[0..3, 4..5], shape, 2);
        assert_eq!(ranges(two), [0..1, 0..1, 0..3, 0..3, 0..1, 0..1]);
        let reading = layout.reading(&new, &[0..4, 8..10], shape, 1);
        assert_eq!(reading.queries[..], [0..3, 3..4]);
        assert_eq!(ranges(reading), [0..2, 0..2, 2..4, 0..2]);
        let reading = layout.reading(&new, &[0..4, 8..10], shape, 2);
        assert_eq!(ranges(reading), [0..2, 0..2, 0..4, 0..2]);
    }

    #[test]
    #[should_panic(expected = "is a patch of its own")]
    fn a_sequence_begins_with_a_patch() {
        Progress::default().read(&[OPEN]);
    }
}
