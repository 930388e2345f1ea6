//! Groups of rows that become their weighted mean.
//!
//! ```text
//! rows      0  1  2 | 3 | 4  5
//! weights   1  1  2 | 5 | 0  0           divided by their sums: ¼ ¼ ½ | 1 | ½ ½
//! ```

use burn::tensor::{Tensor, TensorData};

use crate::{ops, ragged::Offsets};

/// Groups of rows that become their weighted mean.
#[derive(Debug, Default)]
pub(super) struct Groups {
    rows: Vec<u32>,
    weights: Vec<f32>,
    lengths: Vec<usize>,
}

impl Groups {
    /// Adds a group; its weights are divided by their sum, or equal where that is not above 0.
    pub fn push(&mut self, members: impl Iterator<Item = (usize, f32)>) {
        let first = self.rows.len();
        for (row, weight) in members {
            self.rows.push(row as u32);
            self.weights.push(weight);
        }
        let weights = &mut self.weights[first..];
        let (n, sum) = (weights.len(), weights.iter().sum::<f32>());
        for weight in weights {
            *weight = if sum > 0.0 { *weight / sum } else { 1.0 / n as f32 };
        }
        self.lengths.push(n);
    }

    /// Their means, `[n_groups, width]`.
    pub fn means(self, x: Tensor<2>) -> Tensor<2> {
        let n = self.rows.len();
        let weights = TensorData::new(self.weights, [n, 1]);
        let weights = Tensor::from_data(weights, (&x.device(), x.dtype()));
        ops::pool(x, weights, &self.rows, &Offsets::from_lengths(&self.lengths))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{cpu, to_vec};

    #[test]
    fn means_by_hand() {
        let x = Tensor::<2>::from_floats([[1.0], [3.0], [8.0], [5.0], [2.0], [4.0]], &cpu());
        let mut groups = Groups::default();
        groups.push([(0, 1.0), (1, 1.0), (2, 2.0)].into_iter());
        groups.push([(3, 5.0)].into_iter());
        groups.push([(4, 0.0), (5, 0.0)].into_iter());
        assert_eq!(to_vec(groups.means(x)), [5.0, 5.0, 3.0]);
    }
}
