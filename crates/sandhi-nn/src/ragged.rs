//! Sequences of different lengths, packed row after row without padding.
//!
//! ```text
//! values   a0 a1 a2 | b0 | c0 c1        [n_rows, width]
//! offsets  0          3    4      6     n_sequences + 1 entries
//! ```

use std::{ops::Range, sync::Arc};

use burn::tensor::Tensor;

/// Where each packed sequence begins and ends.
///
/// Holds `n_sequences + 1` entries, the first 0, never decreasing; sequence `i` owns the rows
/// `offsets[i]..offsets[i + 1]`. Empty sequences are allowed. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Offsets(Arc<[usize]>);

impl Offsets {
    /// Offsets of sequences with these lengths, in rows.
    pub fn from_lengths(lengths: &[usize]) -> Self {
        let mut end = 0;
        let ends = lengths.iter().map(|length| {
            end += length;
            end
        });
        Self(std::iter::once(0).chain(ends).collect())
    }

    /// How many sequences there are, empty ones included.
    pub fn n_sequences(&self) -> usize {
        self.0.len() - 1
    }

    /// Total number of rows.
    pub fn n_rows(&self) -> usize {
        *self.0.last().expect("offsets always hold the leading zero")
    }

    /// The rows of sequence `sequence_idx`.
    ///
    /// # Panics
    ///
    /// When `sequence_idx` is not below [`Offsets::n_sequences`].
    pub fn range(&self, sequence_idx: usize) -> Range<usize> {
        self.0[sequence_idx]..self.0[sequence_idx + 1]
    }

    /// The length of each sequence, in rows.
    pub fn lengths(&self) -> Vec<usize> {
        self.0.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// The row range of each sequence, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.0.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// The raw boundaries: `n_sequences + 1` entries.
    pub fn as_slice(&self) -> &[usize] {
        &self.0
    }
}

/// Packed values and the sequences they belong to.
#[derive(Debug, Clone)]
pub struct Ragged {
    /// `[n_rows, width]`.
    pub values: Tensor<2>,
    /// `n_rows` rows in all.
    pub offsets: Offsets,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_give_back_the_lengths_they_were_made_from() {
        let offsets = Offsets::from_lengths(&[3, 0, 1, 2]);
        assert_eq!(offsets.as_slice(), [0, 3, 3, 4, 6]);
        assert_eq!(offsets.lengths(), [3, 0, 1, 2]);
        assert_eq!((offsets.n_sequences(), offsets.n_rows()), (4, 6));
        assert_eq!(offsets.range(3), 4..6);
        assert_eq!(offsets.iter().collect::<Vec<_>>(), [0..3, 3..3, 3..4, 4..6]);
    }

    #[test]
    fn no_sequences_have_no_rows() {
        let offsets = Offsets::from_lengths(&[]);
        assert_eq!((offsets.n_sequences(), offsets.n_rows()), (0, 0));
        assert_eq!(offsets.iter().count(), 0);
    }
}
