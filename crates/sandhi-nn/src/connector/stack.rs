//! Frame stacking: neighbouring frames side by side in one row.
//!
//! ```text
//! frames   f0 f1 f2 | f3 f4 f5 | f6          k = 3, seven frames
//! pad      [f0 f1 f2] [f3 f4 f5] [f6 0 0]    ceil(n / k) groups
//! drop     [f0 f1 f2] [f3 f4 f5]             floor(n / k) groups
//! ```

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    ops,
    ragged::{Offsets, Ragged},
};

/// What becomes of the frames that do not fill a group at an utterance's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Remainder {
    /// Zeros fill the last group, so that every frame is heard.
    #[default]
    Pad,
    /// They fall out; an utterance that is shorter than a group gives nothing.
    Drop,
}

impl Remainder {
    /// Groups of `k` in `n_frames` frames.
    pub(super) fn n_groups(self, n_frames: usize, k: usize) -> usize {
        match self {
            Self::Pad => n_frames.div_ceil(k),
            Self::Drop => n_frames / k,
        }
    }
}

/// Groups of `k` rows side by side; no group reaches over the end of a sequence.
///
/// # Shapes
///
/// - `frames.values`: `[n_frames, width]`
/// - output: `[n_groups, k * width]`, [`Remainder::n_groups`] of them a sequence
pub(super) fn stack(frames: &Ragged, k: usize, remainder: Remainder) -> Ragged {
    let [n_rows, width] = frames.values.dims();
    let lengths: Vec<usize> =
        frames.offsets.iter().map(|span| remainder.n_groups(span.len(), k)).collect();
    let offsets = Offsets::from_lengths(&lengths);
    // Row `n_rows` is the row of zeros.
    let picked: Vec<u32> = frames
        .offsets
        .iter()
        .zip(&lengths)
        .flat_map(|(span, n_groups)| {
            (span.start..span.start + n_groups * k)
                .map(move |row| if row < span.end { row as u32 } else { n_rows as u32 })
        })
        .collect();
    let zeros = Tensor::zeros([1, width], (&frames.values.device(), frames.values.dtype()));
    let rows = ops::embedding(Tensor::cat(vec![frames.values.clone(), zeros], 0), &picked);
    Ragged { values: rows.reshape([offsets.n_rows(), k * width]), offsets }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, cpu, random, to_vec};

    fn frames(lengths: &[usize]) -> Ragged {
        let offsets = Offsets::from_lengths(lengths);
        let rows = (0..offsets.n_rows()).flat_map(|i| [i as f32, -(i as f32)]).collect::<Vec<_>>();
        let values = Tensor::from_data(TensorData::new(rows, [offsets.n_rows(), 2]), &cpu());
        Ragged { values, offsets }
    }

    #[test]
    fn groups_by_hand() {
        // Rows 0 1 2 3 4 | none | 5: row i is (i, -i).
        let padded = stack(&frames(&[5, 0, 1]), 2, Remainder::Pad);
        assert_eq!(padded.offsets.lengths(), [3, 0, 1]);
        let expected = [
            [0.0, 0.0, 1.0, -1.0],
            [2.0, -2.0, 3.0, -3.0],
            [4.0, -4.0, 0.0, 0.0],
            [5.0, -5.0, 0.0, 0.0],
        ];
        assert_eq!(to_vec(padded.values), expected.concat());

        let dropped = stack(&frames(&[5, 0, 1]), 2, Remainder::Drop);
        assert_eq!(dropped.offsets.lengths(), [2, 0, 0]);
        assert_eq!(to_vec(dropped.values), expected[..2].concat());
    }

    #[test]
    fn no_groups_are_as_wide_as_many() {
        for lengths in [vec![], vec![0, 0], vec![2, 1]] {
            let none = stack(&frames(&lengths), 3, Remainder::Drop);
            assert_eq!(none.values.dims(), [0, 6]);
            assert_eq!(none.offsets.lengths(), vec![0; lengths.len()]);
        }
    }

    #[test]
    fn gradients_match_differences() {
        let offsets = Offsets::from_lengths(&[3, 0, 4, 1]);
        for remainder in [Remainder::Pad, Remainder::Drop] {
            Case::new().input(random([8, 2], 1)).check_differences(|t| {
                let frames = Ragged { values: t.rows(0), offsets: offsets.clone() };
                stack(&frames, 3, remainder).values
            });
        }
    }
}
